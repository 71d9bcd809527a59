"""The commands around notebooks: execute them, read their claims, begin a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.options import Json
from interp.cli.output import FAILED, console, guarded, notes, print_json, table

__all__ = ["app", "new_notebook"]

app = typer.Typer(
    no_args_is_help=True, help="Notebooks, one per paper: run them, read their claims."
)

Folder = Annotated[Path, typer.Option(help="Where the notebooks' sources lie.")]
Names = Annotated[list[str] | None, typer.Argument(help="Numbers or names; all by default.")]


@app.command()
@guarded
def run(
    names: Names = None,
    folder: Folder = Path("notebooks"),
    fast: Annotated[
        bool, typer.Option("--fast", help="The first seed alone, smaller samples.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Another MODEL: a hub name or folder.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Other SEEDS: '10,11,12'.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at once, a thread each.")] = 2,
    again: Annotated[
        bool, typer.Option("--again", help="Execute what is up to date; drop hand edits.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for what was executed; a must with other settings.")
    ] = None,
    json: Json = False,
) -> None:
    """Execute notebooks and keep their claims; fails if a notebook or a claim does."""
    from interp import notebooks

    parameters: dict[str, Any] = {} if model is None else {"MODEL": model}
    if seeds is not None:
        parameters["SEEDS"] = _numbers(seeds)
    given: dict[str, Any] = {
        "fast": fast, "parameters": parameters, "again": again, "out": out,
    }  # fmt: skip
    planned = notebooks.plan(folder, names or (), **given)
    _announce(planned, jobs)
    with _Progress(planned) as told:
        done = notebooks.run(folder, names or (), jobs=jobs, told=told, **given)
    entries = [outcome.entry for outcome in done if outcome.entry is not None]
    _print(entries, json)
    for outcome in done:
        if outcome.error is not None:
            notes.print(f"{outcome.name}: {outcome.error}", highlight=False, soft_wrap=True)
    missed = [f"{e.name}: {c!r}" for e in entries for c in e.claims if not c.holds]
    for line in missed:
        notes.print(f"missed: {line}", highlight=False, soft_wrap=True)
    if missed or any(outcome.error is not None for outcome in done):
        raise typer.Exit(FAILED)


@app.command()
@guarded
def claims(names: Names = None, folder: Folder = Path("notebooks"), json: Json = False) -> None:
    """The claims of the notebooks as they were last executed."""
    from interp import notebooks
    from interp.errors import NotebookError
    from interp.notebooks.source import named

    path = folder / notebooks.CLAIMS
    if not path.exists():
        raise NotebookError(
            f"no {path}: 'interp notebooks run --folder {folder}' executes the notebooks and writes it."
        )
    entries = notebooks.read(path)
    _print([entries[name] for name in named(entries, names or (), folder)], json)


@guarded
def new_notebook(
    title: Annotated[str, typer.Argument(help="The paper's title, or your question.")],
    paper: Annotated[str, typer.Option(help="Authors, year and arXiv number.")] = (
        "Authors year, arXiv:…"
    ),
    folder: Folder = Path("notebooks"),
) -> None:
    """Begin a notebook in the form of the others; it runs as it is."""
    from interp import notebooks

    path = notebooks.new(title, paper=paper, folder=folder)
    notes.print(f"notebook: {path} and {path.with_suffix('.ipynb').name}", highlight=False)
    notes.print(f"run it: interp notebooks run {path.stem} --folder {folder}", highlight=False)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--seeds {text!r}: expected numbers, as in 10,11,12") from None


def _announce(planned: Any, jobs: int) -> None:
    seconds = planned.forecast(jobs)
    took = (
        ""
        if seconds is None or not planned.todo
        else f", about {seconds / 60:.0f} min as last time"
    )
    kept = f"; {len(planned.kept)} up to date" if planned.kept else ""
    notes.print(f"{len(planned.todo)} notebooks to execute{took}{kept}", highlight=False)


def _print(entries: Any, json: bool) -> None:
    if json:
        print_json({entry.name: entry.to_json() for entry in entries})
        return
    for entry in entries:
        seeds = ", ".join(map(str, entry.seeds))
        rows = [
            [
                f"{'✓' if c.holds else '✗'} {c.name}", f"{c.told} ({c.threshold})",
                f"{c.null_told} ({c.null_threshold}), {c.control}",
                "" if c.paper is None else c.paper.says,
            ]
            for c in entry.claims
        ]  # fmt: skip
        title = f"{entry.name}: seeds {seeds}, {entry.seconds:.0f} s"
        table(title, ["claim", "ours (must be)", "null (must be)", "the paper"], rows)
    if entries:
        held = sum(c.holds for entry in entries for c in entry.claims)
        total = sum(len(entry.claims) for entry in entries)
        console.print(f"{held} of {total} claims hold", highlight=False)


class _Progress:
    """A bar for each notebook that is running: cells done, time taken."""

    def __init__(self, planned: Any) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=notes, transient=True, disable=not notes.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, name: str, done: int, cells: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=cells)
        self._bars.update(self._tasks[name], completed=done, visible=done < cells)
