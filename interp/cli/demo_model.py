"""Commands of the demo model: demo, train-demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.options import Json, Seed, load
from interp.cli.output import console, frame_table, guarded, print_json, table

__all__ = ["demo", "train_demo"]


@guarded
def demo(
    model: Annotated[
        str, typer.Option(help="'demo', 'random', or a demo model's folder.")
    ] = "demo",
    out: Annotated[Path, typer.Option(help="Folder for figures, results and the report.")] = Path(
        "out/demo"
    ),
    n: Annotated[int, typer.Option(min=2, help="Prompts for each task.")] = 64,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """See what the demo model knows, which heads look back, and where a fact is kept."""
    from interp.demo.page import write_report
    from interp.demo.tour import take_tour

    tour = take_tour(load(model, seed), seed=seed, n=n)
    written = write_report(tour, out)
    if json:
        print_json(tour.summary())
        return
    _show_tour(tour)
    for name, path in written.items():
        console.print(f"{name}: {path}", highlight=False)


def _show_tour(tour: Any) -> None:
    console.print(str(tour.model), highlight=False)
    tasks = [
        (t.name, t.metric, t.value, f"{t.low:.3f} – {t.high:.3f}", t.control) for t in tour.tasks
    ]
    table("tasks", ["task", "metric", "value", "95% interval", "untrained twin"], tasks)
    heads = [
        (kind.replace("_", "-"), head, score, twin, twin_score)
        for kind in ("previous_token", "duplicate_token", "induction")
        for (head, score), (twin, twin_score) in zip(
            tour.heads.top(kind, 3), tour.twin_heads.top(kind, 3), strict=True
        )
    ]
    table(
        "heads that look back (mean attention)", ["kind", "head", "score", "twin", "twin's"], heads
    )
    if tour.knows_facts:
        rows = [
            (position, site["layer"], site["recovered"], f"{site['low']:.3f} – {site['high']:.3f}")
            for position, site in tour.sites().items()
        ]
        table("patching the residual stream: share of the capital restored",
              ["position", "before block", "restored", "95% interval"], rows)  # fmt: skip
        frame_table("heads that restore the capital, patched at the last position",
                    tour.heads_z.top(5))  # fmt: skip
    found = tour.findings()
    console.print("\nfindings" if found else "\nno findings", style="bold")
    for finding in found:
        console.print(f"· {finding}", highlight=False)


@guarded
def train_demo(
    out: Annotated[Path, typer.Option(help="Folder of the new model.")],
    small: Annotated[bool, typer.Option("--small", help="The small recipe, minutes.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Train the demo model from facts and a seed; Ctrl-C stops it so that --resume goes on."""
    from interp.demo.recipe import FULL, SMALL
    from interp.demo.training import train_demo as train

    report = train(out, SMALL if small else FULL, seed=seed, resume=resume, progress=not json)
    if json:
        print_json(report.table)
    else:
        table("evaluation", ["measure", "value"], list(report.table.items()))
        console.print(f"model: {out}", highlight=False)
