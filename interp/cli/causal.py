"""Commands that change a run and score it: patch, trace, ablate, attribute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.options import (
    Clean,
    Corrupted,
    Count,
    Device,
    DirectionName,
    File,
    Json,
    MetricName,
    ModelName,
    Places,
    Plot,
    Save,
    Seed,
    SourceName,
    Task,
    Text,
    Top,
    asked_prompts,
    asked_text,
    draw,
    load,
    position,
    show_cells,
)
from interp.cli.output import console, frame_table, guarded, print_json

__all__ = ["ablate", "attribute", "patch", "trace"]


@guarded
def patch(
    model: ModelName,
    sites: Annotated[
        str, typer.Argument(help="Such as 'L*.resid_pre', 'L*.H*.z' or 'L*.H*.z -> L2.H1.k'.")
    ],
    clean: Clean = None,
    corrupted: Corrupted = None,
    task: Task = None,
    prompts: File = None,
    n: Count = 64,
    metric: MetricName = "logit_diff",
    direction: DirectionName = None,
    source: SourceName = None,
    window: Annotated[int, typer.Option(min=1, help="Layers replaced around each one.")] = 1,
    engine: Annotated[str, typer.Option(help="auto, replay or plain.")] = "auto",
    resume: Annotated[Path | None, typer.Option(help="A saved, interrupted result.")] = None,
    positions: Places = None,
    top: Top = 12,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Patch activations from one prompt into another, cell by cell."""
    import interp

    loaded = load(model, seed, device=device)
    asked = asked_prompts(loaded, clean, corrupted, task, prompts, n, seed)
    options: dict[str, Any] = {
        "direction": direction, "source": source, "seed": seed, "positions": position(positions),
        "window": window, "engine": engine, "resume": resume,
    }  # fmt: skip
    arguments = asked if isinstance(asked, tuple) else (asked,)
    result = interp.patch(loaded, *arguments, sites, metric=metric, **options)
    show_cells(result, top=top, save=save, plot=plot, json=json)


@guarded
def trace(
    model: ModelName,
    text: Text = None,
    subject: Annotated[str | None, typer.Option(help="Its subject, as it stands in it.")] = None,
    task: Task = None,
    prompts: File = None,
    n: Count = 32,
    noise: Annotated[float, typer.Option(help="In standard deviations of subjects.")] = 3.0,
    samples: Annotated[int, typer.Option(min=1, help="Draws of the noise.")] = 10,
    window: Annotated[int | None, typer.Option(min=1, help="Layers of MLP, attention.")] = None,
    sever: Annotated[str | None, typer.Option(help="mlp, attn or mlp,attn.")] = None,
    metric: MetricName = "prob",
    engine: Annotated[str, typer.Option(help="auto, replay or plain.")] = "auto",
    resume: Annotated[Path | None, typer.Option(help="A saved, interrupted result.")] = None,
    top: Top = 12,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Causal tracing: noise on the subject, one clean state put back at a time."""
    import interp

    loaded = load(model, seed, device=device)
    asked = asked_text(loaded, text, task, prompts, n, seed)
    cut: Any = [part.strip() for part in sever.split(",")] if sever else ()
    result = interp.trace(
        loaded, asked, subject=subject, noise=noise, samples=samples, window=window,
        sever=cut, metric=metric, engine=engine,  # type: ignore[arg-type]
        resume=resume, seed=seed,
    )  # fmt: skip
    cells = result if text is not None else result.by_role()
    show_cells(result, cells=cells, top=top, save=save, plot=plot, json=json)


@guarded
def ablate(
    model: ModelName,
    sites: Annotated[str, typer.Argument(help="Such as 'L*.H*.z' or 'L2.H0.z + L2.H5.z'.")],
    text: Text = None,
    task: Task = None,
    prompts: File = None,
    n: Count = 64,
    method: Annotated[str | None, typer.Option(help="resample, zero, noise or mean.")] = None,
    metric: Annotated[str | None, typer.Option(help="logit_diff, log_prob, ...")] = None,
    positions: Places = None,
    window: Annotated[int, typer.Option(min=1, help="Layers ablated around each one.")] = 1,
    engine: Annotated[str, typer.Option(help="auto, replay or plain.")] = "auto",
    top: Top = 12,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Knock out activations of the clean run; the mean is taken over the same prompts."""
    import interp

    if method == "mean" and text is not None:
        raise typer.BadParameter(
            "one text is its own mean: give --task or --prompts, or --method zero."
        )
    loaded = load(model, seed, device=device)
    asked = asked_text(loaded, text, task, prompts, n, seed)
    result = interp.ablate(
        loaded, asked, sites, method=method, reference=asked if method == "mean" else None,  # type: ignore[arg-type]
        metric=metric, positions=position(positions), window=window, engine=engine, seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip
    show_cells(result, top=top, save=save, plot=plot, json=json)


@guarded
def attribute(
    model: ModelName,
    sites: Annotated[
        str, typer.Argument(help="Such as 'L*.resid_pre' or 'L*.H*.z', or 'edges' for all edges.")
    ],
    clean: Clean = None,
    corrupted: Corrupted = None,
    task: Task = None,
    prompts: File = None,
    n: Count = 64,
    metric: MetricName = "logit_diff",
    method: Annotated[
        str | None,
        typer.Option(help="gradient, integrated, atp-qk, atp*; of edges: exact, eap, eap-ig, ..."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the integrated gradient.")
    ] = None,
    direction: DirectionName = None,
    source: SourceName = None,
    positions: Places = None,
    ablation: Annotated[
        str | None, typer.Option(help="Of edges: what ablated ones carry: resample or zero.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Of exact edges: a saved, interrupted result.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Run the patches too; compare.")] = False,
    top: Top = 12,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Estimate what every patch would do from the metric's gradient, in a few passes."""
    import interp

    loaded = load(model, seed, device=device)
    asked = asked_prompts(loaded, clean, corrupted, task, prompts, n, seed)
    if check and sites == "edges":
        raise typer.BadParameter("--check compares with patches; for edges, use --method exact.")
    options: dict[str, Any] = {"direction": direction, "source": source, "seed": seed}
    options |= {"positions": position(positions), "metric": metric}
    of_edges = {"ablation": ablation, "resume": resume}
    options |= {word: value for word, value in of_edges.items() if value is not None}
    arguments = (*(asked if isinstance(asked, tuple) else (asked,)), sites)
    result = interp.attribute(loaded, *arguments, method=method, steps=steps, **options)
    found = interp.compare(interp.patch(loaded, *arguments, **options), result) if check else None
    if save is not None:
        result.save(save)
    if json:
        print_json((result if found is None else found).to_frame().to_dict("records"))
    else:
        console.print(repr(result), highlight=False)
        frame_table(f"strongest {top}", result.top(top))
        if found is not None:
            console.print(repr(found), highlight=False)
    draw(result if found is None else found, plot)
