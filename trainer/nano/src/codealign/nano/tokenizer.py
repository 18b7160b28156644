"""nano's tokenizer: byte-level BPE, trained on the texts that the model learns from."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PAD = "<|pad|>"
VOCABULARY = 2048


def train_tokenizer(texts: Iterable[str], context: int, vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A tokenizer for these texts.

    A digit, with the space before it, is a token of its own: numbers are copied digit by digit, wherever they stand.

    Args:
        texts: What its merges are counted in.
        context: Tokens that the model takes.
        vocabulary: How many tokens it knows, the two special ones included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
