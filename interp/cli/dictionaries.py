"""Commands around dictionaries: train, eval, features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from interp.cli.activations import own_device
from interp.cli.options import Device, Dtype, Json, Plot, Revision, Save, Seed, draw, load
from interp.cli.output import console, frame_table, guarded, notes, print_json

__all__ = ["evaluate", "features", "train"]

KindName = Literal["sae", "transcoder", "skip-transcoder", "cross-layer-transcoder"]
Model = Annotated[str, typer.Option("--model", help="'demo', 'random', a folder, a hub name.")]
Corpus = Annotated[
    list[str], typer.Option(help="'demo', or files and folders: .txt .jsonl .parquet .npy ...")
]
Source = Annotated[str, typer.Argument(help="A folder, or 'release/id'.")]
Tokens = Annotated[int, typer.Option(min=1, help="Tokens to read.")]


@guarded
def train(
    kind: Annotated[KindName, typer.Argument(help="What to train.")],
    site: Annotated[
        list[str] | None, typer.Option(help="'L0.mlp', 'L3.resid_post', 'L*.mlp'; may repeat.")
    ] = None,
    model: Model = "demo",
    store: Annotated[
        Path | None, typer.Option(help="Train on this activation store instead of a model.")
    ] = None,
    corpus: Corpus = ["demo"],  # noqa: B006
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("out/train"),
    d_sae: Annotated[list[int] | None, typer.Option(help="Features; may repeat.")] = None,
    k: Annotated[list[int] | None, typer.Option(help="Active features; may repeat.")] = None,
    activation: Annotated[
        str | None, typer.Option(help="topk batchtopk matryoshka relu gated jumprelu.")
    ] = None,
    sparsity: Annotated[
        list[float] | None, typer.Option(help="Penalty of relu, gated, jumprelu; may repeat.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Rows to train on.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows of a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A .toml or .yaml file of options; flags go before it.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="Any other option: --set auxk=0; may repeat.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run that is there.")] = True,
    wandb: Annotated[str | None, typer.Option(help="A Weights & Biases project.")] = None,
    look: Annotated[
        bool, typer.Option("--look/--no-look", help="Evaluate, and write a page of features.")
    ] = True,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything drawn at random; 0 unless told.")
    ] = None,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Train SAEs or transcoders; the same command goes on where it was stopped.

    Leaves under OUT a folder for each dictionary in SAELens's format, the log, and checkpoints. Listed
    values make several dictionaries in one pass. On several GPUs: torchrun -m interp train ...
    """
    import interp
    from interp.cli.settings import settled
    from interp.store.store import ActivationStore

    flags = {
        "site": site, "d_sae": d_sae, "k": k, "activation": activation, "sparsity": sparsity,
        "tokens": tokens, "batch": batch, "lr": lr, "seed": seed,
    }  # fmt: skip
    options = settled(config, flags, option or [], kind=kind.replace("-", "_"))
    place = own_device(device)
    loaded: Any = None
    if store is None or look:
        loaded = load(model, seed or 0, revision=revision, device=place, dtype=dtype)
    text: Any = corpus[0] if len(corpus) == 1 else corpus
    made = interp.train(
        loaded if store is None else ActivationStore.open(store),
        corpus=text if store is None else None,
        out=out, resume=resume, wandb=wandb, device=place, progress=False if json else None, **options,
    )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":
        return
    several = made if isinstance(made, dict) else {made.training_record.name: made}
    told = {name: one.training_record.summary() for name, one in several.items()}
    for name, one in several.items():
        draw(one.training_record, out / name / "training")
        if look:
            told[name] |= _looked_at(one, loaded, text, out / name, quiet=json)
    if json:
        print_json(told)
    else:
        for name in several:
            console.print(f"{name}: {out / name}", highlight=False)


def _looked_at(
    dictionary: Any, model: Any, corpus: Any, folder: Path, *, quiet: bool
) -> dict[str, Any]:
    """An evaluation beside its controls, and a page of features, in the dictionary's folder."""
    import interp

    progress = False if quiet else None
    found = interp.evaluate(dictionary, model, corpus, progress=progress)
    found.save(folder / "evaluation.safetensors")
    draw(found, folder / "evaluation")
    seen = interp.features(dictionary, model, corpus, progress=progress)
    page = seen.dashboard(folder / "features.html")
    if not quiet:
        frame_table(f"{folder.name}", found.to_frame())
        notes.print(f"features: {page}", highlight=False)
    return {"evaluation": found.to_frame().to_dict("records"), "features": str(page)}


@guarded
def evaluate(
    dictionary: Annotated[list[str], typer.Argument(help="Folders, or 'release/id'.")],
    model: Model = "demo",
    corpus: Corpus = ["demo"],  # noqa: B006
    tokens: Tokens = 65536,
    probing: Annotated[bool, typer.Option("--probing", help="Sparse probing too.")] = False,
    seed: Seed = 0,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Save = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Say what dictionaries are worth: error, sparsity, the loss they keep; beside null controls.

    Several are scored alone, and all spliced in at once.
    """
    import interp

    loaded = load(model, seed, revision=revision, device=device, dtype=dtype)
    these = [interp.load_dictionary(one, device=loaded.device) for one in dictionary]
    found = interp.evaluate(
        these if len(these) > 1 else these[0], loaded, corpus[0] if len(corpus) == 1 else corpus,
        tokens=tokens, seed=seed, probing="demo" if probing else None,
        progress=False if json else None,
    )  # fmt: skip
    if save is not None:
        found.save(save)
    if json:
        print_json(found.to_frame().to_dict("records"))
    else:
        console.print(repr(found), highlight=False)
        frame_table("evaluation", found.to_frame())
    draw(found, plot)


@guarded
def features(
    dictionary: Source,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("features.html"),
    model: Model = "demo",
    corpus: Corpus = ["demo"],  # noqa: B006
    tokens: Tokens = 65536,
    which: Annotated[
        list[int] | None, typer.Option("--feature", help="Only these; may repeat.")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="Strongest examples of each.")] = 20,
    seed: Seed = 0,
    revision: Revision = None,
    device: Device = None,
    dtype: Dtype = None,
    save: Save = None,
    json: Json = False,
) -> None:
    """Write a page of features: where they are active, what they read and write."""
    import interp

    loaded = load(model, seed, revision=revision, device=device, dtype=dtype)
    found = interp.features(
        interp.load_dictionary(dictionary, device=loaded.device), loaded,
        corpus[0] if len(corpus) == 1 else corpus,
        which=which, tokens=tokens, k=examples, seed=seed, progress=False if json else None,
    )  # fmt: skip
    page = found.dashboard(out)
    if save is not None:
        found.save(save)
    if json:
        print_json(found.to_frame().to_dict("records"))
    else:
        console.print(repr(found), highlight=False)
        notes.print(f"features: {page}", highlight=False)
