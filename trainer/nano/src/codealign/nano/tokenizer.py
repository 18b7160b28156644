"""nano's tokenizer: byte-level BPE, trained on the texts that the model learns from."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PAD = "<|pad|>"


def train_tokenizer(texts: Iterable[str], context: int, vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer for these texts.

    A line's end is a token of its own, so that a prompt may end with one: were it one token with the indentation that
    follows, the model would never have seen a line end alone where code goes on. So is a digit, with the space before
    it: numbers are copied digit by digit. Every text begins with the token that ended the document before it.

    Args:
        texts: What its merges are counted in.
        context: Tokens that the model takes.
        vocabulary: How many tokens it knows, the two special ones included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
