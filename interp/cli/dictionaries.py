"""Commands around dictionaries: train, eval, features."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from interp.cli.activations import own_device
from interp.cli.options import Device, Dtype, Json, Plot, Revision, Save, Seed, draw, load
from interp.cli.output import console, guarded, notes, print_json

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
    model: Annotated[
        str | None, typer.Option(help="'demo' (unless told), 'random', a folder, a hub name.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Train on this activation store instead of a model.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="'demo' (unless told), or files and folders: .txt .jsonl .parquet ..."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; out/train unless told.")
    ] = None,
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
    resume: Annotated[
        bool | None,
        typer.Option("--resume/--no-resume", help="Go on with a run that is there, or refuse it."),
    ] = None,
    wandb: Annotated[str | None, typer.Option(help="A Weights & Biases project.")] = None,
    look: Annotated[
        bool | None,
        typer.Option("--look/--no-look", help="Evaluate, and write a page of features, or do not."),
    ] = None,
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
    from interp.cli.looking import look_at
    from interp.cli.settings import settled

    flags = {
        "site": site, "d_sae": d_sae, "k": k, "activation": activation, "sparsity": sparsity,
        "tokens": tokens, "batch": batch, "lr": lr, "seed": seed, "model": model, "store": store,
        "corpus": corpus, "out": out, "resume": resume, "wandb": wandb, "look": look,
        "revision": revision, "device": device, "dtype": dtype,
    }  # fmt: skip
    options = settled(config, flags, option or [], kind=kind.replace("-", "_"))
    start, looks, text = (
        options.get("seed", 0),
        options.pop("look", True),
        options.pop("corpus", None),
    )
    folder = Path(options.pop("out", "out/train"))
    options["device"] = own_device(options.get("device"))
    data, loaded = _data(options, looks, start)
    made = interp.train(
        loaded if data is None else data, corpus=(text or "demo") if data is None else None, out=folder,
        progress=False if json else None, **options,
    )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":
        return
    several = made if isinstance(made, dict) else {made.training_record.name: made}
    told = {name: one.training_record.summary() for name, one in several.items()}
    for name, one in several.items():
        draw(one.training_record, folder / name / "training")
        if not json:
            console.print(f"{name}: {folder / name}", highlight=False)
    if looks:
        if data is not None and text is None and data.manifest.corpus.get("kind") == "demo":
            text = "demo"
        texts = text or ("demo" if data is None else None)
        found = look_at(
            several, loaded, texts=texts, source=texts if data is None else data, folder=folder,
            seed=start + 1, quiet=json,
        )  # fmt: skip
        told = {name: {**told.get(name, {}), **one} for name, one in found.items()}
    if json:
        print_json(told)


def _data(options: dict[str, Any], looks: bool, seed: int) -> tuple[Any, Any]:
    """The store to train on, if one is given, and the model to train or to look with.

    Raises:
        TrainingError: a model of other weights than those whose activations are stored.
    """
    from interp.errors import TrainingError
    from interp.store.store import ActivationStore

    name, held = options.pop("model", None), options.pop("store", None)
    own = {one: options.pop(one, None) for one in ("revision", "dtype")}
    data = None if held is None else ActivationStore.open(held)
    if data is not None and not looks:
        return data, None
    name = name or ("demo" if data is None else data.manifest.model)
    loaded = load(name, seed, device=options["device"], **own)
    if data is not None and data.manifest.weights_hash != loaded.weights_hash:
        raise TrainingError(
            f"{str(held)!r} holds activations of {data.manifest.model!r}, and {name!r} has other weights: "
            "say which --model to evaluate in, or --no-look."
        )
    return data, loaded


@guarded
def evaluate(
    dictionary: Annotated[list[str], typer.Argument(help="Folders, or 'release/id'.")],
    model: Model = "demo",
    corpus: Corpus = ["demo"],  # noqa: B006
    tokens: Tokens = 16384,
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
    from interp.cli.looking import show_evaluation

    loaded = load(model, seed, revision=revision, device=device, dtype=dtype)
    these = [interp.load_dictionary(one, device=loaded.device) for one in dictionary]
    names = [Path(one).name for one in dictionary]
    if len(set(names)) < len(names):
        names = dictionary
    found = interp.evaluate(
        dict(zip(names, these, strict=True)) if len(set(names)) == len(names) else these, loaded,
        corpus[0] if len(corpus) == 1 else corpus, tokens=tokens, seed=seed,
        probing="demo" if probing else None, progress=False if json else None,
    )  # fmt: skip
    if save is not None:
        found.save(save)
    if json:
        print_json(found.to_frame().to_dict("records"))
    else:
        console.print(repr(found), highlight=False)
        show_evaluation(found)
    draw(found, plot)


@guarded
def features(
    dictionary: Source,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("features.html"),
    model: Model = "demo",
    corpus: Corpus = ["demo"],  # noqa: B006
    tokens: Tokens = 65536,
    which: Annotated[
        list[str] | None, typer.Option("--feature", help="Only these: 5, F5, L0.F5; may repeat.")
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Features at most, drawn from those that fire.")
    ] = 4096,
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
    from interp.cli.looking import shown

    out = out / "features.html" if out.is_dir() else out
    out.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written is better known now
    loaded = load(model, seed, revision=revision, device=device, dtype=dtype)
    made = interp.load_dictionary(dictionary, device=loaded.device)
    named = [int(one) if one.isdecimal() else one for one in which or ()]
    found = interp.features(
        made, loaded, corpus[0] if len(corpus) == 1 else corpus, which=named or shown(made, most),
        tokens=tokens, k=examples, seed=seed, progress=False if json else None,
    )  # fmt: skip
    page = found.dashboard(out)
    if save is not None:
        found.save(save)
    if json:
        print_json(found.to_frame().to_dict("records"))
    else:
        console.print(repr(found), highlight=False)
        notes.print(f"features: {page}", highlight=False)
