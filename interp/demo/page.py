"""The demo's figures and its report: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from interp.demo.tour import Tour
from interp.figures import heatmap, lines
from interp.figures.style import save
from interp.results import write_atomically

__all__ = ["write_report"]

_NAMES = (
    "induction_heads", "previous_token_heads", "lens", "lens_accuracy",
    "patch_resid", "patch_heads", "patch_attn_out", "patch_mlp_out", "trace",
)  # fmt: skip
_TEMPLATE = Path(__file__).parent / "report.html.j2"


def write_report(tour: Tour, out: Path) -> dict[str, Path]:
    """Write figures (PNG and SVG), results (safetensors), ``summary.json`` and ``report.html``."""
    figures = _figures(tour)
    for name in _NAMES:  # what an earlier report left and this one does not draw
        if name not in figures:
            for suffix in (".png", ".svg"):
                (out / "figures" / f"{name}{suffix}").unlink(missing_ok=True)
    shown: list[dict[str, str]] = []
    for name, (figure, caption) in figures.items():
        png, _ = save(figure, out / "figures" / name)
        image = base64.b64encode(png.read_bytes()).decode()
        shown.append({"name": name, "caption": caption, "image": image})
    results = ("traced",) if tour.traced is not None else ()
    for name in (*results, "resid", "branches", "heads_z", "named", "heads", "twin_heads", "lens"):
        getattr(tour, name).save(out / "results" / f"{name}.safetensors")
    summary = tour.summary()
    written = {
        "summary": write_atomically(out / "summary.json", _json(summary)),
        "report": write_atomically(out / "report.html", _html(tour, summary, shown).encode()),
    }
    return {**written, "figures": out / "figures", "results": out / "results"}


def _json(summary: dict[str, Any]) -> bytes:
    return (json.dumps(summary, indent=2, sort_keys=True) + "\n").encode()


def _html(tour: Tour, summary: dict[str, Any], shown: list[dict[str, str]]) -> str:
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    kinds = {
        kind.replace("_", "-"): list(
            zip(tour.heads.top(kind, 3), tour.twin_heads.top(kind, 3), strict=True)
        )
        for kind in ("previous_token", "duplicate_token", "induction")
    }
    return template.render(tour=tour, summary=summary, figures=shown, kinds=kinds)


def _figures(tour: Tour) -> dict[str, tuple[Figure, str]]:
    name = tour.model.name
    pairs = f"{len(tour.facts)} pairs of one template, denoising"
    accuracy = tour.lens.accuracy()
    twin = tour.twin_heads.top("induction", 1)[0]
    figures = {
        "induction_heads": (
            tour.heads.plot("induction", title=f"induction score, {name}"),
            "Mean attention, in the second copy of random tokens, from a token to what followed "
            f"it in the first copy. Chance is {tour.heads.chance:.2f}; the untrained twin's best "
            f"head is {twin[0]} with {twin[1]:.2f}.",
        ),
        "previous_token_heads": (
            tour.heads.plot("previous_token", title=f"previous-token score, {name}"),
            "Mean attention from a token to the one before it, on random tokens.",
        ),
        "lens": (
            tour.lens.plot(0, title=f"logit lens, {name}"),
            "Top token of each layer (the residual stream before that block; 'out' is the model's "
            "own output) at each position of one clean prompt.",
        ),
        "lens_accuracy": (
            lines(
                tour.lens.layers,
                {"answer is the top token": accuracy.tolist()},
                title=f"capitals by layer, {name}",
                x_name="residual stream before block",
                y_name="share of prompts",
                bottom=0.0,
            ),
            f"Share of {len(tour.facts)} prompts whose capital is the top token when the residual "
            "stream at the last position is read through the final norm and the unembedding.",
        ),
    }
    if not tour.knows_facts:
        return figures
    resid = tour.resid
    figures["patch_resid"] = (
        resid.plot(title=f"where the capital is: residual stream, {name}"),
        f"{pairs}: the corrupted run gets one clean activation. 1 restores the clean run's logit "
        "difference, 0 does nothing.",
    )
    figures["patch_heads"] = (
        tour.heads_z.plot(title=f"heads that move the capital to the last position, {name}"),
        f"{pairs}: one head's output (z) at the last position.",
    )
    if tour.traced is not None:
        figures["trace"] = (
            tour.traced.plot(),
            f"{len(tour.traced.clean)} facts, {tour.traced.corrupted.shape[-1]} draws of noise on the "
            "subject's embedding; colour is what putting back one clean state (or branch) restores of "
            "the answer's probability (Meng et al. 2022).",
        )
    shares = tour.branches.normalized()
    for i, site in enumerate(("attn_out", "mlp_out")):
        rows, columns = tour.branches.axes[1:]
        figures[f"patch_{site}"] = (
            heatmap(
                shares[i],
                rows=rows.labels,
                columns=columns.labels,
                column_name=columns.name,
                title=f"where the capital is: {site}, {name}",
                unit="logit_diff recovered (0 corrupted, 1 clean)",
            ),
            f"{pairs}: what one block's {'attention' if i == 0 else 'MLP'} adds at one position.",
        )
    return figures
