"""The demo model's tokenizer: one token per word, with the space in front of it.

Words are cut from the data itself, so every country, capital, name and year is exactly one
token, and a prompt's positions can be read off by eye. As in SentencePiece a word carries the
space before it (shown as ``▁``), and a text's first word is treated as if it had one: ``Paris``
and `` Paris`` are the same token, and ``decode(encode(text)) == text``. Digits are cut in pairs,
``1732`` -> ``▁17 32``, as GPT-2 happens to do with most years: without a space before it a pair
is a token of its own, wherever it stands.
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from interp.corpora.sentences import words

__all__ = ["SPECIAL_TOKENS", "build_tokenizer", "vocabulary", "word_ids"]

SPACE = "▁"
SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>")
PUNCTUATION = (".", ",", ":", ";", "?", "!", "'", "-", "(", ")")
DIGIT_PAIRS = tuple(f"{pair:02d}" for pair in range(100))

#: A word, a pair of digits or one sign, each with the space before it if there is one.
PIECE = rf"{SPACE}?\p{{L}}+|{SPACE}?\d{{1,2}}|{SPACE}?[^\p{{L}}\d{SPACE}]"


def build_tokenizer(*, context: int) -> PreTrainedTokenizerFast:
    """The tokenizer over :func:`vocabulary`; it adds ``<bos>`` unless told not to.

    Args:
        context: the longest sequence the model reads, in tokens.
    """
    ids = {token: index for index, token in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"^(?=\p{L})"), SPACE), normalizers.Replace(" ", SPACE)]
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    core.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", ids["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        **{f"{token.strip('<>')}_token": token for token in SPECIAL_TOKENS},
    )


def vocabulary() -> list[str]:
    """Every token, in a fixed order: special tokens, signs, digit pairs, then words A to z."""
    pairs = [*DIGIT_PAIRS, *(SPACE + pair for pair in DIGIT_PAIRS)]
    return [*SPECIAL_TOKENS, *PUNCTUATION, *pairs, *(SPACE + word for word in words())]


def word_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids of all ordinary tokens: everything but the special ones."""
    special = set(tokenizer.all_special_ids)
    return [index for index in range(len(tokenizer)) if index not in special]
