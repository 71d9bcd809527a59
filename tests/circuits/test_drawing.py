"""Drawings as data: every node and edge once, in layers, and looking as the scores say."""

import random
import re
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import combinations, pairwise

import pytest

from interp.circuits.drawing import draw
from interp.circuits.drawing.layout import layout, text_width
from interp.errors import CircuitError
from interp.graph import Graph
from tests.circuits.drawn import EDGES, ROLES, SHAPE, Scores, circuit, heavy

GRAPH = Graph.shaped(**SHAPE)
SVG = "{http://www.w3.org/2000/svg}"


def read(drawing):
    root = ET.fromstring(drawing.svg)
    edges = [path for path in root.iter(f"{SVG}path") if path.get("class") == "edge"]
    nodes = [group for group in root.iter(f"{SVG}g") if group.get("class") == "node"]
    return root, edges, nodes


def box(group):
    rect = next(r for r in group.iter(f"{SVG}rect") if r.get("class") == "box")
    return [float(rect.get(name)) for name in ("x", "y", "width", "height")]


def texts(root):
    return [text.text for text in root.iter(f"{SVG}text")]


def along(points, steps=12):
    """Points on a curve of cubic pieces."""
    for start in range(0, len(points) - 1, 3):
        a, b, c, d = points[start : start + 4]
        for i in range(steps + 1):
            t = i / steps
            u = 1 - t
            yield tuple(
                u**3 * a[j] + 3 * u * u * t * b[j] + 3 * u * t * t * c[j] + t**3 * d[j]
                for j in (0, 1)
            )


@pytest.mark.parametrize("n", [21, 300, 927])
def test_every_edge_and_node_is_there_once(n):
    scores = heavy(GRAPH.edges)
    members = EDGES if n == 21 else sorted(GRAPH.edges, key=lambda e: -abs(scores[e]))[:n]
    own = circuit(members, roles={})
    root, edges, nodes = read(draw(own, scores=Scores(GRAPH, scores)))
    assert sorted(path.get("data-edge") for path in edges) == sorted(members)
    assert sorted(group.get("data-node") for group in nodes) == sorted(own.nodes)
    assert f"logit_diff · resample ablation · {n} of 927 edges" in texts(root)
    assert "ioi, demo" in texts(root)


def test_layers_rise():
    """A source stands lower than what reads it, and nodes of one row on one line."""
    for parallel in (False, True):
        graph = Graph.shaped(**{**SHAPE, "parallel": parallel, "pos_embed": True})
        placed = layout(graph.edges, parallel=parallel)
        at = {b.name: b for b in placed.boxes}
        for curve in placed.curves:
            assert at[curve.source].y > at[curve.node].y
            heights = [y for _, y in curve.points]
            assert heights == sorted(heights, reverse=True)
        assert len({b.y for b in placed.boxes}) == (6 if parallel else 10)
        assert (at["a1.h0"].y == at["m1"].y) == parallel
        assert at["embed"].y == at["pos_embed"].y == max(b.y for b in placed.boxes)
        assert at["logits"].y == min(b.y for b in placed.boxes)


@pytest.mark.parametrize("edges", [EDGES, GRAPH.edges], ids=["small", "whole graph"])
def test_nothing_lies_over_a_node(edges):
    """Names fit their boxes, boxes of a row do not meet, and no edge runs behind a third node."""
    placed = layout(edges)
    for b in placed.boxes:
        assert text_width(b.name) <= b.width
    for row in range(len(placed.rows)):
        boxes = sorted((b for b in placed.boxes if b.row == row), key=lambda b: b.x)
        for a, b in pairwise(boxes):
            assert b.x - b.width / 2 > a.x + a.width / 2 + 4
    for curve in placed.curves:
        others = [b for b in placed.boxes if b.name not in (curve.source, curve.node)]
        for x, y in along(curve.points):
            assert not any(
                abs(x - b.x) < b.width / 2 and abs(y - b.y) < b.height / 2 for b in others
            )
    assert min(b.x - b.width / 2 for b in placed.boxes) >= -1e-6
    assert max(b.x + b.width / 2 for b in placed.boxes) <= placed.width + 1e-6


def test_edges_meet_their_ends_at_the_ports_of_q_k_and_v():
    placed = layout(GRAPH.edges)
    at = {b.name: b for b in placed.boxes}
    for curve in placed.curves:
        source, node = at[curve.source], at[curve.node]
        (x, y), (end, foot) = curve.points[0], curve.points[-1]
        assert y == pytest.approx(source.y - source.height / 2)
        assert abs(x - source.x) <= source.width / 2
        assert foot == pytest.approx(node.y + node.height / 2)
        third = (end - node.x) / node.width
        if curve.channel:
            assert {"q": -0.5, "k": -1 / 6, "v": 1 / 6}[curve.channel] < third
            assert third < {"q": -1 / 6, "k": 1 / 6, "v": 0.5}[curve.channel]


def test_looks_follow_the_scores():
    scores = heavy(GRAPH.edges, seed=3)
    _, edges, _ = read(draw(circuit(GRAPH.edges, roles={}), scores=scores))
    by_size = sorted(edges, key=lambda path: abs(scores[path.get("data-edge")]))
    for name in ("stroke-width", "stroke-opacity"):
        looks = [float(path.get(name)) for path in by_size]
        assert looks == sorted(looks)
        assert looks[-1] > 4 * looks[0]
    assert [path.get("data-edge") for path in edges[-5:]] == [
        p.get("data-edge") for p in by_size[-5:]
    ]
    for path in edges:
        red, _, blue = (int(path.get("stroke")[i : i + 2], 16) for i in (1, 3, 5))
        assert (red > blue) == (scores[path.get("data-edge")] > 0)


def test_the_largest_scores_of_both_signs_look_alike():
    scores = dict.fromkeys(EDGES, 0.0) | {EDGES[0]: -2.0, EDGES[5]: 2.0}
    _, edges, _ = read(draw(circuit(), scores=scores))
    widths = {path.get("data-edge"): path.get("stroke-width") for path in edges}
    assert widths[EDGES[0]] == widths[EDGES[5]] == max(widths.values(), key=float)


def test_only_what_is_there_is_explained():
    with_scores = " ".join(texts(read(draw(circuit(), scores=heavy(EDGES)))[0]))
    assert "(helps)" in with_scores
    assert "if ablated" in with_scores
    negative = " ".join(texts(read(draw(circuit(), scores=dict.fromkeys(EDGES, -1.0)))[0]))
    assert "−1 (helps)" in negative
    assert "hinders" not in negative
    without = " ".join(texts(read(draw(circuit()))[0]))
    assert "score" not in without
    assert "queries (q)" in without
    some = read(draw(circuit(), scores={EDGES[0]: 1.0}))
    assert "no score" in texts(some[0])
    sizes = Scores(GRAPH, {edge: abs(score) for edge, score in heavy(EDGES).items()})
    sizes.signed, sizes.what = False, "share of what the destination reads"
    unsigned = read(draw(circuit(), scores=sizes))
    assert "score: share of what the destination reads" in texts(unsigned[0])
    assert not re.search("helps|hinders", " ".join(texts(unsigned[0])))
    assert len({path.get("stroke") for path in unsigned[1]}) == 1


def test_roles_are_colours_of_nodes_with_a_legend():
    root, _, nodes = read(draw(circuit()))
    fills = {
        group.get("data-node"): [r.get("fill") for r in group if r.get("class") == "role"]
        for group in nodes
    }
    assert set(fills["a1.h5"]) < set(fills["a1.h2"])
    assert len(fills["a1.h2"]) == 2
    assert fills["m0"] == []
    words = texts(root)
    for role in ("previous token", "induction", "S-inhibition", "name mover"):
        assert words.count(role) == 1
    title = next(group for group in nodes if group.get("data-node") == "a1.h2").find(f"{SVG}title")
    assert title.text == "a1.h2: induction, S-inhibition"
    part = circuit([e for e in EDGES if "a1.h5" in e], roles={"a1.h5": ("induction",)})
    assert "name mover" not in texts(read(draw(part))[0])


def test_channels_that_are_read_stand_out():
    _, _, nodes = read(draw(circuit()))
    letters = {
        g.get("data-node"): [t.text for t in g if "read" in t.get("class", "")] for g in nodes
    }
    assert letters["a0.h4"] == ["v"]
    assert letters["a1.h2"] == ["q", "k", "v"]
    assert letters["m0"] == []


def test_positions_are_written_where_they_are_read_and_never_over_one_another():
    shape = {**SHAPE, "positions": ["S1", "S2", "END", "other"]}
    edges = ["embed->a0.h1<v>@S2", "a0.h1->a2.h3<k>@S1", "a0.h1->a2.h3<k>@S2", "a0.h1->a2.h3<q>@END",
             "a2.h3->logits@END", "m0->logits@END"]  # fmt: skip
    drawing = draw(
        circuit(edges, shape=shape, roles={}), scores=Scores(Graph.shaped(**shape), heavy(edges))
    )
    root, paths, _ = read(drawing)
    assert len(paths) == 6
    written = [t for t in root.iter(f"{SVG}text") if "position" in t.get("class", "")]
    # Two into <k> of a2.h3, as they differ; one for both edges into the logits.
    assert Counter(t.text for t in written) == {"S2": 2, "S1": 1, "END": 2}
    places = [(float(t.get("x")), float(t.get("y")), text_width(t.text, 6.0)) for t in written]
    for (x, y, w), (a, b, v) in combinations(places, 2):
        assert abs(x - a) >= (w + v) / 2 or abs(y - b) >= 7
    title = (
        next(p for p in paths if p.get("data-edge") == "a0.h1->a2.h3<k>@S1")
        .find(f"{SVG}title")
        .text
    )
    assert title.startswith("a0.h1->a2.h3<k>@S1, read by its keys at S1: ")


def test_the_same_circuit_gives_the_same_bytes():
    scores = heavy(GRAPH.edges)
    shuffled = dict(random.Random(1).sample(list(scores.items()), len(scores)))
    assert draw(circuit(), scores=scores).svg == draw(circuit(reversed(EDGES)), scores=shuffled).svg
    assert draw(circuit(), scores=scores).svg == draw(
        circuit(), scores=Scores(GRAPH, scores)
    ).svg.replace("\r", "")


def test_any_text_is_text():
    nasty = '</svg><script>alert("&")</script>\u0000\u202e'
    root, _, _ = read(draw(circuit(name=nasty, roles={"m0": (nasty,)}), title=nasty))
    assert not list(root.iter(f"{SVG}script"))
    assert root.find(f"{SVG}title").text == '</svg><script>alert("&")</script>\\x00\\u202e'
    assert any("<script>" in text for text in texts(root))


def test_the_top_edges_alone():
    scores = heavy(GRAPH.edges)
    drawing = draw(circuit(GRAPH.edges, roles={}), scores=scores, top=12)
    root, edges, _ = read(drawing)
    best = sorted(GRAPH.edges, key=lambda e: -abs(scores[e]))[:12]
    assert {path.get("data-edge") for path in edges} == set(best)
    assert "927 of 927 edges · the 12 of the largest |score| drawn" in " ".join(texts(root))
    assert repr(drawing).startswith(
        f"Drawing({len({n for e in best for n in circuit([e], roles={}).nodes})} nodes, 12 edges;"
    )


def test_a_model_of_many_heads_is_broken_into_lines():
    shape = {**SHAPE, "n_heads": 40, "n_layers": 1}
    placed = layout([e for e in Graph.shaped(**shape).edges if e.endswith("->logits")])
    rows = Counter(b.row for b in placed.boxes)
    assert max(rows.values()) <= 16
    assert placed.width < 1200  # 40 in one line: 1700
    assert [row.label for row in placed.rows if row.label] == [
        "input",
        "block 0 heads",
        "block 0 MLP",
        "output",
    ]


def test_neurons_and_features_stand_with_their_mlp():
    shape = {**SHAPE, "units": ["m1.n77", "m1.f12"]}
    placed = layout(
        [
            "embed->m1.n77",
            "m1.n77->logits",
            "m1.f12->logits",
            "embed->m1",
            "m1->logits",
            "embed->m1.f12",
        ]
    )
    assert len({b.y for b in placed.boxes if b.name.startswith("m1")}) == 1
    read(draw(circuit(["embed->m1.n77", "m1.n77->logits"], shape=shape, roles={})))


def test_the_figure_has_the_same_marks(tmp_path):
    drawing = draw(circuit(), scores=heavy(EDGES), width=3.0)
    figure = drawing.figure()
    assert figure.get_size_inches()[0] == pytest.approx(3.0)
    names = Counter(patch.get_gid() for patch in figure.axes[0].patches if patch.get_gid())
    assert names == Counter([*EDGES, *circuit().nodes])
    shown = {text.get_text() for text in figure.axes[0].texts}
    assert {"ioi, demo", "a1.h2", "induction", "logits"} <= shown
    assert 'width="3in"' in drawing.svg
    for kind, start in (("svg", b"<svg"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        path = drawing.save(tmp_path / f"a.{kind}")
        assert path.read_bytes().startswith(start)
    again = draw(circuit(), scores=heavy(EDGES), width=3.0).save(tmp_path / "b.pdf")
    assert again.read_bytes() == (tmp_path / "a.pdf").read_bytes()
    with pytest.raises(CircuitError, match=r"ends in \.svg, \.pdf or \.png"):
        drawing.save(tmp_path / "a.jpg")


def test_circuit_scores_are_used_unless_others_are_given():
    own = circuit()
    object.__setattr__(own, "scores", Scores(GRAPH, dict.fromkeys(EDGES, -3.0)))
    assert "−3 (helps)" in texts(read(draw(own))[0])
    assert "−1 (helps)" in texts(read(draw(own, scores=dict.fromkeys(EDGES, -1.0)))[0])


@pytest.mark.bad_input
def test_what_is_refused():
    with pytest.raises(CircuitError, match="nothing to draw; expected at least one edge"):
        draw(circuit([], roles={}))
    with pytest.raises(CircuitError, match="none of the 21 edges of 'ioi'"):
        draw(circuit(), scores={"embed->logits": 1.0})
    with pytest.raises(
        CircuitError, match="1 of 1 scores are of no edge.*nearest 'embed->a0.h1<q>'"
    ):
        draw(circuit(), scores={"embed->a0.h1<q>@S2": 1.0})
    with pytest.raises(CircuitError, match="scores of type list cannot be drawn"):
        draw(circuit(), scores=[1.0])
    wrong = Scores(GRAPH, {})
    wrong.values = wrong.values[:, 1:]
    with pytest.raises(CircuitError, match=r"expected \[29, 77\]"):
        draw(circuit(), scores=wrong)
    with pytest.raises(CircuitError, match="give scores="):
        draw(circuit(), top=3)
    with pytest.raises(CircuitError, match="expected top=1 or more"):
        draw(circuit(), scores=heavy(EDGES), top=0)
    with pytest.raises(CircuitError, match="does not go upwards"):
        layout(["a1.h0->a0.h0<q>"])
    with pytest.raises(CircuitError, match="cannot be told apart in a drawing"):
        layout(Graph.shaped(n_layers=6, n_heads=12).edges)


def test_roles_of_the_whole_circuit_keep_their_colours_in_a_part():
    whole = read(draw(circuit()))[2]
    part = read(draw(circuit(), scores=heavy(EDGES), top=8))[2]
    colours = [
        {g.get("data-node"): [r.get("fill") for r in g if r.get("class") == "role"] for g in nodes}
        for nodes in (whole, part)
    ]
    assert all(colours[0][node] == own for node, own in colours[1].items())
    assert set(colours[1]) & set(ROLES)
