"""The prompt that a base model is tuned on: one system sentence, a header for the instruction, one for the answer.

It is a chat template, so that what a model was trained on is what `apply_chat_template` gives whoever uses it.
"""

from __future__ import annotations

SYSTEM_SENTENCE = (
    "You help people write programs: carry out the instruction below with code that is correct, complete and easy to "
    "read."
)
INSTRUCTION_HEADER = "### Instruction"
RESPONSE_HEADER = "### Response"

_TEMPLATE = (
    "{{%- if messages and messages[0].role == 'system' -%}}"
    "{{%- set opening = messages[0].content -%}}{{%- set turns = messages[1:] -%}}"
    "{{%- else -%}}"
    "{{%- set opening = {system!r} -%}}{{%- set turns = messages -%}}"
    "{{%- endif -%}}"
    "{{{{- {begin}opening + '\\n\\n' -}}}}"
    "{{%- for turn in turns -%}}"
    "{{%- if turn.role == 'user' -%}}"
    "{{{{- {instruction!r} + '\\n' + turn.content + '\\n\\n' -}}}}"
    "{{%- elif turn.role == 'assistant' -%}}"
    "{{{{- {response!r} + '\\n' + turn.content + eos_token -}}}}"
    "{{%- if not loop.last -%}}{{{{- '\\n\\n' -}}}}{{%- endif -%}}"
    "{{%- else -%}}"
    "{{{{- raise_exception('roles are system (first), user and assistant; found ' + turn.role) -}}}}"
    "{{%- endif -%}}"
    "{{%- endfor -%}}"
    "{{%- if add_generation_prompt -%}}{{{{- {response!r} + '\\n' -}}}}{{%- endif -%}}"
)


def chat_template(*, begins_with_bos: bool) -> str:
    """The template, in Jinja.

    Args:
        begins_with_bos: The tokenizer puts its begin token in front of every text, so the template must as well:
            rendered templates are tokenized without further special tokens.
    """
    return _TEMPLATE.format(
        system=SYSTEM_SENTENCE,
        instruction=INSTRUCTION_HEADER,
        response=RESPONSE_HEADER,
        begin="bos_token + " if begins_with_bos else "",
    )
