"""What a feature's pre-activation is a sum over, by name.

    L1.mlp.F12@5     a feature of the transcoder of layer 1, at position 5
    L2.H3@9←5        what head 3 of layer 2 moves from position 5 to position 9
    embed@5          the token's embedding; pos_embed@5
    L1.mlp@5         an MLP that no transcoder stands for
    L1.mlp.error@5   what a transcoder leaves out of its MLP
    L1.mlp.skip@5    the linear path of a skip transcoder
    L1.attn.bias@5   b_O, and the β of a norm behind attention; L1.mlp.bias@5: b_dec
    bias             b_enc, and the β of the norm in front of the encoder

Positions count from 0. The first three can be gone through (:meth:`FrozenRun.behind`), the others are ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from interp.errors import DictionaryError

__all__ = ["Kind", "Node"]

Kind = Literal[
    "feature", "head", "embed", "pos_embed", "mlp", "error", "skip", "attn_bias", "mlp_bias", "bias"
]
_FORMS: dict[str, str] = {
    "feature": "L{layer}.mlp.F{index}@{position}", "head": "L{layer}.H{index}@{position}←{source}",
    "embed": "embed@{position}", "pos_embed": "pos_embed@{position}", "mlp": "L{layer}.mlp@{position}",
    "error": "L{layer}.mlp.error@{position}", "skip": "L{layer}.mlp.skip@{position}",
    "attn_bias": "L{layer}.attn.bias@{position}", "mlp_bias": "L{layer}.mlp.bias@{position}",
    "bias": "bias",
}  # fmt: skip
_READERS = {
    kind: re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>\\d+)", re.escape(form)))
    for kind, form in _FORMS.items()
}


@dataclass(frozen=True)
class Node:
    """One term of a sum.

    Attributes:
        kind: what it is.
        position: the column it writes at; None of ``bias``.
        layer: its block; None of the embeddings and of ``bias``.
        index: number of the feature or head.
        source: the column that a head reads.
    """

    kind: Kind
    position: int | None = None
    layer: int | None = None
    index: int | None = None
    source: int | None = None

    @property
    def name(self) -> str:
        return _FORMS[self.kind].format(**vars(self))

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Layer, number, and position of a feature; of a head the position that it reads."""
        found = [x for x in (self.layer, self.index, self.place) if x is not None]
        assert len(found) == 3, self
        return found[0], found[1], found[2]

    @property
    def place(self) -> int | None:
        """The column where one goes on from it: a head's source, else its own."""
        return self.position if self.source is None else self.source

    @property
    def passable(self) -> bool:
        """Whether what it writes is taken apart in its turn."""
        return self.kind in ("feature", "head")

    @classmethod
    def parse(cls, name: str) -> Node:
        """The node of that name.

        Raises:
            DictionaryError: no node has such a name.
        """
        for kind in get_args(Kind):
            match = _READERS[kind].fullmatch(name)
            if match is not None:
                return cls(kind, **{key: int(value) for key, value in match.groupdict().items()})
        raise DictionaryError(
            f"{name!r} names no part of a feature's input; expected one of "
            f"{', '.join(form.format(layer=1, index=3, position=9, source=5) for form in _FORMS.values())}."
        )
