"""Sites are read and printed by one grammar; what it refuses, it explains."""

import pytest

from interp.errors import SiteError
from interp.sites import POINTS, Edge, Index, Site

GOOD = [
    "L5.resid_pre", "L*.resid_pre", "L4-8.H*.z", "L5.H3.z@-1", "L5.H1,3.pattern", "L-1.resid_post",
    "L3.mlp_post.N77", "L3.mlp_post.N0-9@2", "L2.mlp.F1204", "L9.resid_pre@subject_last", "embed",
    "pos_embed@3", "ln_final.scale", "ln_final.normalized@-1", "L2.ln1.normalized", "L2.ln2.scale",
    "L2.attn.input@3", "L2.mlp.input", "L2.mlp", "L0.rot_q", "L1.H2.result@END", "logits",
]  # fmt: skip

BAD = {
    "L5.resid_prr": "nearest: 'L5.resid_pre'",
    "blocks.5.hook_resid_prr": "nearest: 'blocks.5.hook_resid_pre'",
    "blocks.5.attn.hook_zz": "'blocks.5.attn.hook_z'",
    "hook_resid_pre": "no hook is called",
    "resid_pre": "needs a layer: write 'L5.resid_pre'",
    "L2.embed": "belongs to no block",
    "L5.H3.resid_pre": "has no heads; points which have: q, k, v",
    "L3.mlp_post.features.N7": "its units are written F7",
    "L3.q.F7": "has no F",
    "L3.H1.z.F7": "has no heads",
    "L3.resid_post.featurez": "nearest: 'L3.resid_post.features'",
    "L3.z.N7": "has no N",
    "L5.pattern@3": "no single position axis",
    "Lx.z": "'x' is not an index",
    "L8-4.z@x y": "'@x y' is not a position",
    "L5..z": "is not a site",
    "": "is not a site",
    "L1.z -> L2.z": "use Edge.parse",
}


@pytest.mark.parametrize("text", GOOD)
def test_parsing_and_printing_are_inverse(text):
    site = Site.parse(text)
    assert str(site) == text
    assert Site.parse(str(site)) == site
    assert Site.parse(site) is site


@pytest.mark.parametrize("point", [p for p in POINTS if p != "mlp"])
def test_every_point_has_a_transformerlens_name_that_parses_back(point):
    site = Site.parse(f"L5.{point}" if POINTS[point].layered else point)
    assert Site.parse(site.hook_name) == site


@pytest.mark.parametrize(("text", "message"), BAD.items())
def test_bad_sites_say_what_to_write(text, message):
    with pytest.raises(SiteError) as error:
        Site.parse(text)
    assert message in str(error.value)


def test_transformerlens_names_are_theirs():
    names = {"L5.H3.z@-1": "blocks.5.attn.hook_z", "L0.mlp_post": "blocks.0.mlp.hook_post",
             "L1.ln2.normalized": "blocks.1.ln2.hook_normalized", "embed": "hook_embed",
             "L*.resid_mid": "blocks.*.hook_resid_mid"}  # fmt: skip
    assert {short: Site.parse(short).hook_name for short in names} == names
    assert str(Site.parse("blocks.*.hook_resid_pre@END")) == "L*.resid_pre@END"


def test_indices_expand_inclusive_negative_and_listed():
    assert Index("4-6").expand(8, "layer") == (4, 5, 6)
    assert Index("-1").expand(8, "layer") == (7,)
    assert Index("-3-7").expand(8, "layer") == (5, 6, 7)
    assert Index("1,3,1").expand(8, "head") == (1, 3)
    assert Index("*").expand(3, "head") == (0, 1, 2)


@pytest.mark.parametrize(("text", "message"), [
    ("8", "layer 8 is out of range: this model has 8"),
    ("-9", "layer -9 is out of range"),
    ("6-4", "runs backwards"),
    ("-3-2", "runs backwards"),
])  # fmt: skip
def test_indices_out_of_range_say_the_range(text, message):
    with pytest.raises(SiteError, match=message):
        Index(text).expand(8, "layer")


def test_per_layer_and_at():
    assert [str(s) for s in Site.parse("L2-3.H1.z").per_layer(4)] == ["L2.H1.z", "L3.H1.z"]
    assert str(Site.parse("L*.z").at(layer=3, head=1, position=-1)) == "L3.H1.z@-1"
    assert str(Site.parse("L3.H1.z@2").whole) == "L3.z"


def test_edges_round_trip_and_refuse_other_shapes():
    edge = Edge.parse("L1.H0.z->blocks.2.attn.hook_k")
    assert str(edge) == "L1.H0.z -> L2.k"
    assert Edge.parse(str(edge)) == edge
    with pytest.raises(SiteError, match="expected 'L1.H0.z -> L2.H1.k'"):
        Edge.parse("L1.z")
    with pytest.raises(SiteError, match="nearest"):
        Edge.parse("L1.z -> L2.kk")


def test_an_mlp_as_a_dictionarys_site_has_two_ends():
    assert [str(end) for end in Site.parse("L2.mlp").ends] == ["L2.mlp.input", "L2.mlp_out"]
    assert [str(end) for end in Site.parse("L*.mlp").ends] == ["L*.mlp.input", "L*.mlp_out"]
    for text in ("L2.mlp_out", "L2.mlp.F7", "L1.H3.z", "embed"):
        assert Site.parse(text).ends == (Site.parse(text),)


@pytest.mark.parametrize("given", [1, None, 2.5, ["L0.z"]])
def test_what_is_no_text_is_no_site(given):
    with pytest.raises(SiteError, match="is not a site: expected text such as 'L5.resid_pre'"):
        Site.parse(given)
