"""The commands. Heavy imports stand inside them, so ``interp --help`` is instant."""

from __future__ import annotations

import typer

from interp.cli import (
    activations,
    causal,
    circuits,
    demo_model,
    dictionaries,
    discovery,
    glance,
    notebooks,
    reading,
)

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find out how a transformer computes something: exact, fast, honest.",
)

for command in (
    demo_model.demo,
    glance.scan,
    reading.info,
    causal.patch,
    causal.trace,
    causal.ablate,
    causal.attribute,
    discovery.discover,
    discovery.stability,
    reading.logit_attribution,
    reading.lens,
    reading.attention,
    reading.heads,
    activations.harvest,
    demo_model.train_demo,
    notebooks.new_notebook,
):
    app.command(command.__name__.replace("_", "-"))(command)
app.command("train")(dictionaries.train)
app.command("eval")(dictionaries.evaluate)
app.command("features")(dictionaries.features)
app.add_typer(activations.store, name="store")
app.add_typer(circuits.app, name="circuit")
app.add_typer(notebooks.app, name="notebooks")


def main() -> None:
    """Entry point of the ``interp`` command."""
    app()
