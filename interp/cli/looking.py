"""Looking at dictionaries from the command line: an evaluation that fits a terminal, pages of features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.cli.options import draw
from interp.cli.output import notes, table

__all__ = ["TOKENS", "look_at", "shown", "show_evaluation"]

#: Tokens that features are looked at in.
TOKENS = 65536
#: Features that a page shows, unless told.
_SHOWN = 4096

_METRICS = (
    "fvu", "cosine", "norm_ratio", "l0", "dead", "ce_original", "ce_spliced", "ce_zero", "ce_mean",
    "ce_recovered_zero", "ce_recovered_mean", "kl", "top1_agreement",
)  # fmt: skip
_ACCURACY = "_test_accuracy"
_CONTROLS = {
    "permuted": "its outputs at other tokens",
    "random_model": "it in the model's untrained twin",
    "random_dictionary": "random directions, as many active, scaled to fit",
}


def show_evaluation(found: Any) -> None:
    """A table for each dictionary, with the metrics that matter most; what the null controls are."""
    records: list[dict[str, Any]] = found.to_frame().to_dict("records")
    nulls = [name for name in _CONTROLS if name in records[0]]
    columns = ["metric", "value", "95%", *(name.replace("_", "\n") for name in nulls)]
    for name, site in zip(found.rows, found.sites, strict=True):
        rows = [
            [_short(one["metric"]), _number(one["value"]), _interval(one), *(_number(one[n]) for n in nulls)]
            for one in records
            if one["dictionary"] == name
            and (one["metric"] in _METRICS or one["metric"].endswith(_ACCURACY))
        ]  # fmt: skip
        table(name if site in name else f"{name}: {site}", columns, rows)
    told = "; ".join(f"{name.replace('_', ' ')}: {_CONTROLS[name]}" for name in nulls)
    if told:
        notes.print(f"null controls – {told}.", highlight=False)
    if found.probing is not None:
        notes.print(
            "probe: test accuracy, chance a half; with shuffled labels: --json.", highlight=False
        )


def _short(metric: str) -> str:
    return f"probe {metric.removesuffix(_ACCURACY)}" if metric.endswith(_ACCURACY) else metric


def _interval(one: Any) -> str:
    low, high = _number(one["low"]), _number(one["high"])
    return "" if low == "–" else f"{low} … {high}"


def _number(x: float) -> str:
    digits = 3 if abs(x) < 10 else 1 if abs(x) < 1000 else 0
    return "–" if math.isnan(x) else f"{x:,.{digits}f}"


def shown(dictionary: Any, most: int = _SHOWN) -> int | None:
    """Which features a page shows: all, or so many of those that fire."""
    total = dictionary.d_sae * len(dictionary.spec.reads)
    return None if total <= most else most


def look_at(
    dictionaries: Mapping[str, Any], model: Any, *, texts: Any, source: Any, folder: Path, seed: int,
    quiet: bool,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """An evaluation of all dictionaries beside their controls, and a page of features of each.

    Args:
        dictionaries: by the names of their folders.
        texts: what they are evaluated on; None: they are not.
        source: where features are looked at: texts, or a store.
        folder: of the run.
        seed: of the texts, where those are generated: not that of the texts trained on.

    Returns:
        What was found, by name; of all spliced in at once under ``"together"``.
    """
    import interp

    progress = False if quiet else None
    told: dict[str, dict[str, Any]] = {name: {} for name in dictionaries}
    if texts is None:
        notes.print("not evaluated: say --corpus, texts to evaluate on.", highlight=False)
    else:
        found = interp.evaluate(dictionaries, model, texts, seed=seed, progress=progress)
        found.save(folder / "evaluation.safetensors")
        draw(found, folder / "evaluation")
        for record in found.to_frame().to_dict("records"):
            row = record["dictionary"]  # a part of a dictionary begins with its name
            whole = next((name for name in dictionaries if row.startswith(f"{name} ")), row)
            told.setdefault(whole, {}).setdefault("evaluation", []).append(record)
        if not quiet:
            show_evaluation(found)
    for name, one in dictionaries.items():
        seen = interp.features(
            one, model, source, which=shown(one), tokens=TOKENS, progress=progress
        )
        page = seen.dashboard(folder / name / "features.html")
        told[name]["page"] = str(page)
        notes.print(f"features: {page}", highlight=False)
    return told
