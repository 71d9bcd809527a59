"""The commands around circuits: find one, measure it again, look at it, compare two."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.options import Device, Json, Plot, Seed, draw, load
from interp.cli.output import FAILED, console, frame_table, guarded, notes, print_json, table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Circuits: find, verify, draw, show and diff them.")

Name = Annotated[str, typer.Argument(help="A circuit's file, or the name of a shipped one.")]
Owner = Annotated[
    str | None, typer.Option("--model", help="The model. None: the one that the circuit names.")
]


class Task(StrEnum):
    """Behaviours that have a pipeline; the value is the task that draws its prompts."""

    induction = "induction"
    capitals = "capitals"
    ioi = "ioi"
    greater_than = "greater_than"
    mcq = "mcq"


_PIPELINES = {Task.capitals: "factual_recall"}


@app.command()
@guarded
def find(
    task: Annotated[Task, typer.Argument(help="The behaviour.")],
    model: Annotated[str, typer.Option(help="'demo', 'random', a folder or a hub name.")] = "demo",
    n: Annotated[int | None, typer.Option(min=4, help="Prompts of a draw; half find it.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws that it is found on.")] = 5,
    faithful: Annotated[float, typer.Option(help="Share of the metric that it must keep.")] = 0.95,
    method: Annotated[
        str, typer.Option(help="exact, eap, eap-ig, ...: scores of edges.")
    ] = "exact",
    seed: Seed = 0,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(help="Write NAME.json here, or into a folder.")
    ] = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """A behaviour's circuit with roles, evaluated on prompts it was not found on."""
    from interp import circuits, pipelines

    own = load(model, seed, device=device)
    sizes = {} if n is None else {"n": n}
    pipeline = getattr(pipelines, _PIPELINES.get(task, task.value))
    finding = pipeline(own, seed=seed, seeds=seeds, faithful=faithful, method=method, **sizes)
    if json:
        print_json({"findings": finding.findings(), "roles": finding.to_frame().to_dict("records")})
    else:
        for line in finding.findings():
            console.print(line, highlight=False)
        if len(frame := finding.to_frame()):
            columns = ["role", "node", "behaviour", "value", "twin"]
            frame_table("roles, by what nodes do (twin: the untrained twin)", frame[columns])
    draw(finding, plot)
    if finding.circuit is None:
        notes.print("no circuit: the model does not show this behaviour")
        raise typer.Exit(FAILED)
    if out is None:
        return
    command = f"interp circuit find {task.value} --model {model} --seeds {seeds} --seed {seed}"
    command += "" if n is None else f" --n {n}"
    command += f" --faithful {faithful:g} --method {method}"
    circuit = replace(
        finding.circuit, name=f"{task.value}-{own.name}", source=command,
        measured={**finding.circuit.measured, **_agreement(finding)},
    )  # fmt: skip
    circuit = circuits.record(circuit, own, task=task.value, seed=seed + 1000, command=command)
    path = out if out.suffix == ".json" else out / f"{circuit.name}.json"
    notes.print(f"circuit: {circuit.save(path)}", highlight=False)


def _agreement(finding: Any) -> dict[str, float]:
    """How far the circuits of other draws agree, for the record."""
    pairs = {"stability": finding.stability, "twin_stability": finding.twin_stability}
    return {name: round(value, 4) for name, value in pairs.items() if value is not None}


@app.command()
@guarded
def verify(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files or names; none: all shipped.")
    ] = None,
    model: Owner = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Measure circuits again, and compare with what their files record. Fails if any differs."""
    from interp import circuits

    rows: list[dict[str, Any]] = []
    models: dict[str, Any] = {}
    for name in paths or circuits.shipped():
        circuit = circuits.Circuit.load(name)
        if "evaluation" not in circuit.measured and not paths:
            rows.append(
                {"circuit": circuit.name, "verdict": "not measured: published, weights elsewhere"}
            )
            continue
        owner = model or circuit.model
        if owner not in models:
            models[owner] = load(owner, device=device)
        result = circuits.verify(circuit, models[owner])
        verdict = f"{len(result.names)} numbers as recorded" if result.ok else "FAILED"
        rows.append(
            {"circuit": circuit.name, "verdict": verdict, "failures": list(result.failures)}
        )
    if json:
        print_json(rows)
    else:
        table("circuits, measured again", ["circuit", "verdict"],
              [[row["circuit"], row["verdict"]] for row in rows])  # fmt: skip
        for row in rows:
            for failure in row.get("failures", [])[:5]:
                notes.print(f"{row['circuit']}: {failure}", highlight=False)
    if any(row.get("failures") for row in rows):
        raise typer.Exit(FAILED)


@app.command()
@guarded
def show(name: Name, json: Json = False) -> None:
    """What a circuit is: members by role, where it is from, what was measured."""
    from interp import circuits

    circuit = circuits.Circuit.load(name)
    if json:
        rows = circuit.to_frame().to_dict("records")
        print_json({"circuit": circuit.name, "roles": dict(circuit.roles),
                    "measured": dict(circuit.measured), "edges": rows})  # fmt: skip
        return
    console.print(circuit.show(), highlight=False)


@app.command("draw")
@guarded
def draw_circuit(
    name: Name,
    out: Annotated[Path, typer.Option(help="FILE.svg, .png, .pdf, or .html for a page.")],
    model: Owner = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of the page's patterns.")] = 4,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """A picture of a circuit, or a page to look into it."""
    from interp import circuits

    circuit = circuits.Circuit.load(name)
    if out.suffix != ".html":
        notes.print(f"drawing: {circuit.draw().save(out)}", highlight=False)
        return
    own = load(model or circuit.model, device=device)
    task = circuit.measured.get("evaluation", {}).get("prompts", {}).get("task")
    drawn = None if task is None else _draw_prompts(own, task, prompts, seed)
    curve = None
    if circuit.scores is not None and drawn is not None:
        curve = circuits.curve(circuit.scores, own, _draw_prompts(own, task, 32, seed + 1001))
    page = circuit.view(model=None if drawn is None else own, prompts=drawn, curve=curve)
    notes.print(f"page: {page.save(out)}", highlight=False)


def _draw_prompts(model: Any, task: str, n: int, seed: int) -> Any:
    import interp

    return getattr(interp.prompts, task)(model, n, seed)


@app.command()
@guarded
def diff(first: Name, second: Name, json: Json = False) -> None:
    """Which edges two circuits share, and which only one of them has."""
    from interp import circuits

    a, b = circuits.Circuit.load(first), circuits.Circuit.load(second)
    both, left, right = a & b, a - b, b - a
    if json:
        print_json({"jaccard": a.jaccard(b), "both": both.ordered, a.name: left.ordered,
                    b.name: right.ordered})  # fmt: skip
        return
    table(f"{a.name} and {b.name}: Jaccard {a.jaccard(b):.3f}", ["edges", "n"], [
        ["in both", both.size], [f"only in {a.name}", left.size], [f"only in {b.name}", right.size],
    ])  # fmt: skip
    for title, part in ((f"only in {a.name}", left), (f"only in {b.name}", right)):
        console.print(f"\n{title}", style="bold", highlight=False)
        console.print("\n".join(part.ordered) or "none", highlight=False)


@app.command("list")
@guarded
def list_circuits(json: Json = False) -> None:
    """The circuits that are shipped."""
    from interp import circuits

    rows = []
    for name in circuits.shipped():
        one = circuits.Circuit.load(name)
        rows.append({"circuit": one.name, "model": one.model, "edges": one.size,
                     "share": f"{one.density:.1%}", "roles": len(one.roles), "from": one.source})  # fmt: skip
    if json:
        print_json(rows)
    else:
        table("shipped circuits", ["circuit", "model", "edges", "share", "nodes with a role", "from"],
              [list(row.values()) for row in rows])  # fmt: skip
