"""What several commands share: their options, loading a model, reading prompts, writing a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.output import console, frame_table, notes, print_json

__all__ = [
    "Clean",
    "Corrupted",
    "Count",
    "Device",
    "DirectionName",
    "Dtype",
    "File",
    "Json",
    "MetricName",
    "ModelName",
    "Places",
    "Plot",
    "Revision",
    "Save",
    "Seed",
    "SourceName",
    "Task",
    "Text",
    "Top",
    "asked_prompts",
    "asked_text",
    "draw",
    "draw_task",
    "load",
    "position",
    "show_cells",
    "tasks",
]

ModelName = Annotated[
    str, typer.Argument(help="'demo', 'random' (its untrained twin), a folder, or a hub name.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn at random.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16, float64.")]
Revision = Annotated[str | None, typer.Option(help="Hub revision, or a demo checkpoint.")]
Text = Annotated[str | None, typer.Argument(help="The prompt, or use --task or --prompts.")]
Clean = Annotated[str | None, typer.Option(help="The clean prompt.")]
Corrupted = Annotated[str | None, typer.Option(help="The corrupted prompt.")]
Task = Annotated[str | None, typer.Option(help="Or a task: capitals, ioi, mcq, ...")]
File = Annotated[Path | None, typer.Option(help="Or a JSONL or CSV file.")]
Count = Annotated[int, typer.Option(min=1, help="Prompts of the task.")]
MetricName = Annotated[str, typer.Option(help="logit_diff, prob, kl, ...")]
DirectionName = Annotated[str | None, typer.Option(help="denoise or noise.")]
SourceName = Annotated[str | None, typer.Option(help="clean, corrupted, zero, resample, noise.")]
Places = Annotated[str | None, typer.Option(help="each, all, END, -1, subject, ...")]
Top = Annotated[int, typer.Option(min=1, help="Rows to print.")]
Save = Annotated[Path | None, typer.Option(help="Write the result to this file.")]
Plot = Annotated[Path | None, typer.Option(help="Write the figure to PATH.png and PATH.svg.")]


def load(name: str, seed: int = 0, **options: Any) -> Any:
    import interp

    if name == "random":
        check = options.get("check", "quick")
        return interp.load("demo", **options).random_twin(seed, check=check)
    return interp.load(name, **options)


def draw(result: Any, path: Path | None, **options: Any) -> None:
    from interp.figures.style import save

    if path is not None:
        png, svg = save(result.plot(**options), path)
        notes.print(f"figure: {png}, {svg}", highlight=False)


def show_cells(
    result: Any, *, top: int, save: Path | None, plot: Path | None, json: bool, cells: Any = None
) -> None:
    """Print, save and draw a result of many cells.

    Args:
        cells: the form in which cells are printed; None: as they are.
    """
    cells = result if cells is None else cells
    if save is not None:
        result.save(save)
    if json:
        print_json(cells.to_frame().to_dict("records"))
    else:
        console.print(repr(result), highlight=False)
        frame_table(f"strongest {top}", cells.top(top))
    draw(result, plot)


def asked_prompts(
    model: Any, clean: str | None, corrupted: str | None, task: str | None, file: Path | None,
    n: int, seed: int,
) -> Any:  # fmt: skip
    """The one of the three ways to give prompts that was used."""
    import interp

    both = clean is not None and corrupted is not None
    either = clean is not None or corrupted is not None
    if both != either or both + (task is not None) + (file is not None) != 1:
        raise typer.BadParameter("give --clean and --corrupted, or --task, or --prompts.")
    if task is not None:
        return draw_task(model, task, n, seed)
    return interp.prompts.load(model, file) if file is not None else (clean, corrupted)


def tasks() -> tuple[str, ...]:
    """The tasks of :mod:`interp.prompts`, by name."""
    from interp import prompts

    return tuple(one for one in prompts.__all__ if one not in ("Prompts", "build", "load", "save"))


def draw_task(model: Any, task: str, n: int, seed: int, **options: Any) -> Any:
    """Prompts of a task.

    Raises:
        PromptError: there is no such task; the nearest are named.
    """
    from interp import prompts
    from interp.errors import PromptError, nearest

    if task not in tasks():
        raise PromptError(f"no task is called {task!r}; nearest: {nearest(task, tasks())}.")
    return getattr(prompts, task)(model, n, seed, **options)


def asked_text(
    model: Any, text: str | None, task: str | None, file: Path | None, n: int, seed: int
) -> Any:
    """A text, or the prompts of a task or a file."""
    if (text is not None) + (task is not None) + (file is not None) != 1:
        raise typer.BadParameter("give a text, or --task, or --prompts.")
    return text if text is not None else asked_prompts(model, None, None, task, file, n, seed)


def position(text: str | None) -> int | str | list[int | str] | None:
    """A number, a name, or several with commas between them."""
    if text is None:
        return None
    parts: list[int | str] = [
        int(p) if p.lstrip("-").isdigit() else p for p in (part.strip() for part in text.split(","))
    ]
    return parts if len(parts) > 1 else parts[0]
