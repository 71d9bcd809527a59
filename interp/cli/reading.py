"""Commands that read a model: info, lens, logit-attribution, attention, heads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from interp.cli.options import (
    Count,
    Device,
    Dtype,
    File,
    Json,
    ModelName,
    Plot,
    Revision,
    Save,
    Seed,
    Task,
    Text,
    Top,
    asked_text,
    draw,
    load,
    show_cells,
)
from interp.cli.output import console, frame_table, guarded, notes, print_json, table

__all__ = ["attention", "heads", "info", "lens", "logit_attribution"]


@guarded
def info(
    model: ModelName,
    check: Annotated[Literal["quick", "full"], typer.Option(help="How much to prove.")] = "quick",
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Say what a model is, which sites are proven, and which are refused and why."""
    loaded = load(model, revision=revision, device=device, dtype=dtype, check=check)
    report = loaded.report()
    facts = {
        "name": loaded.name, "family": loaded.anatomy.name, "parameters": loaded.n_params,
        "layers": loaded.n_layers, "heads": loaded.n_heads, "key-value heads": loaded.n_kv_heads,
        "d_model": loaded.d_model, "d_head": loaded.d_head, "d_vocab": loaded.d_vocab,
        "context": loaded.n_ctx, "dtype": str(loaded.dtype), "device": str(loaded.device),
        "weights sha256": loaded.weights_hash,
    }  # fmt: skip
    if json:
        print_json(
            {**facts, "proven": report.proven, "refused": report.refused, "worst": report.worst}
        )
        return
    table("model", ["", ""], [(k, str(v)) for k, v in facts.items()])
    table(f"sites proven by the {report.level} check", ["point"], [(p,) for p in report.proven])
    table("refused", ["point", "reason"], list(report.refused.items()))


@guarded
def lens(
    model: ModelName,
    text: Annotated[str, typer.Argument(help="The prompt to read.")],
    sites: Annotated[
        str | None, typer.Option(help="Such as 'L*.mlp_out'; else the stream.")
    ] = None,
    using: Annotated[Path | None, typer.Option(help="A tuned lens, saved.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Tokens to keep for each cell.")] = 5,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Read each layer's prediction at each position (logit lens, or a tuned one)."""
    import interp

    loaded = load(model, seed, device=device)
    tuned = None if using is None else interp.TunedLens.load(using, loaded)
    result = interp.lens(loaded, text, sites=sites, using=tuned, top=top)
    if save is not None:
        result.save(save)
    frame = result.to_frame()
    if json:
        print_json(frame.to_dict("records"))
    else:
        last = frame[frame["position"] == frame["position"].max()]
        frame_table(f"what each layer would say after {text!r}", last)
    draw(result, plot)


@guarded
def logit_attribution(
    model: ModelName,
    text: Text = None,
    task: Task = None,
    prompts: File = None,
    n: Count = 64,
    by: Annotated[str, typer.Option(help="component, head or neuron.")] = "component",
    top: Top = 12,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Direct logit attribution: what each part writes into the answer's logit."""
    import interp

    loaded = load(model, seed, device=device)
    asked = asked_text(loaded, text, task, prompts, n, seed)
    result = interp.logit_attribution(loaded, asked, by=by, seed=seed)  # type: ignore[arg-type]
    show_cells(result, top=top, save=save, plot=plot, json=json)


@guarded
def attention(
    model: ModelName,
    text: Annotated[str, typer.Argument(help="The prompt.")],
    heads: Annotated[str, typer.Option(help="Such as 'L2' or 'L1.H0,3'.")] = "L*",
    page: Annotated[Path | None, typer.Option(help="Write an interactive HTML page.")] = None,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Where heads look, over one prompt; an HTML page to look into with --page."""
    import interp

    result = interp.attention(load(model, seed, device=device), text, heads)
    if save is not None:
        result.save(save)
    frame = result.to_frame()
    if json:
        print_json(frame.to_dict("records"))
    else:
        last = frame[frame["query"] == frame["query"].max()]
        frame_table("where heads look from the last token", last)
    if page is not None:
        notes.print(f"page: {result.view().save(page)}", highlight=False)
    draw(result, plot)


@guarded
def heads(
    model: ModelName,
    n: Annotated[int, typer.Option(min=1, help="Rows of random tokens.")] = 64,
    period: Annotated[int, typer.Option(min=2, help="Tokens in one copy.")] = 24,
    top: Annotated[int, typer.Option(min=1, help="Heads of each kind to print.")] = 3,
    seed: Seed = 0,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Find previous-token, duplicate-token and induction heads by what they do."""
    import interp

    result = interp.head_scores(load(model, seed, device=device), n=n, period=period, seed=seed)
    if save is not None:
        result.save(save)
    if json:
        print_json(result.to_frame().to_dict("records"))
    else:
        kinds = ("previous_token", "duplicate_token", "induction", "copying_logit", "copying_ov")
        rows = [
            (k.replace("_", "-"), head, score) for k in kinds for head, score in result.top(k, top)
        ]
        table(f"strongest heads of each kind (even attention: {result.chance:.3f})",
              ["kind", "head", "score"], rows)  # fmt: skip
        found = {kind: result.found(kind) for kind in kinds[:3]}
        console.print(found if any(found.values()) else "no head of any kind found")
    draw(result, plot)
