"""The datasheet of a demo model: how it was made and what it can do, beside its weights.

``datasheet.json`` holds everything by which the checkpoint can be made and checked again; nothing
in it is typed by hand.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from interp.demo.checkpoints import write_text
from interp.demo.readme import render
from interp.demo.recipe import SMALL, Recipe

if TYPE_CHECKING:
    from interp.demo.training import TrainingReport

__all__ = ["command", "datasheet", "write_datasheet"]

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")


def command(recipe: Recipe, *, seed: int, out: str) -> str:
    """The command line that makes this model."""
    small = " --small" if recipe == SMALL else ""
    return f"interp train-demo{small} --seed {seed} --out {out}"


def write_datasheet(report: TrainingReport) -> None:
    """Write ``datasheet.json``, and the README made from it, into the checkpoint's folder."""
    sheet = datasheet(report)
    text = json.dumps(sheet, indent=2, ensure_ascii=False)
    write_text(report.out / "datasheet.json", text + "\n")
    write_text(report.out / "README.md", render(sheet))


def datasheet(report: TrainingReport) -> dict[str, Any]:
    """The datasheet as JSON data."""
    recipe = report.recipe
    return {
        "command": command(recipe, seed=report.seed, out=report.out.name),
        "seed": report.seed,
        "recipe": asdict(recipe),
        "parameters": report.parameters,
        "vocabulary": report.vocabulary,
        "steps": recipe.total,
        "tokens": recipe.tokens,
        "seconds": round(report.seconds),
        "threads": recipe.threads,
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "sha256": dict(sorted(report.sha256.items())),
        "measured": report.table,
        "heads": {
            kind: [[round(score, 3) for score in layer] for layer in layers]
            for kind, layers in report.heads.items()
        },
        "untrained": report.untrained,
        "history": report.history,
    }
