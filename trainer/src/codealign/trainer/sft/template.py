"""The prompt format for tuning: a system sentence, a header for the instruction, and a header for the answer.

As a chat template, it makes `apply_chat_template` produce exactly the format that the model was trained on.
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
    """Return the chat template in Jinja.

    Args:
        begins_with_bos: Whether the tokenizer prepends its begin token to every text. The template must then do the
            same, since rendered templates are tokenized without further special tokens.
    """
    return _TEMPLATE.format(
        system=SYSTEM_SENTENCE,
        instruction=INSTRUCTION_HEADER,
        response=RESPONSE_HEADER,
        begin="bos_token + " if begins_with_bos else "",
    )
