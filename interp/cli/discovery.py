"""The commands that search: discover a circuit by one method, and ask how stable such a circuit is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from interp.cli.options import (
    Clean,
    Corrupted,
    Count,
    Device,
    File,
    Json,
    MetricName,
    ModelName,
    Plot,
    Save,
    Seed,
    Task,
    Top,
    asked_prompts,
    draw,
    load,
)
from interp.cli.output import console, frame_table, guarded, notes, print_json

__all__ = ["discover", "stability"]

Edges = Annotated[
    str | None, typer.Option("--edges", help="How many edges: a number, or a share such as 0.05.")
]
AblationName = Annotated[
    Literal["resample", "zero"], typer.Option(help="What edges outside the circuit carry.")
]


@guarded
def discover(
    model: ModelName = "demo",
    task: Task = None,
    clean: Clean = None,
    corrupted: Corrupted = None,
    prompts: File = None,
    method: Annotated[
        str, typer.Option(help="acdc, exact, eap, eap-ig, edge-pruning, ...")
    ] = "acdc",
    metric: MetricName = "logit_diff",
    ablation: AblationName = "resample",
    tau: Annotated[float | None, typer.Option(help="Of ACDC: the least change that keeps.")] = None,
    edges: Edges = None,
    n: Count = 32,
    seed: Seed = 0,
    device: Device = None,
    record: Annotated[
        Path | None, typer.Option(help="The course of a search; it goes on from there.")
    ] = None,
    save: Save = None,
    top: Top = 20,
    json: Json = False,
) -> None:
    """Find the edges that carry a behaviour, by one method, on half of the prompts; evaluate on the rest."""
    import interp

    if save is not None and save.with_suffix(".safetensors") == record:
        raise typer.BadParameter(f"--record {record} is where --save {save} puts the scores.")
    own = load(model, seed, device=device)
    given = asked_prompts(own, clean, corrupted, task, prompts, n, seed)
    pairs = own.prompts(*given) if isinstance(given, tuple) else given
    found_on, held_out = pairs.split(0.5, seed=seed) if len(pairs) > 1 else (pairs, pairs)
    circuit = interp.discover(
        own, found_on, method=method, metric=metric, ablation=ablation, tau=tau,
        n=_size(edges), seed=seed, record=record,
    )  # fmt: skip
    if save is not None:
        notes.print(f"circuit: {circuit.save(save)}", highlight=False)
    if json:
        print_json(circuit.to_frame().to_dict("records"))
        return
    console.print(repr(circuit), highlight=False)
    frame = circuit.to_frame()[["edge", "score"]]
    frame = frame.reindex(frame["score"].abs().sort_values(ascending=False, kind="stable").index)
    frame_table(f"strongest {top} edges", frame.head(top))
    evaluation = circuit.evaluate(own, held_out, n_random=10, completeness_sets=0, greedy_sets=0,
                                  minimality_sets=0, members=False)  # fmt: skip
    console.print(repr(evaluation), highlight=False)


def _size(text: str | None) -> int | float | None:
    """A number of edges, or a share of them."""
    if text is None:
        return None
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise typer.BadParameter(f"--edges {text}: give a number such as 50, or a share such as 0.05."
                                 ) from None  # fmt: skip


@guarded
def stability(
    model: ModelName = "demo",
    task: Annotated[str, typer.Option(help="A task of interp.prompts.")] = "capitals",
    seeds: Annotated[int, typer.Option(min=2, help="Draws of the prompts.")] = 5,
    methods: Annotated[
        str, typer.Option(help="With commas between: eap-ig,eap,exact.")
    ] = "eap-ig,eap",
    edges: Edges = "0.05",
    metric: MetricName = "logit_diff",
    n: Count = 32,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Would other prompts, another method or another ablation have found the same circuit?"""
    import interp

    result = interp.stability(
        load(model, seed, device=device), task, seeds=range(seed, seed + seeds),
        methods=tuple(part.strip() for part in methods.split(",")), n=_size(edges) or 0.05,
        n_prompts=n, metric=metric,
    )  # fmt: skip
    if save is not None:
        result.save(save)
    if json:
        print_json(result.to_frame().to_dict("records"))
    else:
        console.print(repr(result), highlight=False)
        frame_table("agreement", result.to_frame())
    draw(result, plot)
