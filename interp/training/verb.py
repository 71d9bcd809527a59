"""``interp.train``: SAEs and transcoders, one or several in one pass over the data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from interp.dictionaries.dictionary import Dictionary
from interp.errors import StoreError, TrainingError
from interp.harvesting.ranks import Ranks
from interp.harvesting.stream import ActivationStream, stream
from interp.models.model import Model
from interp.progress import announce
from interp.results import Provenance, versions
from interp.store.files import make_folder
from interp.store.lock import acquire, release
from interp.store.store import ActivationStore
from interp.training.asking import configurations, names_of
from interp.training.checkpoints import Checkpoints, Policy
from interp.training.config import TrainConfig
from interp.training.disk import telling
from interp.training.feed import Feed
from interp.training.forecast import forecast
from interp.training.logs import LOG, RunLog
from interp.training.parallel import Together
from interp.training.places import asked_of, specified
from interp.training.reading import how_read
from interp.training.record import TrainingRecord
from interp.training.run import Loop
from interp.training.trainee import Trainee

__all__ = ["train"]

#: Rows, and batches, from which scales and starting points are taken at most.
_SAMPLE, _BATCHES = 32768, 512


def train(
    source: Model | ActivationStore | ActivationStream,
    *,
    config: TrainConfig | Sequence[TrainConfig] | None = None,
    corpus: Any = None,
    out: str | Path | None = None,
    resume: bool = True,
    checkpoint_every: int | None = 1000,
    keep: int = 2,
    milestones: int | None = None,
    tensorboard: bool | None = None,
    wandb: str | None = None,
    device: str | torch.device | None = None,
    context: int = 128,
    buffer: int = 65536,
    progress: bool | None = None,
    **options: Any,
) -> Dictionary | dict[str, Dictionary]:
    """Train a dictionary, or several in one pass over the data.

    >>> tc = interp.train(model, corpus="demo", kind="transcoder", site="L0.mlp",   # doctest: +SKIP
    ...                   d_sae=1024, k=16, out="runs/L0")
    >>> saes = interp.train(store, site="L3.resid_post", d_sae=[4096, 16384],       # doctest: +SKIP
    ...                     k=[32, 64])

    The same call goes on where an earlier one was stopped, to the same bits (on the same machine,
    versions and number of threads). Under ``torchrun`` the ranks share each batch. What it will take
    is said on standard error before it starts.

    Args:
        source: an ActivationStore, an ``interp.stream(...)``, or a model, which is then run as rows are
            asked for.
        config: how to train, as a whole; or give its fields as ``options``.
        corpus: for a model: what it reads, as :func:`interp.harvest` takes it.
        out: folder for checkpoints, the log and the finished dictionaries (a folder for each in
            SAELens's format). None leaves nothing on disk.
        resume: False refuses a folder that already holds a run.
        checkpoint_every: steps between checkpoints; None: at the end only.
        keep: how many of the newest checkpoints stay.
        milestones: checkpoints at multiples of so many steps stay for good.
        tensorboard: write ``out/tensorboard``; None: if ``out`` is given.
        wandb: a Weights & Biases project to log to.
        device: where to train; None: where the model is, or the CPU.
        context: for a model: longest stretch of text that a token can look back on.
        buffer: for a model: rows that are shuffled among each other.
        progress: None shows a bar to a person, True always; False is silent.
        options: fields of :class:`TrainConfig`: ``site kind d_sae activation k sparsity tokens batch lr
            seed ...``. A list stands for several dictionaries, every combination of lists.

    Returns:
        The dictionary, in the model's own units, with its ``training_record``; of several, a dict by name.

    Raises:
        TrainingError: options that do not fit; a folder of another run, or in which one is under way; a
            damaged checkpoint, by name; a gradient that is not finite.
        SiteError, CorpusError, StoreError: the data cannot be had.
        BudgetError: it does not fit in memory.
    """
    configs = configurations(config, options)
    names = names_of(configs)
    together = Together(Ranks.current())
    show = progress is not False and together.ranks.lead
    data = _data(source, configs, corpus, context, buffer)
    told = _origin(data)
    about = {**how_read(data), "corpus": _corpus(data)}
    specs = [specified(c, data.sites, metadata=about, **told) for c in configs]
    sites = list(dict.fromkeys(site for spec in specs for site in (*spec.reads, *spec.writes)))
    where = device or (data.model.device if isinstance(data, ActivationStream) else "cpu")
    folder = None if out is None else Path(out)
    checkpoints = _checkpoints(folder, checkpoint_every, keep, milestones, configs, names, told)
    with ExitStack() as stack:
        if folder is not None and together.ranks.lead:
            stack.callback(release, _locked(folder))
        newest = None if checkpoints is None else checkpoints.newest()
        if folder is not None:
            _check_room(folder, names, resume=resume, begun=newest is not None)
        feed = Feed(
            data,
            sites,
            batch=configs[0].batch,
            seed=configs[0].seed,
            device=where,
            together=together,
        )
        stack.callback(feed.close)
        start, filled = time.perf_counter(), getattr(data, "buffer", 0)
        rows = min(_SAMPLE, _rows(data)) // configs[0].batch
        sample = feed.sample(max(1, min(rows, _BATCHES)))
        reading = (time.perf_counter() - start) / (len(sample) + filled / configs[0].batch)
        trainees = [
            Trainee(name, one, spec, sample, together)
            for name, one, spec in zip(names, configs, specs, strict=True)
        ]
        del sample
        log = RunLog(
            folder if together.ranks.lead else None,
            tensorboard=_wants_tensorboard(tensorboard, folder) and together.ranks.lead,
            wandb=wandb if together.ranks.lead else None,
            resume_step=None if newest is None else newest.step,
            config={name: one.to_json() for name, one in zip(names, configs, strict=True)},
        )
        stack.enter_context(log)
        loop = Loop(trainees, feed, checkpoints, log, together)
        if newest is not None:
            loop.restore(newest)
        if show:
            rows = configs[0].batch // together.ranks.world
            left = configs[0].steps - loop.done
            on = f", going on after step {loop.done:,}" if loop.done else ""
            cost = forecast(trainees, steps=left, rows=rows, reading=reading)
            announce(f"train {', '.join(names)} on {_described(data)}{on}: {cost}")
        loop.run(show=progress)
        made = {t.name: _finished(t, loop, told, data) for t in trainees}
        if folder is not None and together.ranks.lead:
            for name, dictionary in made.items():
                dictionary.save(folder / name, overwrite=True)
                dictionary.training_record.save(folder / name / "record.safetensors")
    together.ranks.together()
    return next(iter(made.values())) if len(made) == 1 else made


def _data(
    source: Any, configs: Sequence[TrainConfig], corpus: Any, context: int, buffer: int
) -> ActivationStore | ActivationStream:
    if isinstance(source, ActivationStore | ActivationStream):
        if corpus is not None:
            raise TrainingError("corpus= beside stored activations, which have one: leave it out.")
        return source
    if not isinstance(source, Model):
        raise TrainingError(
            f"source={type(source).__name__}; expected a model, an ActivationStore or interp.stream(...)."
        )
    if corpus is None:
        raise TrainingError(
            "a model has no data of its own: say corpus= ('demo', files, texts, a dataset)."
        )
    sites = list(dict.fromkeys(site for one in configs for site in asked_of(one)))
    buffer = max(buffer, 4 * configs[0].batch)
    return stream(
        source, corpus, sites, dtype="float32", context=context, buffer=buffer, seed=configs[0].seed
    )


def _origin(data: ActivationStore | ActivationStream) -> dict[str, str]:
    if isinstance(data, ActivationStore):
        return {"model": data.manifest.model, "weights_hash": data.manifest.weights_hash}
    return {"model": data.model.name, "weights_hash": data.model.weights_hash}


def _corpus(data: ActivationStore | ActivationStream) -> dict[str, Any]:
    return dict(data.manifest.corpus if isinstance(data, ActivationStore) else data.corpus.identity)


def _described(data: ActivationStore | ActivationStream) -> str:
    if isinstance(data, ActivationStore):
        return f"{len(data):,} rows in {str(data.folder)!r}"
    return f"{data.model.name!r} reading {data.corpus.name}"


def _checkpoints(
    folder: Path | None, every: int | None, keep: int, milestones: int | None,
    configs: Sequence[TrainConfig], names: Sequence[str], told: Mapping[str, str],
) -> Checkpoints | None:  # fmt: skip
    policy = Policy(every=every, keep=keep, milestones=milestones)
    if folder is None:
        return None
    asked = {name: one.to_json() for name, one in zip(names, configs, strict=True)}
    for one in asked.values():
        del one["log_every"]  # changes nothing of what is trained
    return Checkpoints(folder / "checkpoints", policy, {"dictionaries": asked, **told})


def _locked(folder: Path) -> FileLock:
    """The run's folder, for this process alone."""
    with telling(folder):
        make_folder(folder)
    try:
        return acquire(folder, to="train")
    except StoreError as error:
        raise TrainingError(str(error)) from error


def _check_room(folder: Path, names: Sequence[str], *, resume: bool, begun: bool) -> None:
    """That nothing finished is overwritten by a run that starts anew."""
    if not resume and (begun or (folder / LOG).exists()):
        raise TrainingError(
            f"{str(folder)!r} holds a run already, and resume=False: choose another."
        )
    for name in names:
        if not begun and (folder / name).exists():
            raise TrainingError(
                f"{str(folder / name)!r} is there, and no checkpoint to go on from: choose another "
                "folder, or remove it to train it anew."
            )


def _rows(data: ActivationStore | ActivationStream) -> int:
    return len(data) if isinstance(data, ActivationStore) else _SAMPLE


def _wants_tensorboard(asked: bool | None, folder: Path | None) -> bool:
    if asked is None:
        return folder is not None
    if asked and folder is None:
        raise TrainingError("tensorboard=True without out=: there is no folder to write to.")
    return asked


def _finished(
    trainee: Trainee, loop: Loop, told: Mapping[str, str], data: ActivationStore | ActivationStream
) -> Dictionary:
    metadata = {"training": trainee.config.to_json(), "versions": versions()}
    dictionary = trainee.finished(metadata)
    provenance = Provenance(
        call={"verb": "train", "corpus": _corpus(data), **trainee.config.to_json()},
        prompts_hash=None, seed=trainee.config.seed, versions=versions(), **told,
    )  # fmt: skip
    dictionary.training_record = TrainingRecord.of(
        trainee.name,
        trainee.config.to_json(),
        loop.log.rows,
        trainee.firing,
        loop.seconds,
        provenance,
    )
    return dictionary
