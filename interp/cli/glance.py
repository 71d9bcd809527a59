"""The command for a first look at a prompt: scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli.options import Device, Json, Plot, Seed, draw, load
from interp.cli.output import console, frame_table, guarded, notes, print_json, table

__all__ = ["scan"]


@guarded
def scan(
    text: Annotated[str, typer.Argument(help="The prompt.")],
    model: Annotated[str, typer.Option(help="'demo', 'random', a folder or a hub name.")] = "demo",
    answer: Annotated[str | None, typer.Option(help="The next token to explain.")] = None,
    foil: Annotated[str | None, typer.Option(help="A token to compare it with.")] = None,
    draws: Annotated[int, typer.Option(help="Random contexts of the control.")] = 39,
    twin: Annotated[bool, typer.Option(help="Run the untrained twin too.")] = True,
    top: Annotated[int, typer.Option(min=1, help="Findings to print.")] = 15,
    seed: Seed = 0,
    device: Device = None,
    page: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the numbers into this folder.")] = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """A prompt at a glance: who writes the answer, which words matter, and what is chance."""
    import interp

    result = interp.scan(
        load(model, seed, device=device), text, answer=answer, foil=foil, draws=draws, twin=twin,
        seed=seed,
    )  # fmt: skip
    if save is not None:
        result.save(save)
    found = result.findings(None)
    if json:
        print_json(found.to_dict("records"))
    else:
        console.print(repr(result), highlight=False)
        table("predictions", ["next token", "probability"], result.predictions)
        kept = found[found["survives"]]
        columns = ["finding", "contexts", "contexts_std", "t", "p"]
        if len(kept):
            frame_table(f"survives its control (strongest {top})", kept[columns].head(top))
        else:
            console.print("\nnothing survives its control")
        frame_table("does not survive (strongest 5)", found[~found["survives"]][columns].head(5))
    if page is not None:
        notes.print(f"page: {result.save_page(page)}", highlight=False)
    draw(result, plot)
