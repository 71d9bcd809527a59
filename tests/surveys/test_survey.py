"""One pass for several questions: same results, one reading of the source, whole when interrupted."""

import sys

import pytest
import torch

import interp
from interp.errors import RunError, SiteError
from interp.progress import Bar
from interp.surveys import (
    Correlate,
    Histogram,
    Mean,
    Plan,
    Source,
    Top,
    means,
    survey,
    top_examples,
)
from interp.surveys.source import expand
from tests.surveys.rows import Cut, synthetic

PLANS = [Mean(), Top("L0.mlp_post", k=3, sampled=2), Histogram("L0.z"),
         Correlate("L0.mlp_post", "L1.mlp_post", shift=20)]  # fmt: skip


def tensors(result):
    return {name: value for name, value in vars(result).items() if isinstance(value, torch.Tensor)}


def same(first, second):
    assert tensors(first).keys() == tensors(second).keys()
    for name, value in tensors(first).items():
        assert torch.allclose(value.double(), tensors(second)[name].double(), atol=1e-9, equal_nan=True), name  # fmt: skip


def test_one_pass_gives_what_each_alone_gives():
    source = Cut(synthetic(), (64,))
    together = survey(source, PLANS)
    for plan, result in zip(PLANS, together, strict=True):
        (alone,) = survey(source, [plan])
        assert type(alone) is type(result)
        same(alone, result)
        assert alone.provenance == result.provenance


def test_a_source_is_read_once_and_only_the_sites_asked_for():
    class Store:
        sites = synthetic(1).sites
        asked = ()

        def batches(self, size, *, shuffle="rows", sites=None):
            self.asked += ((shuffle, sites),)
            yield synthetic(50)

    store = Store()
    survey(store, [Mean("L0.z"), Top("L0.mlp_post")])
    assert store.asked == ((None, ("L0.z", "L0.mlp_post")),)
    assert isinstance(store, Source)
    assert all(hasattr(plan, name) for plan in PLANS for name in ("on", "update", "result"))
    assert Plan is not None


def test_an_interrupted_pass_is_whole_up_to_there():
    rows = synthetic()
    with pytest.warns(UserWarning, match="this survey is of the first 192 tokens"):
        stopped = survey(Cut(rows, (64,), stop_after=3), PLANS)
    whole = survey(Cut(rows.take(slice(0, 192)), (64,)), PLANS)
    for first, second in zip(stopped, whole, strict=True):
        same(first, second)
        assert first.provenance == second.provenance
    assert all(result.n_tokens == 192 for result in stopped)
    with pytest.raises(KeyboardInterrupt):  # nothing was read: there is no result
        survey(Cut(rows, (64,), stop_after=0), PLANS)


def test_an_interrupt_in_the_middle_of_a_chunk_drops_that_chunk():
    seen = []

    def turn(x):
        seen.append(len(x))
        if len(seen) == 4:
            raise KeyboardInterrupt
        return x

    plans = [Mean("L0.mlp_post"), Top("L0.mlp_post", k=2, transform=turn)]
    with pytest.warns(UserWarning, match="first 128 tokens"):
        mean, top = survey(Cut(synthetic(), (64,)), plans)
    assert (mean.n_tokens, top.n_tokens) == (128, 128)


def test_as_many_tokens_as_asked_for():
    rows = synthetic()
    for lengths in ((64,), (100,), (4096,)):
        found = means(Cut(rows, lengths), tokens=100)
        assert found.n_tokens == 100
        same(found, means(rows.take(slice(0, 100))))


def test_rows_and_lists_of_rows_are_sources():
    rows = synthetic()
    parts = [rows.take(slice(0, 300)), rows.take(slice(300, None))]
    for source in (rows, parts, iter(parts)):
        same(means(source), means(Cut(rows)))


def test_the_tokens_that_were_read_are_on_record():
    rows = synthetic()
    one, two = means(Cut(rows, (64,))), means(Cut(rows, (9,)))
    assert one.provenance.prompts_hash == two.provenance.prompts_hash
    rows.tokens[600] += 1
    assert means(rows).provenance.prompts_hash != one.provenance.prompts_hash
    assert means(rows, tokens=600).provenance.prompts_hash == means(synthetic(), tokens=600).provenance.prompts_hash  # fmt: skip
    assert one.provenance.call == {"verb": "means", "sites": list(rows.sites), "by_position": None, "tokens": 700}  # fmt: skip
    assert one.provenance.model == ""  # bare rows do not say


def test_patterns_are_spelled_out_by_what_the_source_has():
    have = ("L0.z", "L2.z", "L10.z", "L2.mlp.input", "embed")
    assert expand("L*.z", have) == ("L0.z", "L2.z", "L10.z")
    assert expand("L2,10.z", have) == ("L2.z", "L10.z")
    assert expand(["embed", "L2.mlp.input", "embed"], have) == ("embed", "L2.mlp.input")
    assert expand("blocks.2.attn.hook_z", have) == ("L2.z",)
    assert expand(None, have) == have
    with pytest.raises(SiteError, match=r"this source has no 'L0-2.z'; it has L0.z, L2.z"):
        expand("L0-2.z", have)
    with pytest.raises(SiteError, match="counts layers from the end"):
        expand("L-1.z", have)


def test_a_store_gives_what_the_stream_gives(tmp_path):
    model = interp.load("demo")
    corpus, sites = interp.corpora.demo(40, seed=2), ["L1.mlp_post", "L1.z"]
    options = {"tokens": 1500, "dtype": "float32"}
    store = interp.harvest(model, corpus, sites, tmp_path / "store", progress=False, **options)
    stream = interp.stream(model, corpus, sites, **options)
    plans = [Mean(), Top("L1.mlp_post", k=3), Histogram("L1.z", of="norm", units="all")]
    first, second = survey(store, plans, size=400), survey(stream, plans, size=512)
    for one, two in zip(first, second, strict=True):
        for name, value in tensors(one).items():
            assert torch.allclose(value.double(), tensors(two)[name].double(), atol=1e-4, equal_nan=True)  # fmt: skip
        assert one.provenance.weights_hash == two.provenance.weights_hash == model.weights_hash
        assert one.provenance.prompts_hash == two.provenance.prompts_hash
        assert one.provenance.call["corpus"] == two.provenance.call["corpus"]
    assert first[0].provenance.model == "demo"
    # A store knows no tokenizer: the text comes with the model.
    found = top_examples(store, "L1.mlp_post", 2, units=[3], model=model)
    rows = store.at(int(found.document[0, 0]), int(found.position[0, 0]))
    assert float(rows["L1.mlp_post"].flatten()[3]) == float(found.value[0, 0])
    assert "⟦" in found.show(3)


def test_a_pass_of_unknown_length_shows_a_bar_too(monkeypatch):
    totals = []

    class Told(Bar):
        def __init__(self, *, total, **options):
            totals.append(total)
            super().__init__(total=total, **options)

    monkeypatch.setattr(sys.modules["interp.surveys.survey"], "Bar", Told)
    means(iter([synthetic(60)]))
    means(Cut(synthetic(60)), tokens=20)
    assert totals == [None, 20]


@pytest.mark.bad_input
def test_what_is_refused():
    rows = synthetic(50)
    with pytest.raises(RunError, match="expected a source of activations"):
        means(3)
    with pytest.raises(RunError, match="an iterable of int"):
        means([1, 2])
    with pytest.raises(RunError, match="an iterable without rows"):
        means([])
    with pytest.raises(RunError, match="no rows: nothing was surveyed"):
        means(rows.take(slice(0, 0)))
    with pytest.raises(RunError, match="expected a list of plans"):
        survey(rows, [])
    with pytest.raises(RunError, match=r"size=0, tokens=None"):
        means(rows, size=0)
    with pytest.raises(RunError, match=r"size=4096, tokens=9.5"):
        means(rows, tokens=9.5)
    rows["L0.z"][7, 1, 2] = torch.inf
    where = f"document {int(rows.document[7])} at position {int(rows.position[7])}"
    with pytest.raises(RunError, match=f"L0.z has NaN or infinite numbers in {where}"):
        means(rows)
    means(rows, "L0.mlp_post")  # a site that nobody asks for may hold anything
