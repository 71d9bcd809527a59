"""Edits along a direction: add it from a position on, or take it out of a tensor.

Both are frozen objects like ``interp.Add``: they go wherever an edit goes, into ``model.run``,
``model.generate`` or, for :class:`ProjectOut`, ``interp.patch(source=...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import RunError

__all__ = ["AddFrom", "ProjectOut"]

Columns = Callable[[int | str], Int[Tensor, " batch"]]


@dataclass(frozen=True, eq=False)
class AddFrom:
    """Add ``value`` at each prompt's position ``start`` and at every later one.

    In generation that includes every new token, with a key-value cache or without, so
    ``start="END"`` steers the continuation and leaves the prompt before its last token alone
    (Rimsky et al. 2023, arXiv:2312.06681, section 3).

    Attributes:
        value: a vector as long as the last axis of the site.
        start: a position among real tokens, negative from the end, or a name.
    """

    value: Float[Tensor, " d"]
    start: int | str
    _first: Int[Tensor, " batch"] | None = None
    _last: int = 0

    def placed(self, columns: Columns) -> AddFrom:
        """The edit for rows whose positions stand at ``columns``.

        Raises:
            RunError: ``start`` is neither a whole number nor a name.
        """
        if isinstance(self.start, bool) or not isinstance(self.start, int | str):
            raise RunError(
                f"AddFrom(start={self.start!r}); expected a position such as 2 or -1, or 'END'."
            )
        return replace(self, _first=columns(self.start), _last=int(columns(-1).max()))

    def __call__(self, x: Float[Tensor, "batch pos *rest"]) -> Float[Tensor, "batch pos *rest"]:
        if self._first is None or x.dim() < 3:
            raise RunError(
                f"AddFrom(start={self.start!r}) works on a whole site in model.run or "
                "model.generate, where it is told each prompt's positions: give it to a site "
                "without @position, such as 'L2.resid_pre'."
            )
        value = _vector(self.value, x, "AddFrom")
        if x.shape[1] <= self._last:  # the cache holds the prompt: these are new tokens
            return x + value
        first = self._first.to(x.device)
        if len(first) != x.shape[0]:  # beams of each prompt
            first = first.repeat_interleave(x.shape[0] // len(first))
        on = torch.arange(x.shape[1], device=x.device) >= first[:, None]
        return torch.where(on.view(*on.shape, *[1] * (x.dim() - 2)), x + value, x)


@dataclass(frozen=True, eq=False)
class ProjectOut:
    """Directional ablation: ``x - (x·r)r`` with ``r = direction / ‖direction‖``.

    What is left is orthogonal to the direction; everything orthogonal to it stays. Length and
    sign of ``direction`` do not matter. Applied to all that is written to the residual stream
    it equals a model whose weights cannot write the direction.

    Source:
        Arditi et al. 2024, arXiv:2406.11717, section 2.4, equation 4.
    """

    direction: Float[Tensor, " d"]

    def rows(self, start: int, stop: int, total: int) -> ProjectOut:
        return self

    def __call__(self, x: Float[Tensor, "*rest d"]) -> Float[Tensor, "*rest d"]:
        r = _vector(
            self.direction, x, "ProjectOut", dtype=torch.promote_types(x.dtype, torch.float32)
        )
        length = r.norm()
        if not 0 < float(length) < float("inf"):
            raise RunError(
                f"ProjectOut was given a direction of length {float(length):g}: it points nowhere."
            )
        r = r / length
        wide = x.to(r.dtype)
        return (wide - (wide @ r)[..., None] * r).to(x.dtype)


def _vector(
    value: Tensor, x: Tensor, verb: str, *, dtype: torch.dtype | None = None
) -> Float[Tensor, " d"]:
    """``value`` beside ``x``.

    Raises:
        RunError: it is not one vector of the site's width.
    """
    value = torch.as_tensor(value)
    if value.dim() != 1 or value.shape[0] != x.shape[-1]:
        raise RunError(
            f"{verb} was given a vector of shape {list(value.shape)}, but the site holds "
            f"{list(x.shape)}: give one vector of length {x.shape[-1]}."
        )
    return value.to(x.device, dtype or x.dtype)
