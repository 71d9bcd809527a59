"""The commands around circuits: find one, evaluate it, measure it again, look at it, compare two."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from interp.cli.options import Count, Device, Json, Plot, Save, Seed, draw, draw_task, load, tasks
from interp.cli.output import FAILED, console, frame_table, guarded, notes, print_json, table
from interp.errors import InterpError

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Circuits: find, evaluate, verify, draw, show and diff them."
)

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
_OPTIONS = {Task.induction: {"corrupt": "both"}}  # what a pipeline's prompts are drawn with
_FAILURES = 5  # that are printed of each circuit
_WIDE = 40  # characters of a source in a table
_RECORDED = 32  # prompts that verify measures again
_CURVE = 32  # prompts that a page's curves are measured on


@app.command()
@guarded
def find(
    task: Annotated[Task, typer.Argument(help="The behaviour.")],
    model: Annotated[str, typer.Option(help="'demo', 'random', a folder or a hub name.")] = "demo",
    n: Annotated[int | None, typer.Option(min=4, help="Prompts of a draw; half find it.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Draws that it is found on.")] = 5,
    faithful: Annotated[float, typer.Option(help="Share of the metric that it must keep.")] = 0.95,
    method: Annotated[
        str, typer.Option(help="screened, exact, eap, eap-ig, ...: scores of edges.")
    ] = "screened",
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
    options = _OPTIONS.get(task, {})
    found_on = {**finding.circuit.prompts, **({"options": options} if options else {})}
    circuit = replace(
        finding.circuit, name=f"{task.value}-{own.name.split('/')[-1]}", source=command, prompts=found_on,
        measured={**finding.circuit.measured, **_agreement(finding)},
    )  # fmt: skip
    circuit = circuits.record(
        circuit, own, task=task.value, n=_RECORDED, seed=seed + 1000, options=options,
        command=command,
    )  # fmt: skip
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
        try:
            circuit = circuits.Circuit.load(name)
            if paths or circuits.recorded(circuit):
                verdict, failures = _verified(circuit, models, model, device)
            else:
                verdict, failures = "nothing recorded", []
        except InterpError as error:  # the others are measured all the same
            verdict, failures = "FAILED", [f"{type(error).__name__}: {error}"]
        rows.append({"circuit": name, "verdict": verdict, "failures": failures})
    if json:
        print_json(rows)
    else:
        table("circuits, measured again", ["circuit", "verdict"],
              [[row["circuit"], row["verdict"]] for row in rows])  # fmt: skip
        for row in rows:
            for failure in row["failures"][:_FAILURES]:
                notes.print(f"{row['circuit']}: {failure}", highlight=False, soft_wrap=True)
            if more := len(row["failures"][_FAILURES:]):
                notes.print(f"{row['circuit']}: and {more} more", highlight=False, soft_wrap=True)
    if any(row["failures"] for row in rows):
        raise typer.Exit(FAILED)


def _verified(
    circuit: Any, models: dict[str, Any], model: str | None, device: str | None
) -> tuple[str, list[str]]:
    """A verdict on one circuit and what does not hold; a model is loaded once, and only if needed."""
    from interp import circuits

    owner = model or circuit.model
    if owner not in models and circuits.recorded(circuit):
        models[owner] = load(owner, device=device)
    result = circuits.verify(circuit, models.get(owner))
    verdict = f"{len(result.names)} numbers as recorded" if result.ok else "FAILED"
    return verdict, list(result.failures)


@app.command()
@guarded
def evaluate(
    name: Name,
    model: Owner = None,
    task: Task | None = None,
    n: Count = 32,
    ablation: Annotated[
        Literal["resample", "zero"] | None, typer.Option(help="None: the circuit's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the prompts and of all random sets.")] = 2000,
    device: Device = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """How faithful, complete and minimal a circuit is, on prompts it was not found on."""
    from interp import circuits

    circuit = circuits.Circuit.load(name)
    behaviour = circuit.prompts.get("task") if task is None else task.value
    if behaviour not in tasks():
        raise typer.BadParameter(f"{circuit.name} names no task to draw prompts of: give --task.")
    options = circuit.prompts.get("options", {}) if task is None else _OPTIONS.get(task, {})
    own = load(model or circuit.model, device=device)
    pairs = draw_task(own, behaviour, n, seed, **options)
    result = circuit.evaluate(own, circuits.unseen(circuit, pairs), ablation=ablation, seed=seed)
    if save is not None:
        result.save(save)
    if json:
        print_json(result.to_frame().to_dict("records"))
    else:
        console.print(repr(result), highlight=False)
        frame_table("measures", result.to_frame())
        columns = ["member", "minimality", "share", "effect", "set", "needed"]
        frame_table("what each node is needed for", result.minimality_frame()[columns])
    draw(result, plot)


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
    page = circuit.view(**_looked_into(circuit, model, prompts, seed, device))
    notes.print(f"page: {page.save(out)}", highlight=False)


def _looked_into(
    circuit: Any, model: str | None, n: int, seed: int, device: str | None
) -> dict[str, Any]:
    """What a page shows beside the drawing: patterns and curves; nothing of what cannot be had."""
    from interp import circuits

    task = circuit.prompts.get("task")
    if task not in tasks() or (model is None and circuit.weights_hash is None):
        notes.print(
            "no attention patterns and no curve: the circuit names no task that can be drawn, or it "
            "was not found on weights at hand; --model gives a model"
        )
        return {}
    own, options = load(model or circuit.model, device=device), circuit.prompts.get("options", {})
    shown = draw_task(own, task, n, seed, **options)
    if circuit.scores is None:
        return {"model": own, "prompts": shown}
    measured = circuits.unseen(circuit, draw_task(own, task, _CURVE, seed + 1001, **options))
    curves = [circuits.curve(circuit.scores, own, measured, n_random=0),
              circuits.member_curve(circuit, own, measured)]  # fmt: skip
    return {"model": own, "prompts": shown, "curve": curves}


@app.command()
@guarded
def diff(first: Name, second: Name, json: Json = False) -> None:
    """Which edges two circuits share, and which only one of them has."""
    from interp import circuits

    a, b = circuits.Circuit.load(first), circuits.Circuit.load(second)
    both, left, right = a & b, a - b, b - a
    if json:
        print_json({"jaccard": a.jaccard(b), "both": both.ordered, f"only in {a.name}": left.ordered,
                    f"only in {b.name}": right.ordered})  # fmt: skip
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

    rows: list[dict[str, Any]] = []
    for name in circuits.shipped():
        one = circuits.Circuit.load(name)
        record = one.measured["evaluation"] if circuits.recorded(one) else {}
        rows.append({"circuit": one.name, "model": one.model, "edges": one.size,
                     "share": one.density, "faithfulness": record.get("faithfulness"),
                     "roles": len(one.roles), "from": one.source})  # fmt: skip
    if json:
        print_json(rows)
        return
    for row in rows:
        known = row["faithfulness"] is not None
        row |= {"share": f"{100 * row['share']:.2g}%", "from": _cut(row["from"]),
                "faithfulness": f"{row['faithfulness']:.3f}" if known else "not measured"}  # fmt: skip
    names = ["circuit", "model", "edges", "share", "faithfulness", "roles", "from"]
    table("shipped circuits", names, [list(row.values()) for row in rows])


def _cut(text: str) -> str:
    return text if len(text) <= _WIDE else f"{text[:_WIDE].rsplit(' ', 1)[0]}…"
