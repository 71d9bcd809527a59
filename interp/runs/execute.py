"""Running a model once over some prompts: save, edit, stop early, in batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import RunError, SiteError
from interp.runs.cache import Cache
from interp.runs.edits import Edit, RowEdit
from interp.runs.memory import estimate
from interp.runs.slices import read, write
from interp.sites import POINTS, Site
from interp.taps.anatomy import Anatomy
from interp.taps.points import Key, tapped
from interp.token_batch import TokenBatch

__all__ = ["Logits", "Run", "Save", "execute", "forward", "generating", "resolve"]

Logits = Literal["all", "last", "none"]
Save = str | Site | Iterable[str | Site]
#: Turns a position (an integer, or a name the prompts define) into each row's column.
Columns = Callable[[int | str], Int[Tensor, " batch"]]


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


class _Stop(Exception):
    """Raised inside the forward pass once everything asked for has been seen."""


def resolve(anatomy: Anatomy, sites: Save) -> tuple[Site, ...]:
    """Concrete sites, one for each layer, in the order given.

    ``"all"`` means every point this model has, except ``result`` (which is
    ``z @ W_O`` and larger than all the others together).

    Raises:
        SiteError: a site is refused for this model, or an index is out of range.
    """
    if isinstance(sites, str | Site):
        sites = _everything(anatomy) if sites == "all" else [sites]
    out: dict[Site, None] = {}
    for given in sites:
        site = Site.parse(given)
        if site.point == "logits":
            raise SiteError("logits are not a site of a run: they are run.logits.")
        if site.point in anatomy.refused:
            raise SiteError(
                f"{str(site)!r} is refused for {anatomy.name}: {anatomy.refused[site.point]}."
            )
        if site.head is not None:
            kv = "kv_head" in site.kind.axes
            site.head.expand(anatomy.n_kv_heads if kv else anatomy.n_heads, "head")
        out |= dict.fromkeys(site.per_layer(anatomy.n_layers))
    return tuple(out)


def _everything(anatomy: Anatomy) -> list[str]:
    points = [p for p in POINTS.values() if p.name not in anatomy.refused]
    return [
        f"L*.{p.name}" if p.layered else p.name
        for p in points
        if p.name not in ("result", "logits")
    ]


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
    sites = resolve(anatomy, save)
    edits = _edits(anatomy, edit or {})
    where = columns or batch.column
    stop = _check_stop(anatomy, sites, stop_at)
    keep = "none" if stop_at is not None else logits
    step = _rows_at_once(anatomy, batch, sites, rows_at_once, keep, grad=grad)
    pieces: list[tuple[Tensor | None, dict[Site, Tensor]]] = []
    start = 0
    while start < len(batch):
        rows = slice(start, min(start + step, len(batch)))
        try:
            pieces.append(
                _once(anatomy, batch, rows, sites, edits, where, grad=grad, stop=stop, logits=keep)
            )
        except torch.OutOfMemoryError:
            if step == 1:
                raise
            step = max(1, step // 2)
            continue
        start = rows.stop
    tensors = {
        site: pieces[0][1][site] if len(pieces) == 1 else torch.cat([p[1][site] for p in pieces])
        for site in sites
    }
    outs = [out for out, _ in pieces if out is not None]
    cache = Cache(tensors, n_layers=anatomy.n_layers, columns=where)
    return Run(cache, batch, torch.cat(outs) if len(outs) > 1 else outs[0] if outs else None)


def _edits(anatomy: Anatomy, edit: Mapping[str, Edit]) -> list[tuple[Site, Edit]]:
    pairs = []
    for name, fn in edit.items():
        if not callable(fn):
            raise RunError(
                f"the edit of {str(name)!r} is a {type(fn).__name__}; expected a function "
                "tensor -> tensor, or one of Replace, Add, Scale, Zero, Noise."
            )
        pairs += [(site, fn) for site in resolve(anatomy, [name])]
    return pairs


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
        if late or (layer == stop_at and site.point != "resid_pre"):
            raise RunError(
                f"stop_at={stop_at} stops the run before block {stop_at}, and {str(site)!r} "
                "lies behind that: raise stop_at or save less."
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
    width = batch.ids.shape[1]
    plan = estimate(
        anatomy,
        rows=len(batch),
        width=width,
        save=sites,
        logit_positions={"all": width, "last": 1, "none": 0}[logits],
        d_vocab=anatomy.hf.config.get_text_config().vocab_size,
        grad=grad,
    )
    return plan.batch


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
    functions = _functions(batch, rows, sites, edits, where, saved)
    if stop is not None:
        _stop_before(functions, stop)
    elif logits == "none":
        _stop_when_done(functions, saved, len(sites))
    out = None
    with torch.set_grad_enabled(grad), tapped(anatomy, functions):
        try:
            out = forward(anatomy, part, last=logits == "last")
        except _Stop:
            pass
    missing = [str(site) for site in sites if site not in saved]
    if missing:
        raise SiteError(
            f"the run never reached {', '.join(missing)}: this model does not compute it on "
            "this input."
        )
    return (None if logits == "none" else out), saved


def forward(anatomy: Anatomy, batch: TokenBatch, *, last: bool = False) -> Tensor:
    """Logits of the Hugging Face model, called as its users call it.

    A mask and positions are passed only under padding, and the key-value cache stays at its
    default: without one, keys have other strides, and matmuls may round differently.
    """
    kwargs: dict[str, Any] = {}
    if batch.padded:
        kwargs["attention_mask"] = batch.mask.long()
        if "position_ids" in anatomy.forward_takes:
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


def _functions(
    batch: TokenBatch,
    rows: slice,
    sites: tuple[Site, ...],
    edits: list[tuple[Site, Edit]],
    where: Columns,
    saved: dict[Site, Tensor],
) -> dict[Key, Edit]:
    """For each tensor touched, one function that applies its edits and then saves."""
    steps: dict[Key, list[Edit]] = {}

    def column(site: Site) -> Tensor | None:
        return None if site.position is None else where(site.position)[rows].to(batch.ids.device)

    for site, fn in edits:
        if isinstance(fn, RowEdit):
            fn = fn.rows(rows.start, rows.stop, len(batch))
        steps.setdefault(_key(site), []).append(edited(site, fn, column(site)))
    for site in sites:
        steps.setdefault(_key(site), []).append(_saver(site, column(site), saved))
    return {key: _chain(fns) for key, fns in steps.items()}


def _key(site: Site) -> Key:
    return site.point, None if site.layer is None else int(site.layer.text)


def _chain(fns: list[Edit]) -> Edit:
    def chained(x: Tensor) -> Tensor:
        for fn in fns:
            x = fn(x)
        return x

    return chained


def edited(site: Site, fn: Edit, columns: Tensor | None) -> Edit:
    """``fn`` on the part of a tensor that ``site`` addresses. ``fn`` may work in place."""

    def apply(x: Tensor) -> Tensor:
        new = fn(read(x, site, columns).clone())
        if not isinstance(new, Tensor):
            raise RunError(
                f"an edit of {str(site)!r} returned {type(new).__name__}; expected a tensor."
            )
        return write(x, site, columns, new)

    return apply


def _saver(site: Site, columns: Tensor | None, saved: dict[Site, Tensor]) -> Edit:
    def save(x: Tensor) -> Tensor:
        saved[site] = read(x, site, columns)
        return x

    return save


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


@contextmanager
def generating(
    anatomy: Anatomy, batch: TokenBatch, edit: Mapping[str, Edit], columns: Columns | None
) -> Iterator[None]:
    """The edits, for the length of a ``generate`` call.

    An edit at a position acts on the prompt alone; the others act on each new token too.
    """
    functions: dict[Key, list[Edit]] = {}
    where = columns or batch.column
    for site, fn in _edits(anatomy, edit):
        if isinstance(fn, RowEdit):
            fn = fn.rows(0, len(batch), len(batch))
        at = None if site.position is None else where(site.position).to(batch.ids.device)
        whole = edited(site, fn, at)
        functions.setdefault(_key(site), []).append(whole if at is None else _first_call(whole))
    with tapped(anatomy, {key: _chain(fns) for key, fns in functions.items()}):
        yield


def _first_call(fn: Edit) -> Edit:
    called = False

    def once(x: Tensor) -> Tensor:
        nonlocal called
        if called:
            return x
        called = True
        return fn(x)

    return once
