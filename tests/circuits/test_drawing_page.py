"""The page of a circuit: what stands in the file, and what headless Chromium makes of it, offline."""

import html
import json
import re

import pytest
import torch

import interp
from interp.circuits.drawing import page
from interp.circuits.drawing.curves import Points
from interp.errors import CircuitError
from interp.graph import Graph
from interp.lenses.attention import AttentionResult, attention
from tests.circuits.drawn import EDGES, SHAPE, Scores, circuit, heavy
from tests.views.browser import dom, needs_browser

GRAPH = Graph.shaped(**SHAPE)
SCORES = heavy(GRAPH.edges)
RANKED = sorted(GRAPH.edges, key=lambda edge: -abs(SCORES[edge]))
CURVE = {"n_edges": [0, 9, 18, 46, 927], "faithfulness": [0.0, 0.31, 0.552, 0.93, 1.0],
         "low": [-0.02, 0.2, 0.5, 0.9, 0.99], "high": [0.03, 0.4, 0.6, 0.96, 1.01]}  # fmt: skip
TEXTS = ["When Mary and John went to the store, John gave a book to", "The capital of France is"]


def data_of(made):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', made.html(), re.S)[1]
    )


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.fixture(scope="module")
def top(model):
    """The first 40 edges of the whole graph, with patterns of its heads and a curve."""
    own = circuit(RANKED[:40], shape=Graph.of(model).shape)
    return own, page(own, model=model, prompts=TEXTS, scores=Scores(GRAPH, SCORES), curve=CURVE)


# -- without a browser ------------------------------------------------------------------------


def test_the_file_holds_what_was_given_and_loads_nothing(top, tmp_path):
    own, made = top
    text = made.save(tmp_path / "deep" / "a.html").read_text(encoding="utf-8")
    assert text == made.html()
    outside = text.replace("http://www.w3.org/2000/svg", "")  # the name of a language, not a place
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\(|fetch\(|XMLHttp|WebSocket", outside)
    assert "default-src 'none'" in text
    data = data_of(made)
    assert data["views"]["circuit"] == RANKED[:40]
    assert data["views"]["graph"] == RANKED
    found = {edge: (score, rank, member) for edge, score, rank, member in data["edges"]}
    for rank, edge in enumerate(RANKED, 1):
        assert found[edge] == (pytest.approx(SCORES[edge], rel=1e-4), rank, int(edge in own.edges))
    outgoing = sum(score for edge, score in SCORES.items() if edge.startswith("m0->"))
    assert data["nodes"]["m0"]["sum"] == pytest.approx(outgoing, rel=1e-4)
    assert repr(made).startswith("CircuitPage('ioi', ")
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', made._repr_html_())[1]) == made.html()
    assert 'sandbox="allow-scripts"' in made._repr_html_()


def test_patterns_are_the_models(top, model):
    own, made = top
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for text, kept in zip(TEXTS, data_of(made)["prompts"], strict=True):
        heads = [node for node in own.nodes if node.startswith("a")]
        assert list(kept["heads"]) == heads
        tokens = kept["tokens"]
        assert tokens == model.to_str_tokens(text)
        assert not kept["ahead"]
        for head in heads:
            layer, number = head[1:].split(".h")
            real = model.run(text, save=f"L{layer}.H{number}.pattern").cache[
                f"L{layer}.H{number}.pattern"
            ][0]
            coded = kept["heads"][head]
            shares = [
                (digits.index(a) * 64 + digits.index(b)) / 1000
                for a, b in zip(coded[::2], coded[1::2], strict=True)
            ]
            lower = real[tuple(torch.tril_indices(len(tokens), len(tokens)))]
            assert torch.allclose(torch.tensor(shares), lower, atol=6e-4)


def test_prompts_of_any_kind_and_only_a_few(model):
    pairs = interp.prompts.capitals(model, n=2, seed=0)
    own = circuit(EDGES, shape=Graph.of(model).shape)
    many = data_of(page(own, model=model, prompts=["The capital of France is"] * 9))
    assert len(many["prompts"]) == 6
    assert len(data_of(page(own, model=model, prompts="The capital of France is"))["prompts"]) == 1
    given = attention(model, TEXTS[1], ["L1.H2.pattern"])
    assert list(data_of(page(own, attention=given))["prompts"][0]["heads"]) == ["a1.h2"]
    kept = data_of(page(own, model=model, prompts=pairs))["prompts"]
    assert [one["tokens"] for one in kept] == [[t for t in row if t] for row in pairs.str_tokens]


def test_attention_to_later_tokens_is_kept_whole():
    shares = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    given = AttentionResult(
        shares, ("L0.H1",), ("a", "b"), interp.results.Provenance({}, "x", "y", None, None, {})
    )
    (kept,) = data_of(page(circuit(), attention=[given]))["prompts"]
    assert kept["ahead"]
    assert len(kept["heads"]["a0.h1"]) == 8


def test_the_curve_holds_only_where_its_edges_are_the_circuits():
    chosen = [*RANKED[:5], *RANKED[6:9]]
    assert data_of(page(circuit(chosen), scores=SCORES))["same"] == [0, 1, 2, 3, 4, 5]
    assert data_of(page(circuit(RANKED[:9]), scores=SCORES))["same"] == list(range(10))
    # Scores of the circuit alone: its first n are the first n.
    own = {edge: SCORES[edge] for edge in chosen}
    made = data_of(page(circuit(chosen), scores=own))
    assert made["same"] == list(range(9))
    assert list(made["views"]) == ["circuit"]


def test_a_curve_by_signed_scores_ranks_the_page_by_them():
    curve = {**CURVE, "selection": "top signed"}
    data = data_of(page(circuit(), scores=SCORES, curve=curve))
    assert data["views"]["graph"] == sorted(GRAPH.edges, key=SCORES.get)
    assert data["ranking"] == "signed score"
    assert (
        next(rank for edge, _, rank, _ in data["edges"] if edge == data["views"]["graph"][0]) == 1
    )
    assert data_of(page(circuit(), scores=SCORES, curve={**CURVE, "selection": "greedy"}))["curve"][
        "other"
    ]


def test_results_of_curve_are_read():
    class Result:
        counts, n_edges, faithfulness = (1, 46), 927, torch.tensor([0.1, 0.9])
        selection, method = "top |score|", "eap"

        def interval(self):
            return interp.intervals.Interval(
                self.faithfulness, self.faithfulness - 0.1, self.faithfulness + 0.1, 0.95
            )

    points = Points.read(Result())
    assert (points.n_edges, points.total) == ((1, 46), 927)
    assert points.low == pytest.approx((0.0, 0.8))
    scores = Scores(GRAPH, SCORES)
    scores.method = "exact"
    with pytest.raises(CircuitError, match="a curve of 'eap' scores with 'exact' scores"):
        page(circuit(), scores=scores, curve=Result())


@pytest.mark.parametrize("name", ["</script><b>", "<!--", '"', "\u2028", "<svg onload=x>"])
def test_any_text_is_data_and_no_markup(name):
    own = circuit(name=f"x{name}", roles={"m0": (name,)})
    made = page(own, scores=SCORES, title=f"<i>{name}")
    assert made.html().count("</script>") == 2
    assert "<b>" not in made.html()
    assert "<i>" not in made.html()
    assert "<svg onload" not in made.html()
    assert data_of(made)["nodes"]["m0"]["roles"][0][0] == name


@pytest.mark.bad_input
def test_what_is_refused(model):
    with pytest.raises(CircuitError, match="need both model= and prompts="):
        page(circuit(), model=model)
    with pytest.raises(CircuitError, match="a curve without scores"):
        page(circuit(), curve=CURVE)
    with pytest.raises(CircuitError, match="up to 5,000 edges is not of the graph of 'ioi'"):
        page(circuit(), scores=SCORES, curve={"n_edges": [5000], "faithfulness": [1.0]})
    with pytest.raises(CircuitError, match="as many numbers in n_edges as in faithfulness"):
        page(circuit(), scores=SCORES, curve={"n_edges": [1, 2], "faithfulness": [1.0]})
    with pytest.raises(CircuitError, match="whole numbers that do not fall"):
        page(circuit(), scores=SCORES, curve={"n_edges": [2, 1], "faithfulness": [1.0, 1.0]})
    with pytest.raises(CircuitError, match="faithfulness that is no number"):
        page(circuit(), scores=SCORES, curve={"n_edges": [1], "faithfulness": [float("nan")]})
    long = AttentionResult(torch.zeros(3, 2000, 2000), ("L0.H1",) * 3, ("a",) * 2000, None)
    with pytest.raises(CircuitError, match="make 24 MB .at most 16 MB in a page"):
        page(circuit(), attention=long)


def test_other_weights_are_said(model):
    own = circuit(weights_hash="0" * 64)
    with pytest.warns(UserWarning, match="was found on other weights than those of"):
        page(own, model=model, prompts=TEXTS[1])


# -- in a browser -----------------------------------------------------------------------------

#: Stands behind the page, plays a reader, and writes down what can be seen.
READER = """
<script>
const seen = {};
const $id = (id) => document.getElementById(id);
const one = (selector) => document.querySelector(selector);
const here = () => one(".view:not([hidden])");
const fire = (target, name, more) => target.dispatchEvent(new MouseEvent(name, {bubbles: true, clientX: 300, clientY: 300, ...more}));
const key = (name, target) => (target || document.body).dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
const drawn = () => [...here().querySelectorAll(".edge")].filter((e) => getComputedStyle(e).display !== "none").map((e) => e.dataset.edge);
const hit = (edge) => [...here().querySelectorAll("[data-hit]")].find((e) => e.dataset.hit === edge);
const node = (name) => here().querySelector(`[data-node="${name}"]`);
const bright = () => [...here().querySelectorAll(".edge.on")].map((e) => e.dataset.edge);
const slide = (n) => { $id("n").value = n; $id("n").dispatchEvent(new Event("input")); };
const text = (selector) => (one(selector) || {}).textContent;
const listed = () => [...document.querySelectorAll("#rows tr")].map((r) => r.dataset.edge);
const out = document.createElement("pre");
out.id = "seen";
try {
PLAY
} catch (error) { seen.error = String(error); }
seen.loaded = performance.getEntriesByType("resource").map((e) => e.name);
out.textContent = JSON.stringify(seen);
document.body.append(out);
</script>
"""


def play(made, script, folder, name):
    path = folder / f"{name}.html"
    path.write_text(
        made.html().replace("</body>", READER.replace("PLAY", script) + "</body>"), encoding="utf-8"
    )
    document = dom(path, folder, "--window-size=1400,900")
    (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', document, re.S)
    seen = json.loads(html.unescape(found))
    assert "error" not in seen, seen["error"]
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("browser")


PLAY = """
seen.ready = document.body.dataset.ready;
seen.drawn = drawn();
const edge = EDGE, head = HEAD;
fire(hit(edge), "mousemove");
seen.edge = {tip: $id("tip").textContent, hidden: $id("tip").hidden, card: text("#card"), bright: bright()};
fire(node("m0"), "mousemove");
seen.node = {tip: $id("tip").textContent, card: text("#card"), bright: bright()};
fire($id("sheet"), "mouseleave");
seen.left = {hidden: $id("tip").hidden, bright: bright()};
fire(node(head), "click");
const tokens = () => [...document.querySelectorAll("#tokens span")];
const look = () => ({hidden: $id("attention").hidden, tokens: tokens().map((s) => s.textContent),
  shares: tokens().map((s) => s.title), title: text("#attention h2"), readout: text("#readout")});
seen.head = look();
seen.canvas = [...$id("matrix").getContext("2d").getImageData(66 + 3, 66 + 3, 1, 1).data];
tokens()[4].click();
seen.row = look();
const cells = $id("matrix").getBoundingClientRect();
fire($id("matrix"), "mousemove", {clientX: cells.left + 66 + 2.5 * SIDE, clientY: cells.top + 66 + 5.5 * SIDE});
seen.cell = text("#readout");
$id("prompt").value = "1"; $id("prompt").dispatchEvent(new Event("change"));
seen.second = look();
fire(hit(edge), "click");
seen.pinned = document.body.dataset.pinned;
key("Escape");
seen.let = [document.body.dataset.pinned, $id("attention").hidden];
seen.slides = {};
for (const n of [40, 18, 17, 9, 0]) {
  slide(n);
  seen.slides[n] = [drawn(), document.body.dataset.faithfulness, text("#faith"), listed().length];
}
slide(40);
key("["); seen.fewer = document.body.dataset.shown;
key("]"); seen.more = document.body.dataset.shown;
document.querySelectorAll("#which button")[1].click();
seen.graph = [drawn().length, document.body.dataset.faithfulness, text("#count")];
document.querySelectorAll("#curve .dot")[3].dispatchEvent(new MouseEvent("click"));
seen.dot = [document.body.dataset.shown, document.body.dataset.faithfulness];
slide(927);
$id("search").value = "a1.h5 logits"; $id("search").dispatchEvent(new Event("input"));
seen.found = listed();
$id("search").value = "s-inhibition"; $id("search").dispatchEvent(new Event("input"));
seen.role = listed();
$id("search").value = ""; $id("search").dispatchEvent(new Event("input"));
one('[data-sort="score"]').click();
seen.lowest = listed().slice(0, 3);
one('[data-sort="score"]').click();
seen.highest = listed().slice(0, 3);
seen.sort = one('[data-sort="score"]').parentElement.getAttribute("aria-sort");
one("#rows tr").click();
seen.rowpin = document.body.dataset.pinned;
key("ArrowDown", one("#rows tr"));
seen.rowdown = [document.body.dataset.pinned, document.activeElement.dataset.edge];
key("Escape");
$id("sheet").focus();
key("ArrowUp"); seen.walk = [text("#card h3")];
key("ArrowDown"); seen.walk.push(text("#card h3"));
key("ArrowRight"); seen.walk.push(text("#card h3"));
key("Enter"); seen.walk.push(document.body.dataset.pinned);
key("/"); seen.focus = document.activeElement.id;
const stroke = () => getComputedStyle(here().querySelector('.edge[data-lean]')).stroke;
seen.theme = [getComputedStyle(document.body).backgroundColor, stroke()];
$id("theme").click();
seen.dark = [getComputedStyle(document.body).backgroundColor, stroke()];
"""


@pytest.fixture(scope="module")
def seen(top, folder):
    own, made = top
    head = next(node for node in own.nodes if node.startswith("a"))
    edge = next(edge for edge in RANKED[:40] if "<v>" in edge)
    side = min(20, 290 // len(data_of(made)["prompts"][0]["tokens"]))
    script = (
        PLAY.replace("EDGE", json.dumps(edge))
        .replace("HEAD", json.dumps(head))
        .replace("SIDE", str(side))
    )
    return play(made, script, folder, "circuit"), head, edge


@needs_browser
def test_nothing_is_asked_of_a_network(seen):
    assert seen[0]["loaded"] == []
    assert seen[0]["ready"] == "927"


@needs_browser
def test_pointing_says_the_score(seen):
    found, _, edge = seen
    source, dest = edge.split("->")
    score = f"{SCORES[edge]:+.4g}".replace("-", "−")
    tip = found["edge"]["tip"]
    assert not found["edge"]["hidden"]
    assert tip.startswith(f"{source} → {dest.split('<')[0]}, read by its values\n")
    shown = float(re.search(r"score ([+−][\d.e+−]+)", tip)[1].replace("−", "-"))
    assert shown == pytest.approx(SCORES[edge], rel=1e-3), score
    assert f"number {RANKED.index(edge) + 1} of 927" in tip
    assert "in the circuit" in found["edge"]["card"]
    assert found["edge"]["bright"] == [edge]
    touching = {e for e in RANKED[:40] if e.startswith("m0->") or e.endswith("->m0")}
    assert set(found["node"]["bright"]) == touching
    assert found["node"]["tip"].startswith("m0\noutgoing edges: ")
    assert found["left"] == {"hidden": True, "bright": []}


@needs_browser
def test_a_clicked_head_shows_its_pattern(seen, model):
    found, head, edge = seen
    layer, number = head[1:].split(".h")
    site = f"L{layer}.H{number}.pattern"
    for text, key, query in (
        (TEXTS[0], "head", -1),
        (TEXTS[0], "row", 4),
        (TEXTS[1], "second", -1),
    ):
        tokens = model.to_str_tokens(text)
        shares = model.run(text, save=site).cache[site][0][query]
        shown = found[key]
        assert shown["tokens"] == tokens
        assert not shown["hidden"]
        assert shown["title"] == f"where {head} looks"
        numbers = [float(share) for share in shown["shares"] if share]
        assert len(numbers) == (len(tokens) if query == -1 else query + 1)
        assert numbers == pytest.approx(shares[: len(numbers)].tolist(), abs=6e-4)
    real = model.run(TEXTS[0], save=site).cache[site][0]
    words = [token.strip() for token in model.to_str_tokens(TEXTS[0])]
    assert (
        found["cell"].replace("\u2068", "").replace("\u2069", "")
        == f"“{words[5]}” 5 looks at “{words[2]}” 2: {real[5, 2]:.3f}"
    )
    assert found["canvas"][:3] == [8, 48, 107]  # the first token has only itself to look at
    assert found["pinned"] == edge
    assert found["let"] == ["", True]


@needs_browser
def test_the_slider_keeps_the_first_edges_and_says_what_was_measured(seen):
    found = seen[0]
    assert sorted(found["drawn"]) == sorted(RANKED[:40])
    for n in (40, 18, 17, 9, 0):
        edges, faithfulness, words, listed = found["slides"][str(n)]
        assert set(edges) == set(RANKED[:n])
        assert listed == n
        if n in CURVE["n_edges"]:
            assert float(faithfulness) == CURVE["faithfulness"][CURVE["n_edges"].index(n)]
        else:
            assert faithfulness == ""
            assert words.startswith("between measured points: ")
    assert found["slides"]["18"][2] == "faithfulness 0.552 [0.500, 0.600] at 18 edges"
    assert (
        found["slides"]["17"][2]
        == "between measured points: 0.310 [0.200, 0.400] at 9, 0.552 [0.500, 0.600] at 18"
    )
    assert (found["fewer"], found["more"]) == ("39", "40")
    assert found["graph"][:2] == [927, "1"]
    assert found["dot"] == ["46", "0.93"]


@needs_browser
def test_the_table_is_searched_sorted_and_walked(seen):
    found = seen[0]
    assert "a1.h5->logits" in found["found"]
    assert all("a1.h5" in edge for edge in found["found"])
    assert found["role"] == [e for e in RANKED if "a1.h2" in e]
    by_score = sorted(GRAPH.edges, key=SCORES.get)
    assert found["lowest"] == by_score[:3]
    assert found["highest"] == by_score[:-4:-1]
    assert found["sort"] == "descending"
    assert found["rowpin"] == by_score[-1]
    assert found["rowdown"] == [by_score[-2]] * 2


@needs_browser
def test_keys_walk_through_the_drawing_and_light_turns(seen):
    found = seen[0]
    start, below, beside, kept = found["walk"]
    assert start == "logits"  # the topmost; nothing is further up
    assert below == "m3"
    assert beside == kept == "m3"  # alone in its row
    assert found["focus"] == "search"
    assert found["theme"][0] == "rgb(255, 255, 255)"
    assert found["dark"][0] == "rgb(20, 23, 26)"
    assert found["theme"][1] != found["dark"][1]


@needs_browser
def test_a_circuit_that_is_not_the_top_edges_has_no_faithfulness_of_theirs(folder):
    made = page(circuit(), scores=SCORES, curve=CURVE)
    found = play(made, """
        slide(18); seen.words = text("#faith"); seen.f = document.body.dataset.faithfulness;
        fire(node("a1.h2"), "click"); seen.hint = text("#card"); seen.hidden = $id("attention").hidden;
        document.querySelectorAll("#which button")[1].click(); slide(18);
        seen.graph = document.body.dataset.faithfulness;
        """, folder, "other")  # fmt: skip
    assert found["words"] == "The curve is of the first edges of the graph, and these are others."
    assert found["f"] == ""
    assert found["graph"] == "0.552"
    assert "No patterns were kept" in found["hint"]
    assert found["hidden"]


@needs_browser
def test_a_page_without_anything_but_a_circuit_opens(folder):
    found = play(page(circuit()), """
        seen.drawn = drawn().length; seen.words = text("#faith");
        fire(hit("embed->m0"), "mousemove"); seen.tip = $id("tip").textContent;
        """, folder, "bare")  # fmt: skip
    assert found["drawn"] == 21
    assert found["words"].startswith("No curve was given")
    assert found["tip"] == "embed → m0\nno score"
