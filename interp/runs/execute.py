"""Running a model once over some prompts: save, edit, stop early, in batches that fit."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import RunError, SiteError
from interp.prompts.positions import resolve_columns
from interp.runs.cache import Cache
from interp.runs.edits import Edit
from interp.runs.memory import SMALL, Estimate, available, needs
from interp.runs.packing_mask import packing_mask
from interp.runs.plan import Columns, Save, chain, edit_pairs, functions_of, resolve
from interp.sites import Site
from interp.taps.anatomy import Anatomy
from interp.taps.points import Key, tapped
from interp.token_batch import TokenBatch

__all__ = ["Logits", "Run", "execute", "forward"]

Logits = Literal["all", "last", "none"]


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """What one run left: logits, saved tensors, and the tokens it ran on."""

    cache: Cache
    tokens: TokenBatch
    _logits: Float[Tensor, "batch pos d_vocab"] | None = field(repr=False)

    @property
    def logits(self) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits ([batch, 1, d_vocab] if the run was asked for the last only).

        Raises:
            RunError: the run stopped before the unembedding.
        """
        if self._logits is None:
            raise RunError(
                "this run has no logits: it stopped before the unembedding "
                "(stop_at or logits='none'). Run again with logits='all'."
            )
        return self._logits

    def __repr__(self) -> str:
        logits = "none" if self._logits is None else list(self._logits.shape)
        return f"Run(logits={logits}, cache={self.cache!r}, tokens={self.tokens!r})"


class _Stop(Exception):  # noqa: N818 (it is no error)
    """Raised inside the forward pass once everything asked for has been seen."""


def execute(
    anatomy: Anatomy,
    batch: TokenBatch,
    *,
    save: Save = (),
    edit: Mapping[str, Edit] | None = None,
    grad: bool = False,
    stop_at: int | None = None,
    logits: Logits = "all",
    rows_at_once: int | Literal["auto"] = "auto",
    columns: Columns | None = None,
) -> Run:
    """Run the model; see :meth:`interp.Model.run` for what the arguments mean."""
    if logits not in ("all", "last", "none"):
        raise RunError(f"logits={logits!r}; expected 'all', 'last' or 'none'.")
    sites = resolve(anatomy, save)
    edits = edit_pairs(anatomy, edit or {})
    where = columns or partial(resolve_columns, tokens=batch, named={})
    stop = _check_stop(anatomy, (*sites, *(site for site, _ in edits)), stop_at)
    keep = "none" if stop_at is not None else logits
    step = _rows_at_once(anatomy, batch, sites, rows_at_once, keep, grad=grad)
    if grad:
        _check_grad(sites, step, len(batch))
    pieces: list[tuple[Tensor | None, dict[Site, Tensor]]] = []
    start = 0
    while start < len(batch):
        rows = slice(start, min(start + step, len(batch)))
        try:
            pieces.append(
                _once(anatomy, batch, rows, sites, edits, where, grad=grad, stop=stop, logits=keep)
            )
        except torch.OutOfMemoryError:
            if step == 1 or grad:  # parts put together would lie beside the path to the logits
                raise
            step = max(1, step // 2)
            continue
        start = rows.stop
    tensors = {
        site: pieces[0][1][site] if len(pieces) == 1 else torch.cat([p[1][site] for p in pieces])
        for site in sites
    }
    outs = [out for out, _ in pieces if out is not None]
    spliced = {
        point: tuple(anatomy.spliced(point)) for s in anatomy.splices for point, _ in s.shown
    }
    cache = Cache(tensors, n_layers=anatomy.n_layers, columns=where, spliced=spliced)
    return Run(cache, batch, torch.cat(outs) if len(outs) > 1 else outs[0] if outs else None)


def _check_grad(sites: tuple[Site, ...], step: int, rows: int) -> None:
    """Only whole tensors of a single batch lie on the path to the logits."""
    slices = [site for site in sites if site != site.whole]
    if slices:
        raise RunError(
            f"with grad=True {str(slices[0])!r} would be a copy beside the path to the logits: save "
            f"{str(slices[0].whole)!r}, take its gradient and cut the slice from that."
        )
    if step < rows:
        raise RunError(
            f"with grad=True the {rows} prompts must run as one batch, and {step} fit at a time: "
            "give fewer prompts, or run them in parts yourself."
        )


def _check_stop(anatomy: Anatomy, sites: tuple[Site, ...], stop_at: int | None) -> int | None:
    if stop_at is None:
        return None
    n = anatomy.n_layers
    if not 0 <= stop_at < n:
        raise RunError(
            f"stop_at={stop_at}: expected a layer from 0 to {n - 1}; the run stops before it."
        )
    for site in sites:
        layer = None if site.layer is None else site.layer.expand(n, "layer")[0]
        late = layer > stop_at if layer is not None else site.point.startswith("ln_final")
        if late or (layer == stop_at and site.kind.host != "resid_pre"):
            raise RunError(
                f"stop_at={stop_at} stops the run before block {stop_at}, and {str(site)!r} "
                "lies behind that: raise stop_at, or leave that site out."
            )
    return stop_at


def _rows_at_once(
    anatomy: Anatomy,
    batch: TokenBatch,
    sites: tuple[Site, ...],
    given: int | Literal["auto"],
    logits: Logits,
    *,
    grad: bool,
) -> int:
    if given != "auto":
        if given < 1:
            raise RunError(f"batch={given}: expected a positive number of prompts, or 'auto'.")
        return given
    width, rows = batch.ids.shape[1], len(batch)
    kept, per_row = needs(
        anatomy,
        rows=rows,
        width=width,
        save=sites,
        logit_positions={"all": width, "last": 1, "none": 0}[logits],
        d_vocab=anatomy.d_vocab_out,
        grad=grad,
    )
    if kept + rows * per_row < SMALL:
        return rows
    return Estimate(kept, per_row, available(batch.ids.device), rows).batch


def _once(
    anatomy: Anatomy,
    batch: TokenBatch,
    rows: slice,
    sites: tuple[Site, ...],
    edits: list[tuple[Site, Edit]],
    where: Columns,
    *,
    grad: bool,
    stop: int | None,
    logits: Logits,
) -> tuple[Tensor | None, dict[Site, Tensor]]:
    """One forward pass over some of the rows."""
    saved: dict[Site, Tensor] = {}
    part = batch.rows(rows)
    functions = functions_of(batch, rows, sites, edits, where, saved)
    if grad and not any(p.requires_grad for p in anatomy.hf.parameters()):
        inner = functions.get(("embed", None))  # frozen weights: the graph begins here
        functions["embed", None] = chain([torch.Tensor.requires_grad_, *([inner] if inner else [])])
    if stop is not None:
        _stop_before(functions, stop)
    elif logits == "none":
        _stop_when_done(functions, saved, len(sites))
    out = None
    with torch.set_grad_enabled(grad), tapped(anatomy, functions), suppress(_Stop):
        out = forward(anatomy, part, last=logits == "last")
    missing = [str(site) for site in sites if site not in saved]
    if missing:
        raise SiteError(
            f"the run never reached {', '.join(missing)}: this model does not compute it on "
            "this input."
        )
    return (None if logits == "none" else out), saved


def forward(anatomy: Anatomy, batch: TokenBatch, *, last: bool = False) -> Tensor:
    """Logits of the Hugging Face model, called as its users call it.

    A mask and positions are passed only under padding or packing, and the key-value cache stays at its
    default: without one, keys have other strides, and matmuls may round differently.
    """
    kwargs: dict[str, Any] = {}
    if batch.segments is not None:
        kwargs["attention_mask"] = packing_mask(anatomy, batch)
    elif batch.padded:
        kwargs["attention_mask"] = batch.mask.long()
    if kwargs and "position_ids" in anatomy.forward_takes:
        kwargs["position_ids"] = batch.position_ids()
    if not last:
        return anatomy.hf(input_ids=batch.ids, **kwargs).logits
    column = batch.column(-1)
    rows = torch.arange(len(batch), device=column.device)
    if "logits_to_keep" not in anatomy.forward_takes:
        return anatomy.hf(input_ids=batch.ids, **kwargs).logits[rows, column][:, None]
    wanted, place = column.unique(return_inverse=True)
    out = anatomy.hf(input_ids=batch.ids, logits_to_keep=wanted, **kwargs).logits
    return out[rows, place][:, None]


def _stop_before(functions: dict[Key, Edit], layer: int) -> None:
    inner = functions.get(("resid_pre", layer))

    def stop(x: Tensor) -> Tensor:
        if inner is not None:
            inner(x)
        raise _Stop

    functions["resid_pre", layer] = stop


def _stop_when_done(functions: dict[Key, Edit], saved: dict[Site, Tensor], wanted: int) -> None:
    """Without logits, the run ends as soon as everything to be saved has been seen."""

    def watched(fn: Edit) -> Edit:
        def apply(x: Tensor) -> Tensor:
            x = fn(x)
            if len(saved) == wanted:
                raise _Stop
            return x

        return apply

    for key, fn in functions.items():
        functions[key] = watched(fn)
