"""Commands around activations on disk: harvest, store info, store verify."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from interp.cli.options import Device, Dtype, Json, ModelName, Revision, Seed, load
from interp.cli.output import FAILED, console, guarded, print_json, table

__all__ = ["harvest", "own_device", "store"]

store = typer.Typer(no_args_is_help=True, help="Look at a store of activations, or check it.")

Folder = Annotated[Path, typer.Argument(help="The folder of a store.")]


@guarded
def harvest(
    model: ModelName,
    sites: Annotated[list[str], typer.Argument(help="'L2.mlp' (a pair), 'L*.resid_post', ...")],
    out: Annotated[Path, typer.Option(help="Folder of the store.")],
    corpus: Annotated[
        list[str], typer.Option(help="'demo', or files and folders: .txt .jsonl .parquet .npy ...")
    ] = ["demo"],  # noqa: B006
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Rows to store; all unless told.")
    ] = None,
    store_dtype: Annotated[
        Literal["bfloat16", "float32", "float16"], typer.Option(help="Of the stored values.")
    ] = "bfloat16",
    context: Annotated[int, typer.Option(min=1, help="Longest row of tokens, BOS included.")] = 128,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows at a time; as fits.")] = None,
    packing: Annotated[
        Literal["auto", "isolated", "padded", "joined"],
        typer.Option(help="How texts share rows: each alone, or joined (later ones see earlier)."),
    ] = "auto",
    bos: Annotated[bool | None, typer.Option(help="A BOS before each piece; as the model.")] = None,
    special: Annotated[bool, typer.Option("--special", help="Store special tokens too.")] = False,
    field: Annotated[str, typer.Option(help="Where JSON records hold their text.")] = "text",
    split: Annotated[
        Literal["file", "line", "paragraph"], typer.Option(help="What a text file's documents are.")
    ] = "file",
    shard_mib: Annotated[
        float | None, typer.Option(help="Size of a shard; 64 unless told.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a store that is there.")] = True,
    seed: Seed = 0,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Store the activations of a corpus; the same command goes on where it was stopped.

    On several GPUs: torchrun --nproc-per-node=N -m interp harvest ...
    """
    from interp.corpora import read
    from interp.harvesting.plan import Asked
    from interp.harvesting.verb import harvested
    from interp.harvesting.wanted import wanted

    loaded = load(model, seed, revision=revision, device=own_device(device), dtype=dtype)
    asked = Asked(
        store_dtype, context, tokens, batch or "auto", seed, packing, bos, special, shard_mib
    )
    text = read(corpus[0] if len(corpus) == 1 else corpus, field=field, split=split, seed=seed)
    made, tally = harvested(
        loaded,
        text,
        wanted(loaded, sites),
        asked,
        out,
        resume=resume,
        progress=False if json else None,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    if json:
        print_json(
            {**made.info(), "forwarded by rank": tally.forwarded, "rows by rank": tally.rows}
        )
    else:
        console.print(repr(made), highlight=False)


def own_device(device: str | None) -> str | None:
    """Under torchrun each process has a GPU of its own, where there are GPUs."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    if device is None and local is not None and torch.cuda.is_available():
        return f"cuda:{local}"
    return device


@store.command("info")
@guarded
def info(folder: Folder, json: Json = False) -> None:
    """Say what a store holds: sites, rows, model, corpus, layout."""
    from interp.store.store import ActivationStore

    facts = ActivationStore.open(folder).info()
    if json:
        print_json(facts)
    else:
        table(f"store {folder}", ["", ""], [(name, _told(value)) for name, value in facts.items()])


def _told(value: Any) -> str:
    """A value for people: numbers with separators, what is nested without its brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(part)}" for name, part in value.items())
    if isinstance(value, list) and value and isinstance(value[0], list):
        return ", ".join(" → ".join(map(str, pair)) for pair in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


@store.command("verify")
@guarded
def verify(folder: Folder, json: Json = False) -> None:
    """Read every byte of a store and say what is damaged, missing or foreign (exit code 1)."""
    from interp.store.verify import verify as check

    found = check(folder)
    problems = [(one.file, one.kind, one.detail) for one in found.problems]
    if json:
        print_json(
            {
                "ok": found.ok,
                "complete": found.complete,
                "shards": found.shards,
                "rows": found.rows,
                "bytes": found.bytes,
                "problems": [
                    dict(zip(("file", "kind", "detail"), p, strict=True)) for p in problems
                ],
            }
        )
    else:
        console.print(str(found), highlight=False)
    if not found.ok:
        raise typer.Exit(FAILED)
