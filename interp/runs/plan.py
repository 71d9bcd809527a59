"""What a run does to each tensor: the sites it touches, and one function for each.

Sites are resolved against a model (wildcards expanded, refused points refused);
edits and savers of the same tensor are chained, edits first, so that the cache
holds what the model went on with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from jaxtyping import Int
from torch import Tensor

from interp.errors import RunError, SiteError
from interp.runs.edits import Edit, PlacedEdit, RowEdit
from interp.runs.slices import read, write
from interp.sites import POINTS, Site
from interp.taps.anatomy import Anatomy
from interp.taps.points import Key
from interp.token_batch import TokenBatch

__all__ = [
    "Columns",
    "Save",
    "chain",
    "edit_pairs",
    "edited",
    "functions_of",
    "key_of",
    "placed",
    "points_of",
    "resolve",
    "units_of",
]

Save = str | Site | Iterable[str | Site]
#: Turns a position (an integer, or a name the prompts define) into each row's column.
Columns = Callable[[int | str], Int[Tensor, " batch"]]


def resolve(anatomy: Anatomy, sites: Save) -> tuple[Site, ...]:
    """Concrete sites, one for each layer, in the order given.

    ``"all"`` means every point this model has, except ``result`` (which is
    ``z @ W_O`` and larger than all the others together).

    Raises:
        SiteError: a site is refused for this model, or an index is out of range.
    """
    if isinstance(sites, str | Site):
        every = [name for name in points_of(anatomy) if name != "L*.result"]
        sites = every if sites == "all" else [sites]
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
        singles = site.per_layer(anatomy.n_layers)
        out |= dict.fromkeys(_spliced(anatomy, site, singles) if site.kind.spliced else singles)
    return tuple(out)


def _spliced(anatomy: Anatomy, site: Site, singles: tuple[Site, ...]) -> tuple[Site, ...]:
    """Features or errors of dictionaries: a star means the layers that have one."""
    have = anatomy.spliced(site.point)
    if site.layer is not None and site.layer.text == "*" and have:
        singles = tuple(one for one in singles if key_of(one)[1] in have)
    for one in singles:
        layer = key_of(one)[1]
        if layer not in have:
            raise SiteError(_no_dictionary(anatomy, one))
        if one.unit is not None:
            one.unit.expand(have[layer], "feature", "dictionary")
    return singles


def _no_dictionary(anatomy: Anatomy, site: Site) -> str:
    point = site.point
    features = "mlp" if point == "mlp.error" else point.replace(".error", ".features")
    have = [f"L{layer}.{point}" for layer in anatomy.spliced(point)]
    if point.endswith(".error") and key_of(site)[1] in anatomy.spliced(features):
        return (
            f"{str(site)!r}: the dictionary here has no error node; they are there inside `with "
            "model.replaced(..., error=True)`."
        )
    host = str(site.whole).removesuffix(".features").removesuffix(".error")
    return (
        f"{str(site)!r}: no dictionary is attached there"
        + (f", but at {', '.join(have)}" if have else "")
        + f"; use `with model.replaced({{{host!r}: dictionary}})`."
    )


def points_of(anatomy: Anatomy) -> tuple[str, ...]:
    """The sites that a model has, one name for all layers; with what dictionaries show."""
    return tuple(
        f"L*.{p.name}" if p.layered else p.name
        for p in POINTS.values()
        if p.name not in (*anatomy.refused, "logits") and (not p.spliced or anatomy.spliced(p.name))
    )


def units_of(anatomy: Anatomy, site: Site) -> int:
    """How many neurons, or features, there are at a site of one layer (0 if there are none)."""
    if site.kind.spliced:
        return anatomy.spliced(site.point)[key_of(site)[1] or 0]
    return anatomy.d_mlp or 0


def edit_pairs(anatomy: Anatomy, edit: Mapping[str, Edit]) -> list[tuple[Site, Edit]]:
    pairs = []
    for name, fn in edit.items():
        if not callable(fn):
            raise RunError(
                f"the edit of {str(name)!r} is a {type(fn).__name__}; expected a function "
                "tensor -> tensor, or one of Replace, Add, Scale, Zero, Noise."
            )
        pairs += [(site, fn) for site in resolve(anatomy, [name])]
    return pairs


def functions_of(
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
        if isinstance(fn, PlacedEdit):
            fn = placed(site, fn, lambda position: where(position)[rows].to(batch.ids.device))
        steps.setdefault(key_of(site), []).append(edited(site, fn, column(site)))
    for site in sites:
        steps.setdefault(key_of(site), []).append(_saver(site, column(site), saved))
    return {key: chain(fns) for key, fns in steps.items()}


def placed(site: Site, fn: PlacedEdit, columns: Columns) -> Edit:
    """``fn`` told where positions stand.

    Raises:
        RunError: the site is at one position, or has no position axis.
    """
    if site.position is not None or "pos" not in site.kind.axes:
        raise RunError(
            f"{type(fn).__name__} asks where positions lie, so it works on a whole site that has "
            f"them, such as 'L2.resid_pre'; given {str(site)!r}."
        )
    return fn.placed(columns)


def key_of(site: Site) -> Key:
    return site.point, None if site.layer is None else int(site.layer.text)


def chain(fns: list[Edit]) -> Edit:
    def chained(x: Tensor) -> Tensor:
        for fn in fns:
            x = fn(x)
        return x

    return chained


def edited(site: Site, fn: Edit, columns: Tensor | None) -> Edit:
    """``fn`` on the part of a tensor that ``site`` addresses. ``fn`` may work in place."""

    def apply(x: Tensor) -> Tensor:
        where = columns
        if where is not None and len(where) != x.shape[0]:  # beams of each prompt
            where = where.repeat_interleave(x.shape[0] // len(where))
        new = fn(read(x, site, where).clone())
        if not isinstance(new, Tensor):
            raise RunError(
                f"an edit of {str(site)!r} returned {type(new).__name__}; expected a tensor."
            )
        return write(x, site, where, new)

    return apply


def _saver(site: Site, columns: Tensor | None, saved: dict[Site, Tensor]) -> Edit:
    def save(x: Tensor) -> Tensor:
        saved[site] = _own(read(x, site, columns))
        return x

    return save


def _own(x: Tensor) -> Tensor:
    """The tensor without the larger one that it may be a view of, so that only it is kept."""
    part = x.untyped_storage().nbytes() > x.numel() * x.element_size()
    return x.clone() if part and not x.requires_grad else x
