"""A probe's figure: curves over layers, a map of heads, or bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from interp.errors import InterpError, ResultError
from interp.sites import Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from interp.probing.result import ProbeResult

__all__ = ["draw", "parsed", "steps_of"]

_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "r2": "R²"}


def draw(result: ProbeResult, others: Mapping[str, ProbeResult], title: str | None) -> Figure:
    """Draw one result, perhaps beside those of other models."""
    for name, other in others.items():
        if (other.sites, other.metric) != (result.sites, result.metric):
            raise ResultError(
                f"{name!r} has {other.metric} at {len(other.sites)} sites, this result "
                f"{result.metric} at {len(result.sites)}: probe the same sites for one figure."
            )
    sites = parsed(result.sites)
    where = "each token" if result.positions == "each" else result.positions
    if sites and _is_map(sites) and not others:
        return _heads(result, sites, title or f"{sites[0].point} of heads at {where}")
    steps = steps_of(sites)
    if steps is None:
        return _bars(result, others, title or f"probes at {where}")
    return _curve(result, others, steps, title or f"{sites[0].point} at {where}", sites[0].point)


def parsed(names: Sequence[str]) -> list[Site]:
    """The sites, or nothing where their names are not all sites."""
    try:
        return [Site.parse(name) for name in names]
    except InterpError:
        return []


def steps_of(sites: list[Site]) -> list[str] | None:
    """A label for each layer, if the sites are one point of ascending layers (and the end)."""
    if len(sites) < 2 or any(site.layer is None for site in sites):
        return None
    layers = [int(site.layer.text) for site in sites if site.layer is not None]
    end = (sites[-2].point, sites[-1].point) == ("resid_pre", "resid_post")
    end = end and layers[-1] == layers[-2]
    body = sites[:-1] if end else sites
    alike = len({(s.point, s.head, s.unit, s.position) for s in body}) == 1
    if not alike or layers[: len(body)] != sorted(set(layers[: len(body)])):
        return None
    return [f"L{layer}" for layer in layers[: len(body)]] + ["out"] * end


def _is_map(sites: list[Site]) -> bool:
    """Whether the sites are heads of one point, as many in each layer, and several."""
    places = [(s.layer.text, s.head.text) for s in sites if s.layer and s.head]
    layers, heads = ({p[i] for p in places} for i in (0, 1))
    one = len({(s.point, s.position) for s in sites}) == 1
    return one and len(places) == len(sites) == len(layers) * len(heads) and len(heads) > 1


def _curve(
    result: ProbeResult, others: Mapping[str, ProbeResult], steps: list[str], title: str, point: str
) -> Figure:
    from interp.figures import lines

    found = result.interval()
    curves = {"true labels": result.score.tolist()}
    bands = {"true labels": (found.low.tolist(), found.high.tolist())}
    for name, other in others.items():
        about = other.interval()
        curves[name] = other.score.tolist()
        bands[name] = (about.low.tolist(), about.high.tolist())
    if result.null.shape[1]:
        label = f"shuffled labels ({result.null.shape[1]}, range)"
        curves[label] = result.null.mean(1).tolist()
        bands[label] = (result.null.min(1).values.tolist(), result.null.max(1).values.tolist())
    if result.control.isfinite().any():
        curves["control task"] = result.control.mean(1).tolist()
    curves["majority class" if result.classes else "mean"] = [result.baseline] * len(steps)
    return lines(
        steps, curves, title=title, x_name="layer (stream before it)" if "pre" in point else "layer",
        y_name=_NAMES[result.metric], bands=bands, bottom=0.0 if result.classes else None,
    )  # fmt: skip


def _heads(result: ProbeResult, sites: list[Site], title: str) -> Figure:
    from interp.figures import heatmap

    layers, heads = (
        sorted({int(part.text) for part in parts if part is not None})
        for parts in ([s.layer for s in sites], [s.head for s in sites])
    )
    level = result.null.mean(1) if result.null.shape[1] else torch.tensor(result.baseline)
    above = dict(zip(((int(s.layer.text), int(s.head.text)) for s in sites if s.layer and s.head),
                     (result.score - level).tolist(), strict=True))  # fmt: skip
    under = "shuffled labels" if result.null.shape[1] else "the baseline"
    return heatmap(
        torch.tensor([[above[layer, head] for head in heads] for layer in layers]),
        rows=[str(layer) for layer in layers], columns=[str(head) for head in heads],
        title=title, unit=f"{_NAMES[result.metric]} above {under}", column_name="head",
    )  # fmt: skip


def _bars(result: ProbeResult, others: Mapping[str, ProbeResult], title: str) -> Figure:
    from interp.figures import bars

    series = {"true labels": result.score.tolist()}
    series |= {name: other.score.tolist() for name, other in others.items()}
    if result.null.shape[1]:
        series["shuffled labels, best"] = result.null.max(1).values.tolist()
    guess = "majority class" if result.classes else "mean"
    return bars(
        result.sites, series, title=title, unit=_NAMES[result.metric],
        lines={guess: result.baseline},
    )  # fmt: skip
