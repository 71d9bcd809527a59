"""Which sites a harvest reads, and which belong together."""

from __future__ import annotations

import pytest

import interp
from interp.errors import SiteError
from interp.harvesting.wanted import wanted
from interp.sites import Edge


def test_sites_come_with_the_shape_of_a_row(demo):
    shapes = wanted(
        demo, ["L*.resid_post", "L2.z", "L1.H3.z", "L1.H0,2.z", "L0.mlp_post.N7", "embed"]
    ).named
    assert list(shapes)[:4] == [f"L{i}.resid_post" for i in range(4)]
    assert shapes["L2.z"] == (6, 32)
    assert shapes["L1.H3.z"] == (32,)
    assert shapes["L1.H0,2.z"] == (2, 32)
    assert shapes["L0.mlp_post.N7"] == ()
    assert shapes["embed"] == (192,)


def test_an_mlp_is_a_pair_and_an_edge_too(demo):
    found = wanted(demo, ["L1-2.mlp", "L0.resid_post -> L2.resid_pre", Edge.parse("L0.z->L0.z")])
    assert found.pairs == (
        ("L1.mlp.input", "L1.mlp_out"),
        ("L2.mlp.input", "L2.mlp_out"),
        ("L0.resid_post", "L2.resid_pre"),
        ("L0.z", "L0.z"),
    )
    assert len(found.sites) == 7
    assert found.width == 6 * 192 + 192


def test_the_same_site_twice_is_read_once(demo):
    assert wanted(demo, ["L1.mlp", "L1.mlp_out", "blocks.1.hook_mlp_out"]).named.keys() == {
        "L1.mlp.input",
        "L1.mlp_out",
    }


@pytest.mark.parametrize(
    ("sites", "text"),
    [
        ([], "no sites to harvest were given"),
        (
            "L1.pattern",
            "'L1.pattern' cannot be harvested: expected a site with a value for each token",
        ),
        ("L1.resid_pre@-1", "cannot be harvested"),
        ("L1.mlp.F3", "no dictionary is attached"),
        ("L1.resid_prr", "nearest: 'L1.resid_pre'"),
        ("L9.mlp", "out of range"),
        ("L*.mlp.input -> L1.mlp_out", "pairs 4 sites with 1"),
        ("logits", "logits are not a site"),
    ],
)
def test_what_is_no_site_of_a_token_is_refused(demo, sites, text):
    with pytest.raises(SiteError, match=text):
        wanted(demo, sites)


def test_harvest_is_public():
    assert interp.harvest.__module__ == "interp.harvesting.verb"
