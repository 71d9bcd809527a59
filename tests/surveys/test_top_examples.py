"""Top examples are what one sort of all activations would give, however the rows are cut."""

import re

import matplotlib.image
import pytest
import torch

import interp
from interp.errors import BudgetError, ResultError, RunError, SiteError
from interp.prompts import facts
from interp.store.rows import Rows
from interp.surveys import TopExamples, kept, top_examples
from interp.surveys import top as top_module
from interp.surveys.top import Top, _lots
from tests import tiny
from tests.surveys.rows import CUTS, Cut, synthetic
from tests.views.browser import needs_browser, screenshot


def by_hand(x, document, k, *, per_document):
    """Rows of each unit, best first, the first among equals; at most one of each document."""
    out = []
    for column in x.T:
        order = sorted(range(len(column)), key=lambda i: (-float(column[i]), i))
        taken, seen = [], set()
        for row in order:
            if per_document and int(document[row]) in seen:
                continue
            seen.add(int(document[row]))
            taken.append(row)
        out.append(taken[:k])
    return torch.tensor(out)


@pytest.mark.parametrize("per_document", [True, False])
@pytest.mark.parametrize("levels", [None, 2])
def test_it_is_one_sort_of_everything(per_document, levels):
    rows = synthetic(levels=levels)
    expected = by_hand(rows["L0.mlp_post"], rows.document, 6, per_document=per_document)
    for lengths in CUTS:
        found = top_examples(Cut(rows, lengths), "L0.mlp_post", 6, per_document=per_document)
        assert torch.equal(found.document, rows.document[expected])
        assert torch.equal(found.position, rows.position[expected])
        assert torch.equal(found.value, rows["L0.mlp_post"].T.gather(1, expected))


def test_values_equal_torch_topk():
    rows = synthetic()
    found = top_examples(Cut(rows, (50,)), "L1.mlp_post", 9, per_document=False)
    assert torch.equal(found.value, rows["L1.mlp_post"].T.topk(9).values)


def test_windows_hold_the_documents_own_tokens_and_nothing_else():
    rows = synthetic()
    for lengths in CUTS:
        found = top_examples(Cut(rows, lengths), "L0.mlp_post", 4, window=(5, 3))
        for unit in range(7):
            for i in range(4):
                document, position = int(found.document[unit, i]), int(found.position[unit, i])
                for offset in range(-5, 4):
                    same = (rows.document == document) & (rows.position == position + offset)
                    token = int(found.tokens[unit, i, offset + 5])
                    value = found.values[unit, i, offset + 5]
                    if not same.any():
                        assert token == -1
                        assert value.isnan()
                    else:
                        assert token == int(rows.tokens[same])
                        assert float(value) == float(rows["L0.mlp_post"][same][0, unit])


def test_either_sign_norms_directions_and_parts():
    rows = synthetic()
    source = Cut(rows, (100,))
    x, z = rows["L1.mlp_post"], rows["L0.z"]
    either = top_examples(source, "L1.mlp_post", 3, of="abs", per_document=False)
    assert torch.equal(either.value.abs(), x.T.abs().topk(3).values)
    assert bool((either.value < 0).any())
    heads = top_examples(source, "L0.z", 3, of="norm", per_document=False)
    assert torch.equal(heads.value, z.norm(dim=-1).T.topk(3).values)
    assert heads.names == ("L0.H0.z", "L0.H1.z", "L0.H2.z")
    one = top_examples(source, "L0.H2.z", 3, of="norm", per_document=False)
    assert (one.names, one.units) == (("L0.H2.z",), (2,))
    assert torch.equal(one.value[0], heads.value[2])
    entry = top_examples(source, "L0.H1.z", 2, per_document=False)
    assert entry.names == tuple(f"L0.H1.z#{i}" for i in range(4))
    assert torch.equal(entry.value, z[:, 1].T.topk(2).values)
    neurons = top_examples(source, "blocks.1.mlp.hook_post", 3, units=[5, 2], per_document=False)
    assert neurons.names == ("L1.mlp_post.N5", "L1.mlp_post.N2")
    assert torch.equal(neurons.value, x.T[[5, 2]].topk(3).values)
    named = top_examples(source, "L1.mlp_post.N5,2", 3, per_document=False)
    assert torch.equal(named.value, neurons.value)
    directions = torch.eye(7)[:2]
    along = top_examples(source, "L1.mlp_post", 3, transform=lambda v: v @ directions.T, per_document=False)  # fmt: skip
    assert torch.equal(along.value, x.T[:2].topk(3).values)
    assert along.names[1] == "L1.mlp_post#1"


def test_fewer_documents_than_examples_leave_places_empty():
    rows = synthetic(40)
    documents = len(rows.document.unique())
    found = top_examples(Cut(rows), "L0.mlp_post", 30)
    assert documents < 30
    assert bool((found.document[:, documents:] == -1).all())
    assert len(found.to_frame()) == 7 * documents
    assert bool(found.value[:, documents:].isnan().all())


def test_drawn_examples_are_any_tokens_where_the_unit_is_not_zero():
    rows = synthetic(600)
    whole = top_examples(Cut(rows), "L0.mlp_post", 2, sampled=40, seed=3)
    pieces = top_examples(Cut(rows, (7, 50)), "L0.mlp_post", 2, sampled=40, seed=3)
    assert torch.equal(whole.document, pieces.document)
    assert torch.equal(whole.position, pieces.position)
    drawn = whole.value[:, 2:]
    assert bool((drawn > 0).all())
    assert torch.equal(drawn, drawn.sort(descending=True).values)
    # Uniform among them: their median is near that of all the unit's non-zero values.
    for unit, column in enumerate(rows["L0.mlp_post"].T):
        share = float((column[column > 0] <= drawn[unit].median()).float().mean())
        assert 0.25 < share < 0.75
    other = top_examples(Cut(rows), "L0.mlp_post", 2, sampled=40, seed=4)
    assert not torch.equal(other.value[:, 2:], drawn)
    assert torch.equal(other.value[:, :2], whole.value[:, :2])


def test_lots_are_even_and_no_function_of_the_cut():
    lots = _lots(0, 20_000, 0, torch.device("cpu"))
    assert torch.equal(lots[500:600], _lots(500, 100, 0, torch.device("cpu")))
    counts = torch.histc(lots, 10, 0, 1)
    assert float((counts - 2000).abs().max()) < 200
    assert abs(float(torch.corrcoef(torch.stack([lots[1:], lots[:-1]]))[0, 1])) < 0.03


def test_memory_does_not_grow_with_rows():
    plan = Top("L0.mlp_post", k=5, sampled=5).on(synthetic().sites)
    sizes = []
    state = None
    for seed in range(20):
        state = plan.update(state, synthetic(500, seed=seed))
        tail = sum(getattr(state.tail, name).untyped_storage().nbytes()
                   for name in ("values", "tokens", "document", "position"))  # fmt: skip
        sizes.append(state.best.nbytes + state.drawn.nbytes + tail)
    assert len(set(sizes)) == 1


def test_wide_dictionaries_are_read_in_pieces(monkeypatch):
    given = []

    def encode(x):
        given.append(len(x))
        return x.repeat(1, 1000)

    rows = synthetic(2000)
    found = top_examples(Cut(rows), "L0.mlp_post", 2, transform=encode)
    assert max(given) * 7000 <= 2**22
    assert torch.equal(found.value[:7], found.value[7:14])
    monkeypatch.setattr(top_module, "available", lambda device: 1000)
    with pytest.raises(BudgetError, match="ask for fewer units="):
        top_examples(Cut(rows), "L0.mlp_post", 2000, transform=encode)


@pytest.fixture(scope="module")
def demo():
    return interp.load("demo")


TEXTS = [
    f"{opening} {country['country']} is {country['capital']}."
    for country in facts.countries()[:60]
    for opening in ("The capital of", "The capital city of")
]


@pytest.fixture(scope="module")
def stream(demo):
    return interp.stream(demo, TEXTS, ["L2.mlp_post", "L1.z"])


@pytest.fixture(scope="module")
def neurons(stream):
    return top_examples(stream, "L2.mlp_post", 4, units=range(40), sampled=3)


def test_a_live_streams_examples_are_what_the_model_computes_there(demo, stream, neurons):
    each = demo.run(TEXTS, save="L2.mlp_post")
    real = demo.batch(TEXTS).mask
    best = each.cache["L2.mlp_post"].masked_fill(~real[..., None], -torch.inf)[:, 1:, :40]
    expected = best.amax(1).T.topk(4).values  # a BOS is no token of the survey
    assert torch.allclose(neurons.value[:, :4], expected, atol=1e-4)
    row = neurons.to_frame().iloc[17]
    own = each.cache["L2.mlp_post"][int(row.document), int(row.position), int(row.unit)]
    assert float(own) == pytest.approx(row.value, abs=1e-4)
    words = demo.to_str_tokens(TEXTS[int(row.document)])
    assert f"⟦{words[int(row.position)].strip()}⟧" in row.text
    assert row.text.replace("⟦", "").replace("⟧", "") in TEXTS[int(row.document)]


def test_text_of_a_source_without_a_model_is_added_later(demo, neurons):
    bare = top_examples(synthetic(200), "L0.mlp_post", 2)
    assert "no text yet" in repr(bare)
    assert re.search(r"⟦\d+⟧", bare.show(3))
    read = bare.with_text(demo)
    assert not re.search(r"⟦\d+⟧", read.show(3, n=1).splitlines()[1]) or read.words is not None
    assert bare.with_text(demo.tokenizer).words.keys() == read.words.keys()
    assert neurons.words is not None


def test_a_model_without_a_tokenizer_shows_ids():
    model = interp.load(tiny.shared("gpt2"))
    found = top_examples(
        interp.stream(model, tiny.tokens(), "L0.mlp_post", context=16), "L0.mlp_post", k=1
    )
    assert found.words is None
    assert f"⟦{int(found.tokens[0, 0, found.before])}⟧" in found.show(0)


class Unread:
    """A source that must not be read."""

    sites = ("L0.mlp_post",)

    def batches(self, size, *, shuffle=None):
        raise AssertionError("the pass has begun")


@pytest.mark.bad_input
def test_who_cannot_read_is_refused_before_the_pass():
    with pytest.raises(ResultError, match="a Model without a tokenizer"):
        top_examples(Unread(), "L0.mlp_post", model=interp.load(tiny.shared("gpt2")))
    with pytest.raises(ResultError, match="a int; expected a Model or a tokenizer"):
        top_examples(Unread(), "L0.mlp_post", model=3)


def test_examples_as_lines(neurons):
    text = neurons.show(7, n=2).splitlines()
    assert text[0].startswith("L2.mlp_post.N7, value, strongest of ")
    assert [line for line in text if line.startswith("drawn at random")] == [text[3]]
    assert len(text) == 1 + 2 + 1 + 2
    assert neurons.show("L2.mlp_post.N7", n=2) == "\n".join(text)


def test_results_are_saved_whole(tmp_path, neurons):
    loaded = TopExamples.load(neurons.save(tmp_path / "a.safetensors"))
    assert loaded.names == neurons.names
    assert loaded.words == neurons.words
    assert loaded.to_frame().equals(neurons.to_frame())
    assert loaded.provenance == neurons.provenance
    assert neurons.provenance.seed == 0
    assert neurons.provenance.call["verb"] == "top_examples"
    assert neurons.provenance.call["transform"] is None


def test_a_view_is_whole_and_escapes_what_it_shows(neurons, tmp_path):
    document = neurons.view([3, 5]).save(tmp_path / "a.html").read_text(encoding="utf-8")
    assert "L2.mlp_post.N3</h2>" in document
    assert "L2.mlp_post.N4</h2>" not in document
    assert "<script" not in document
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(", document)
    assert document == neurons.view([3, 5]).html()
    rows = Rows({"L0.mlp_post": torch.tensor([[1.0], [2.0]])}, torch.tensor([1, 2]),
                torch.tensor([0, 0]), torch.tensor([0, 1]))  # fmt: skip

    class Hostile:
        def to_str_tokens(self, ids):
            return ["<b>&", "\u202eend\n"]

    shown = top_examples(rows, "L0.mlp_post", 1, model=Hostile()).view().html()
    assert "&lt;b&gt;&amp;" in shown
    assert "\\u202eend\\n" in shown
    assert "\u202e" not in shown


@needs_browser
def test_the_strongest_token_is_the_reddest_on_the_page(neurons, tmp_path):
    path = neurons.view(7).save(tmp_path / "a.html")
    picture = matplotlib.image.imread(screenshot(path, tmp_path, height=420))
    red = picture[..., 0] - picture[..., 2]
    rows = (red > 0.3).any(1)
    starts = int((rows[1:] & ~rows[:-1]).sum())
    assert starts >= 4  # a passage each
    assert float(red.max()) > 0.35  # the shade of the strongest


def test_a_concordance_is_drawn(neurons):
    axes = neurons.plot(7, n=3).axes[0]
    assert len(axes.get_yticklabels()) == 6
    assert any("(drawn)" in label.get_text() for label in axes.get_yticklabels())
    low, high = neurons.plot(7).axes[1].get_ylim()
    assert low == -high


def test_a_unit_that_never_fires_has_no_examples_to_draw():
    rows = synthetic(50)
    rows.tensors["L0.mlp_post"][:, 2] = 0
    found = top_examples(rows, "L0.mlp_post", 2, sampled=3)
    assert (found.document[2, 2:] == -1).all()
    assert set(found.to_frame().query("unit == 2")["kind"]) == {"top"}


@pytest.mark.bad_input
def test_what_is_refused():
    rows = synthetic(50)
    with pytest.raises(RunError, match=r"of='mean'; expected one of value, abs, norm"):
        top_examples(rows, "L0.mlp_post", of="mean")
    for wrong in ({"k": 0}, {"k": 1.5}, {"window": 5}, {"sampled": -1}, {"seed": "a"}):
        with pytest.raises(RunError, match="expected whole numbers: k from 1 up"):
            top_examples(rows, "L0.mlp_post", **wrong)
    with pytest.raises(SiteError, match="this source has no 'L3.mlp_post'"):
        top_examples(rows, "L3.mlp_post")
    with pytest.raises(SiteError, match="means 2 sites"):
        top_examples(rows, "L*.mlp_post")
    with pytest.raises(RunError, match="unit 9 of L0.mlp_post: expected 0 to 6"):
        top_examples(rows, "L0.mlp_post", units=[9])
    with pytest.raises(RunError, match="expected different whole numbers"):
        top_examples(rows, "L0.mlp_post", units=[1, 1])
    with pytest.raises(RunError, match=r"transform= made \[7\]"):
        top_examples(rows, "L0.mlp_post", transform=lambda x: x[0])
    with pytest.raises(RunError, match="with a norm"):
        top_examples(rows, "L0.mlp_post", of="norm", transform=lambda x: x)
    with pytest.raises(RunError, match="names its own part"):
        top_examples(rows, "L0.mlp_post.N3", units=[1])
    with pytest.raises(SiteError, match="reads every token"):
        top_examples(rows, "L0.mlp_post@-1")
    found = top_examples(rows, "L0.mlp_post")
    with pytest.raises(ResultError, match="no unit None among these 7"):
        found.show()
    with pytest.raises(ResultError, match="no unit 99"):
        found.view([99])
    with pytest.raises(ResultError, match="expected a Model or a tokenizer"):
        found.with_text(3)


def test_the_best_of_equal_keys_is_the_first():
    scores = torch.tensor([[0.0], [-0.0], [-1.0], [0.0]])
    assert kept._best(scores + 0.0, None, 3).flatten().tolist() == [0, 1, 3]
