"""``interp.evaluate``: is this dictionary any good, and would one that knows nothing score the same?

1. Split the corpus by documents: texts that are scored, others for means and thresholds.
2. Run each batch as it is: what does the dictionary make of what the model holds (FVU, L0, ...)?
3. Run it with the dictionary spliced in, with zeros and with the mean in the place of what it writes:
   how much of the loss is kept?
4. Do all of it where there is nothing to find: outputs permuted over tokens, the model's random twin,
   a dictionary of random directions with as many active features.

Several dictionaries are measured alone and all spliced in together, as Dunefsky et al. 2024
(arXiv:2406.11944) do with all MLPs at once: errors of one layer are what the next one reads.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from interp.corpora.packing import Packing
from interp.corpora.reading import read
from interp.dictionaries.dictionary import Dictionary
from interp.errors import BudgetError, DictionaryError, SiteError, warn
from interp.evaluation.assembling import assemble
from interp.evaluation.measuring import Aside, Subject, Unit, look_aside, run_batch, runs_of
from interp.evaluation.probing import Tasks, sparse_probing
from interp.evaluation.probing_result import SparseProbing
from interp.evaluation.result import TOGETHER, Evaluation
from interp.evaluation.spliced import Placed
from interp.evaluation.table import Table
from interp.evaluation.texts import Texts
from interp.harvesting.plan import Asked, PackingName, settled_packing
from interp.harvesting.wanted import wanted
from interp.models.model import Model
from interp.progress import Bar, announce
from interp.results import Provenance
from interp.runs.execute import execute
from interp.runs.memory import as_text, available, needs
from interp.sites import Site

__all__ = ["Dictionaries", "evaluate", "place"]

Dictionaries = Dictionary | Sequence[Dictionary] | Mapping[str, Dictionary]


def evaluate(
    dictionary: Dictionaries,
    model: Model,
    corpus: Any = "demo",
    *,
    tokens: int | None = 16_384,
    context: int = 128,
    batch: int | Literal["auto"] = "auto",
    seed: int = 0,
    controls: bool = True,
    probing: Tasks | Literal["demo"] | None = None,
    packing: PackingName = "auto",
    bos: bool | None = None,
    special: bool = False,
    field: str = "text",
    progress: bool | None = None,
) -> Evaluation:
    """Measure dictionaries in a model: reconstruction, sparsity, the loss they keep; and null controls.

    Special tokens (BOS, EOS, padding) are treated alike everywhere: they are not scored, not replaced by
    a dictionary or an ablation, and do not count into means. A prediction counts at every scored token
    that has a next one in its text. Ctrl-C gives what the batches so far say.

    >>> found = interp.evaluate(transcoder, model, "demo", tokens=20_000)          # doctest: +SKIP
    >>> found.value("fvu"), found.value("fvu", of="permuted")                      # doctest: +SKIP
    >>> found.to_frame()                                                           # doctest: +SKIP

    Args:
        dictionary: one; several (a list, or a mapping from the names they are to have), which are
            also spliced in together if they write to different sites.
        corpus: as :func:`interp.harvest` takes it. One document in five is set aside for the means
            of mean ablation, so two are needed at least.
        tokens: scored tokens; None for all the corpus has. A frequency of 10⁻⁴ needs 10⁴.
        context: longest stretch of text that a token can look back on, BOS included.
        batch: rows of ``context`` tokens at a time. Values do not depend on it; the permuted control
            does, since outputs are permuted within a batch.
        seed: of the controls and of a generated corpus.
        controls: also measure the null controls; about three times the work.
        probing: sparse probing of each dictionary: ``"demo"``, or ``{"task": (texts, labels)}``;
            see :func:`interp.evaluation.probing.sparse_probing`.
        packing: how texts share rows, as in :func:`interp.harvest`.
        bos: None puts a BOS before each text if the tokenizer has one.
        special: score, replace and average special tokens like all others.
        field: which field of JSON records and datasets holds the text.
        progress: None shows a bar to a person, True always; False is silent.

    Raises:
        DictionaryError: none, or one that does not fit this model.
        SiteError: a site that the model lacks.
        CorpusError: a corpus that cannot be read, or too short to be split.
        BudgetError: a single row does not fit in memory.
    """
    placed = place(model, dictionary)
    asked = Asked("float32", context, tokens, batch, seed, packing, bos, special, None)
    text = read(corpus, field=field, seed=asked.seed)
    how, notes = _packing(model, placed, asked)
    if not special:
        notes = (*notes, "special tokens (BOS, EOS, padding) are neither scored nor replaced")
    texts = Texts.of(text, model, how, asked.tokens)
    units, left_out = _units(placed)
    subjects = _subjects(model, placed, texts, controls=controls, seed=asked.seed)
    work = runs_of(subjects, units)
    told = (*notes, *left_out, *_strangers(model, placed), *_seen(placed, text.identity))
    if progress is not False:
        _say(model, placed, texts, text.name, work)
        _note(told)
    table = _measured(subjects, units, texts, work, asked.seed, progress)
    provenance = Provenance.of(
        model, seed=asked.seed, verb="evaluate", dictionaries=[one.dictionary.hash for one in placed],
        names=[one.name for one in placed], corpus=dict(text.identity), tokens=asked.tokens,
        context=context, rows=how.rows, packing=how.way, bos=bos, special=special,
        controls=controls,
    )  # fmt: skip
    found = assemble(
        table, subjects, units, placed, told, replace(provenance, prompts_hash=texts.hash)
    )
    if progress is not False:
        _note(found.notes[len(told) :])
    if probing is None:
        return found
    return replace(
        found, probing=_probed(placed, model, probing, asked.seed, controls, context, bos, progress)
    )


def _probed(
    placed: Sequence[Placed], model: Model, tasks: Tasks | Literal["demo"], seed: int,
    controls: bool, context: int, bos: bool | None, progress: bool | None,
) -> SparseProbing:  # fmt: skip
    return sparse_probing(
        {one.name: one.dictionary for one in placed}, model, tasks, seed=seed, controls=controls,
        context=context, bos=bos, progress=progress,
    )  # fmt: skip


def place(model: Model, dictionary: Dictionaries) -> tuple[Placed, ...]:
    """Dictionaries at their sites in a model, each with a name of its own.

    Raises:
        DictionaryError: none, something else, or one that does not fit.
        SiteError: a site that the model lacks.
    """
    if isinstance(dictionary, Dictionary):
        dictionary = [dictionary]
    named = isinstance(dictionary, Mapping)
    items: list[tuple[str, Any]] = (
        [(str(name), one) for name, one in dictionary.items()]  # type: ignore[union-attr]
        if named
        else [("", one) for one in dictionary]
        if isinstance(dictionary, list | tuple)
        else [("", dictionary)]
    )
    if model.anatomy.splices:
        raise DictionaryError(
            f"{model.name!r} has dictionaries in place: evaluate outside of model.replaced(...), and give "
            "those that are to be measured together in one list."
        )
    if not items:
        raise DictionaryError(
            "no dictionary was given; expected one, a list, or a mapping of them."
        )
    out: list[Placed] = []
    for name, one in items:
        if not isinstance(one, Dictionary):
            raise DictionaryError(
                f"a {type(one).__name__} is no dictionary: expected an interp Dictionary, a list or a "
                "mapping of them. Load others with interp.load_dictionary(...)."
            )
        if named:
            _check_place(name, one)
        out.append(Placed.of(model, one, _unused(name or one.spec.name, out)))
    return tuple(out)


def _unused(name: str, others: Sequence[Placed]) -> str:
    taken, plain, n = {one.name for one in others} | {TOGETHER}, name, 2
    while name in taken:
        name, n = f"{plain} ({n})", n + 1
    return name


def _check_place(name: str, one: Dictionary) -> None:
    """A name that is a site must be the dictionary's own, else a reader is misled."""
    spec = one.spec
    try:
        site = str(Site.parse(name))
    except SiteError:
        return
    if site not in (*spec.features, *spec.reads, *spec.writes):
        raise DictionaryError(
            f"{name!r} names another site than this dictionary's, {spec.features[0]!r}: it is "
            "measured where it was made for. Give it that name, or one that is no site."
        )


def _packing(
    model: Model, placed: Sequence[Placed], asked: Asked
) -> tuple[Packing, tuple[str, ...]]:
    """How texts share rows, with no more rows than two tensors of logits leave room for."""
    sites = wanted(model, [s for one in placed for s in (*one.reads, *one.writes)])
    how, notes = settled_packing(model, sites, asked)
    if asked.batch != "auto":
        return how, notes
    kept, work = needs(
        model.anatomy, rows=1, width=how.context, save=sites.sites, logit_positions=how.context,
        d_vocab=model.d_vocab, grad=False,
    )  # fmt: skip
    each, free = 2 * kept + work, available(model.device)
    if each > free:
        raise BudgetError(
            f"a row of {how.context} tokens with two tensors of logits needs {as_text(each)}, but "
            f"{as_text(free)} are free: give a shorter context."
        )
    return replace(how, rows=max(1, min(how.rows, free // each))), notes


def _units(placed: Sequence[Placed]) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    """Each dictionary alone, and all together where that can be."""
    units = tuple(Unit(one.name, (i,)) for i, one in enumerate(placed))
    writes = [site for one in placed for site in one.writes]
    if len(placed) == 1:
        return units, ()
    if len(set(writes)) < len(writes):
        return units, ("not spliced in together: several dictionaries write to one site",)
    return (*units, Unit(TOGETHER, tuple(range(len(placed))))), ()


def _subjects(
    model: Model, placed: Sequence[Placed], texts: Texts, *, controls: bool, seed: int
) -> tuple[Subject, ...]:
    aside = look_aside(model, placed, texts.aside)
    own = Subject.of(model, placed, aside, controls=controls, seed=seed)
    if not controls:
        return (own,)
    twin = model.random_twin(seed, check=False)
    other = look_aside(twin, placed, texts.aside)
    return own, Subject(twin, Aside(other.means, {}), {"random_model": tuple(placed)})


def _measured(
    subjects: Sequence[Subject], units: Sequence[Unit], texts: Texts, work: int, seed: int,
    progress: bool | None,
) -> Table:  # fmt: skip
    table, whole = Table(len(texts.documents)), 0
    total = len(texts.scored) * work
    try:
        with Bar(total=total, what="evaluate", show=progress, least=100) as bar:
            for number, batch in enumerate(texts.scored):
                one = Table(table.texts, tokens=batch.n_kept)
                for subject in subjects:
                    run_batch(
                        subject, units, batch, texts.numbers(batch), one,
                        change=seed * 1_000_003 + number, done=bar.advance,
                    )  # fmt: skip
                table.merge(one)
                whole += 1
    except KeyboardInterrupt:
        if not whole:
            raise
        warn(f"interrupted: this evaluation is of the first {table.tokens:,} tokens.")
    return table


def _say(
    model: Model, placed: Sequence[Placed], texts: Texts, corpus: str, work: int
) -> None:  # fmt: skip
    """What it will take, from one batch run for the clock."""
    batch = texts.scored[0].tokens.to(model.device)
    start = time.perf_counter()
    execute(model.anatomy, batch, rows_at_once=len(batch)).logits.flatten()[-1].item()
    seconds = (time.perf_counter() - start) * work * len(texts.scored)
    what = placed[0].name if len(placed) == 1 else f"{len(placed)} dictionaries"
    announce(
        f"evaluate {what} in {model.name!r} on {corpus}: {texts.n_tokens:,} tokens of "
        f"{len(texts.documents):,} texts, {len(texts.scored)} batches × {work} runs, about "
        f"{max(1, round(seconds))} s"
    )


def _note(notes: Sequence[str]) -> None:
    for note in notes:
        announce(f"note: {note}")


def _strangers(model: Model, placed: Sequence[Placed]) -> tuple[str, ...]:
    """Dictionaries that were trained on other weights."""
    names = [
        one.name
        for one in placed
        if one.dictionary.spec.weights_hash not in (None, model.weights_hash)
    ]
    return (f"trained on other weights than these: {', '.join(names)}",) if names else ()


def _seen(placed: Sequence[Placed], corpus: Mapping[str, Any]) -> tuple[str, ...]:
    """Dictionaries that were trained on this corpus."""
    names = [
        one.name for one in placed if one.dictionary.spec.metadata.get("corpus") == dict(corpus)
    ]
    if not names:
        return ()
    return (
        f"scored on the corpus they were trained on, not on held-out texts: {', '.join(names)}",
    )
