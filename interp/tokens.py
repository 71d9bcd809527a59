"""Tokenisation without surprises: text in, a padded batch that knows its padding out.

``Tokenization`` wraps a Hugging Face tokenizer and holds the policy:

- BOS is prepended once if the tokenizer has one (``bos=None``), also where the
  tokenizer itself would not (GPT-2: ``<|endoftext|>``, as TransformerLens does),
  and never doubled where the text or a chat template already begins with it.
  ``bos=True`` insists, ``bos=False`` adds none.
- No other special token is added, nothing is ever truncated, words that the
  tokenizer does not know are refused rather than read as ``<unk>``, and chat
  templates are applied only when asked.
- Padding is done here, with a mask (see ``TokenBatch``), so no pad token is
  needed and the caller's tokenizer keeps every setting it came with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from interp.errors import PromptError
from interp.token_batch import TokenBatch

__all__ = ["TokenBatch", "Tokenization"]

PadSide = Literal["right", "left"]


@dataclass(frozen=True, eq=False, repr=False)
class Tokenization:
    """A tokenizer with one policy for BOS, padding and length.

    Attributes:
        tokenizer: a Hugging Face tokenizer, never changed; None makes every
            text method raise and leaves token tensors usable.
        n_vocab: rows of the model's embedding; ids must be below it.
        n_ctx: longest input the model takes, None if it has no limit.
        n_out: columns of the logits where they are no tokens of this vocabulary; None: they are.
    """

    tokenizer: Any
    _: KW_ONLY
    n_vocab: int
    n_ctx: int | None = None
    n_out: int | None = None

    def __repr__(self) -> str:
        name = type(self.tokenizer).__name__ if self.tokenizer is not None else "no tokenizer"
        return f"Tokenization({name}, n_vocab={self.n_vocab}, n_ctx={self.n_ctx})"

    @property
    def bos_id(self) -> int | None:
        """Id of the BOS token, None if there is none."""
        return self._id("bos")

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids with a special meaning (BOS, EOS, padding…), empty without a tokenizer."""
        return frozenset(getattr(self.tokenizer, "all_special_ids", ()))

    def encode(
        self,
        text: str | Sequence[str],
        *,
        bos: bool | None = None,
        pad: PadSide = "right",
        chat: bool = False,
    ) -> TokenBatch:
        """Tokens of one or more texts, padded to the longest.

        Args:
            text: a string, or a list of them.
            bos: None prepends BOS once if the tokenizer has one; True insists
                on it, False adds none. A BOS already in the text is never doubled.
            pad: the side of the padding.
            chat: wrap each text as a user's message in the tokenizer's chat
                template, which then decides about BOS (unless ``bos=True``).

        Raises:
            PromptError: no tokenizer, no text, longer than the context.
        """
        texts = self._texts(text)
        if chat:
            texts = [self._chat(one) for one in texts]
            bos = bool(bos)
        return self._pad([self._ids(one, bos) for one in texts], pad)

    def encode_rows(self, texts: Sequence[str], *, bos: bool | None = None) -> list[list[int]]:
        """Ids of many texts at once, of any length, to be cut into rows afterwards.

        As :meth:`encode`, but an empty text has no tokens and no BOS.

        Raises:
            PromptError: no tokenizer, no BOS where ``bos=True``, a word it does not know.
        """
        self._need("text input")
        rows = self._tokenize(list(texts), return_attention_mask=False)["input_ids"]
        pairs = zip(texts, rows, strict=True)
        return [self._with_bos(text, list(ids), bos) if ids else [] for text, ids in pairs]

    def take(
        self,
        inputs: str
        | Sequence[Any]
        | Int[Tensor, "*batch pos"]
        | Int[ndarray, "*batch pos"]
        | TokenBatch,
        *,
        bos: bool | None = None,
        pad: PadSide = "right",
    ) -> TokenBatch:
        """Whatever a caller may pass as input, as a batch that this model can run.

        Text is encoded; token ids (a tensor, an array, a list or lists) are taken as they are,
        without a BOS.
        """
        batch = TokenBatch.given(inputs, pad=pad)
        if batch is None:
            return self.encode(inputs, bos=bos, pad=pad)  # type: ignore[arg-type]
        wrong = batch.ids[batch.mask & ((batch.ids < 0) | (batch.ids >= self.n_vocab))]
        if wrong.numel():
            raise PromptError(
                f"token id {int(wrong[0])} is outside the vocabulary: expected 0 to "
                f"{self.n_vocab - 1}. Were these tokens made by another tokenizer?"
            )
        self._check_length(batch.n_real.tolist())
        return batch

    def to_tokens(
        self, text: str | Sequence[str], *, bos: bool | None = None
    ) -> Int[Tensor, "batch pos"]:
        """Ids of texts that all have one length, as a plain tensor."""
        batch = self.encode(text, bos=bos)
        if batch.padded:
            raise PromptError(
                f"these texts have {batch.n_real.tolist()} tokens, expected one length for a plain "
                "tensor. Use encode(texts), which carries the padding mask, or pass the list of "
                "texts to model.run."
            )
        return batch.ids

    def to_str_tokens(
        self, text: str | Int[Tensor, " pos"] | Sequence[int], *, bos: bool | None = None
    ) -> list[str]:
        """Each token as text of its own, leading spaces kept.

        >>> tokens.to_str_tokens("The capital")                   # doctest: +SKIP
        ['<|endoftext|>', 'The', ' capital']
        """
        self._need("to_str_tokens")
        ids = self.encode(text, bos=bos).ids[0] if isinstance(text, str) else text
        return [self._piece(index) for index in _flat(ids)]

    def to_string(self, ids: Int[Tensor, " pos"] | Sequence[int]) -> str:
        """The text of a row of ids, special tokens included."""
        self._need("to_string")
        return str(self.tokenizer.decode(_flat(ids), clean_up_tokenization_spaces=False))

    def to_single_token(self, text: str, *, after: str | None = None) -> int:
        """The id of a text that is exactly one token (BOS apart); see ``to_single_tokens``."""
        return self.to_single_tokens([text], after=after)[0]

    def to_single_tokens(self, texts: Sequence[str], *, after: str | None = None) -> list[int]:
        """The ids of texts that are exactly one token each.

        Args:
            texts: the words, with the leading space that they carry in a sentence.
            after: a prompt. If a word adds one token to it, that is its token;
                tokenizers of the SentencePiece kind read a word alone differently.
        """
        texts = self._texts(texts)
        ids = self._continuations(texts, after) if after else [None] * len(texts)
        return [self._single(one) if i is None else i for one, i in zip(texts, ids, strict=True)]

    def span_columns(
        self, text: str, span: tuple[int, int], *, bos: bool | None = None
    ) -> list[int]:
        """Positions of the tokens that overlap the characters ``text[start:end]``.

        Positions are counted among real tokens, as in ``TokenBatch.column``,
        with BOS at 0 where ``encode(text, bos=bos)`` has one.
        """
        ids = self._ids(self._texts(text)[0], bos)
        if not getattr(self.tokenizer, "is_fast", False):
            raise PromptError(
                f"{type(self.tokenizer).__name__} does not say which characters a token covers. "
                "Load the fast tokenizer, or give positions as integers."
            )
        offsets = self._tokenize(text, return_offsets_mapping=True)["offset_mapping"]
        shift = len(ids) - len(offsets)
        start, end = span
        hits = [i + shift for i, (a, b) in enumerate(offsets) if a < end and b > start]
        if not 0 <= start < end <= len(text) or not hits:
            raise PromptError(
                f"characters {start} to {end} of {text!r} cover no token, expected a span "
                f"inside 0 to {len(text)}. Check that the span belongs to this text."
            )
        return hits

    def _need(self, what: str) -> None:
        if self.tokenizer is None:
            raise PromptError(
                f"{what} needs a tokenizer, but this model was loaded without one. "
                "Pass interp.load(..., tokenizer=...), or give token tensors instead of text."
            )

    def _texts(self, text: str | Sequence[str]) -> list[str]:
        if isinstance(text, Mapping) or not isinstance(text, Iterable):
            raise PromptError(
                f"{text!r} is a {type(text).__name__}; expected a text, a list of texts, token ids or "
                "Prompts."
            )
        self._need("text input")
        texts = [text] if isinstance(text, str) else list(text)
        wrong = [i for i, one in enumerate(texts) if not isinstance(one, str) or not one]
        if not texts or wrong:
            given = f"text {wrong[0]} is {texts[wrong[0]]!r}" if wrong else "the list is empty"
            raise PromptError(f"{given}, expected one or more non-empty strings.")
        return texts

    def _tokenize(self, text: str | list[str], **options: bool) -> Any:
        return self.tokenizer(text, add_special_tokens=False, verbose=False, **options)

    def _ids(self, text: str, bos: bool | None) -> list[int]:
        return self._with_bos(text, list(self._tokenize(text)["input_ids"]), bos)

    def _with_bos(self, text: str, ids: list[int], bos: bool | None) -> list[int]:
        """What a text was tokenised to, with a BOS once in front if the policy has one."""
        self._refuse_unknown(text, ids)
        if bos and self.bos_id is None:
            raise PromptError(
                f"bos=True, but {type(self.tokenizer).__name__} has no BOS token. "
                "Leave bos=None, which adds one only where it exists."
            )
        if bos is False or self.bos_id is None or ids[:1] == [self.bos_id]:
            return ids
        return [self.bos_id, *ids]

    def _refuse_unknown(self, text: str, ids: list[int]) -> None:
        unk = getattr(self.tokenizer, "unk_token_id", None)
        # GPT-2 calls its BOS unk as well: only an unk with no other duty means "unknown".
        if unk is None or unk in (self.bos_id, self._id("eos"), self._id("pad")):
            return
        if unk in ids and self.tokenizer.unk_token not in text:
            first = ids.index(unk)
            known = [self._piece(index) for index in ids[max(0, first - 12) : first]]
            shown = text if len(text) <= 200 else text[:200] + "…"
            raise PromptError(
                f"{shown!r} has a word that is not in the vocabulary, after {known}. Expected only "
                "words this tokenizer knows; choose another, or write "
                f"{self.tokenizer.unk_token!r} yourself."
            )

    def _continuations(self, texts: Sequence[str], after: str) -> list[int | None]:
        """The one id that each text adds to ``after``; None where it is not one known id."""
        before = list(self._tokenize(after)["input_ids"])
        rows = self._tokenize([after + text for text in texts])["input_ids"]
        unk = getattr(self.tokenizer, "unk_token_id", None)
        return [row[-1] if row[:-1] == before and row[-1] != unk else None for row in rows]

    def _single(self, text: str) -> int:
        """The id of a text that is one token on its own."""
        ids = self._ids(text, bos=False)
        if len(ids) == 1:
            return ids[0]
        other = text.lstrip() if text.startswith(" ") else " " + text
        fits = bool(other) and len(self._tokenize(other)["input_ids"]) == 1
        hint = f"Try {other!r}, which is one." if fits else "Choose a word that is one token."
        pieces = [self._piece(index) for index in ids]
        raise PromptError(f"{text!r} is {len(ids)} tokens {pieces}, expected exactly one. {hint}")

    def _chat(self, text: str) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise PromptError(
                f"chat=True, but {type(self.tokenizer).__name__} has no chat template. "
                "Leave chat=False, or write the conversation's format into the text."
            )
        message = [{"role": "user", "content": text}]
        return str(
            self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        )

    def _pad(self, rows: list[list[int]], pad: PadSide) -> TokenBatch:
        self._check_length([len(row) for row in rows])
        fill = next((i for i in (self._id("pad"), self._id("eos")) if i is not None), 0)
        return self.take(TokenBatch.stack(rows, pad=pad, fill=fill))

    def _id(self, name: str) -> int | None:
        """Id of the "bos", "eos" or "pad" token, None if absent or beyond the embedding."""
        index = getattr(self.tokenizer, f"{name}_token_id", None)
        return index if index is not None and index < self.n_vocab else None

    def _check_length(self, lengths: Sequence[int]) -> None:
        if 0 in lengths:
            raise PromptError(
                f"prompt {lengths.index(0)} has no tokens, expected at least one. "
                "Write something that this tokenizer knows."
            )
        row = max(range(len(lengths)), key=lambda i: lengths[i])
        if self.n_ctx is not None and lengths[row] > self.n_ctx:
            raise PromptError(
                f"prompt {row} has {lengths[row]} tokens, but the model's context is "
                f"{self.n_ctx}. Nothing is truncated: shorten the prompt or split it."
            )

    def _piece(self, index: int) -> str:
        raw = self.tokenizer.convert_ids_to_tokens(index)
        if raw is None:  # embedding rows beyond the tokenizer's vocabulary
            return f"<{index}>"
        text = str(self.tokenizer.decode([index], clean_up_tokenization_spaces=False))
        # Sentencepiece decoders strip the space that "▁" stands for.
        return f" {text}" if raw.startswith(("▁", "Ġ")) and not text.startswith(" ") else text


def _flat(ids: Int[Tensor, " pos"] | Sequence[int]) -> list[int]:
    """A row of ids as Python integers."""
    row = ids.tolist() if isinstance(ids, Tensor) else [int(i) for i in ids]
    if row and isinstance(row[0], list):
        raise PromptError(
            f"ids have shape {list(torch.as_tensor(row).shape)}, expected one row [pos]. "
            "Pass a row, as ids[0]."
        )
    return row
