"""What a run saved, by site.

``cache["L5.resid_pre"]`` and ``cache["blocks.5.hook_resid_pre"]`` are the same
tensor. A slice of a saved tensor is cut on the way out (``cache["L5.H3.z@-1"]``),
and a site which names several layers stacks them along a new first axis
(``cache["L*.resid_pre"]``: [layer, batch, pos, d_model]).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import SiteError, nearest
from interp.runs.slices import read
from interp.sites import Site

__all__ = ["Cache", "Decomposition"]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """A residual stream as a sum of named parts.

    Attributes:
        names: one for each part: ``embed``, ``L0.attn_out``, ``L0.H3.result``, ...
        parts: their tensors, in the unit of the residual stream.
    """

    names: tuple[str, ...]
    parts: Float[Tensor, "part batch pos d_model"]

    def total(self) -> Float[Tensor, "batch pos d_model"]:
        """The sum of the parts."""
        return self.parts.sum(0)

    def __getitem__(self, name: str) -> Float[Tensor, "batch pos d_model"]:
        if name not in self.names:
            raise SiteError(f"no part is called {name!r}; nearest: {nearest(name, self.names)}.")
        return self.parts[self.names.index(name)]


class Cache(Mapping[str, Tensor]):
    """A read-only mapping from sites to the tensors a run saved."""

    def __init__(
        self,
        tensors: Mapping[Site, Tensor],
        *,
        n_layers: int,
        columns: Callable[[int | str], Int[Tensor, " batch"]],
        spliced: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._tensors = dict(tensors)
        self._n_layers = n_layers
        self._spliced = spliced or {}  # the layers in which a dictionary shows a point
        self._columns = columns

    def __getitem__(self, name: str | Site) -> Tensor:
        site = Site.parse(name)
        tensors = [self._one(single) for single in self._each(site)]
        if site.layer is None or site.layer.single:
            return tensors[0]
        if len({x.shape for x in tensors}) > 1:
            widths = ", ".join(str(x.shape[-1]) for x in tensors)
            raise SiteError(
                f"{str(site)!r} means tensors of several widths ({widths}), which do not stack: ask "
                "for one layer at a time."
            )
        return torch.stack(
            [x.to(tensors[0].device) for x in tensors]
        )  # of layers on several devices

    def _each(self, site: Site) -> tuple[Site, ...]:
        """One site for each layer meant; of features, a star means the layers that have them."""
        sites = site.per_layer(self._n_layers)
        if not site.kind.spliced or site.layer is None or site.layer.text != "*":
            return sites
        have = [str(layer) for layer in self._spliced.get(site.point, ())]
        return tuple(one for one in sites if one.layer and one.layer.text in have) or sites

    def _one(self, site: Site) -> Tensor:
        if site in self._tensors:
            return self._tensors[site]
        if site.whole in self._tensors:
            columns = None if site.position is None else self._columns(site.position)
            return read(self._tensors[site.whole], site, columns)
        saved = [str(s) for s in self._tensors]
        raise SiteError(
            f"{str(site)!r} was not saved by this run; "
            + (f"nearest saved: {nearest(str(site), saved)}" if saved else "nothing was saved")
            + f". Run again with save=[{str(site.whole)!r}]."
        )

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str | Site):
            return False
        try:
            sites = self._each(Site.parse(name))
        except SiteError:
            return False
        return all(s in self._tensors or s.whole in self._tensors for s in sites)

    def get(self, name: str | Site, default: Any = None) -> Any:
        """The tensor, or ``default`` if it was not saved."""
        return self[name] if name in self else default  # noqa: SIM401 (this is get)

    def __iter__(self) -> Iterator[str]:
        return (str(site) for site in self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Cache({len(self)} tensors, {self.nbytes / 2**20:.1f} MiB)"

    @property
    def nbytes(self) -> int:
        """Bytes that the saved tensors take."""
        return sum(t.numel() * t.element_size() for t in self._tensors.values())

    def to(self, *args: Any, **kwargs: Any) -> Cache:
        """The same cache on another device or in another dtype (as ``Tensor.to``)."""
        tensors = {site: t.to(*args, **kwargs) for site, t in self._tensors.items()}
        return Cache(tensors, n_layers=self._n_layers, columns=self._columns, spliced=self._spliced)

    def stack_residual(self) -> Float[Tensor, "layer_plus_1 batch pos d_model"]:
        """The residual stream before each block, and after the last one.

        Needs ``save=["L*.resid_pre", "L-1.resid_post"]``.
        """
        return torch.cat([self["L*.resid_pre"], self["L-1.resid_post"][None]])

    def decompose(self, *, layer: int | None = None, heads: bool = False) -> Decomposition:
        """The residual stream before block ``layer`` (None: after the last) as a sum of parts.

        The parts are the embeddings, then each earlier block's attention and MLP; with
        ``heads=True`` each head (``L0.H3.result``), and what attention adds beside its heads
        (the output bias) as ``L0.attn_bias``. They sum to the residual stream within float
        rounding. Needs the named tensors to be saved: ``save=["embed", "L*.attn_out",
        "L*.mlp_out"]`` (with ``pos_embed`` where the model has one; with ``L*.result``).

        Raises:
            SiteError: a part was not saved, or the heads do not sum to ``attn_out`` because
                this family normalises attention's output.
        """
        depth = self._n_layers if layer is None else layer
        if not 0 <= depth <= self._n_layers:
            raise SiteError(f"layer={layer}: expected 0 to {self._n_layers}, or None for the end.")
        parts: dict[str, Tensor] = {"embed": self["embed"]}
        if "pos_embed" in self:
            parts["pos_embed"] = self["pos_embed"]
        for block in range(depth):
            attn = self[f"L{block}.attn_out"]
            parts |= self._heads(block, attn) if heads else {f"L{block}.attn_out": attn}
            parts[f"L{block}.mlp_out"] = self[f"L{block}.mlp_out"]
        return Decomposition(tuple(parts), torch.stack(list(parts.values())))

    def _heads(self, block: int, attn: Tensor) -> dict[str, Tensor]:
        result = self[f"L{block}.result"]
        rest = attn - result.sum(2)
        allowed = 3e-2 if attn.dtype in (torch.bfloat16, torch.float16) else 1e-3
        if (rest - rest[:1, :1]).abs().max() > allowed * attn.abs().max().clamp(min=1e-6):
            raise SiteError(
                f"the heads of block {block} do not sum to its attn_out: this family normalises "
                "attention's output, so heads have no part of their own. Use heads=False."
            )
        named = {f"L{block}.H{head}.result": result[:, :, head] for head in range(result.shape[2])}
        return {**named, f"L{block}.attn_bias": rest}
