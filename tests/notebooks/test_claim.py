"""A claim holds only if every seed shows it and no control does."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from interp.errors import NotebookError
from interp.notebooks import Claim, Paper

HIGH = Claim(
    "score", {0: 0.9, 1: 0.95}, [0.1, 0.2], "shuffled", (10, 11), above=0.8, null_bound=0.3,
    paper=Paper(".97 on GPT-2", "Table 1"),
)  # fmt: skip
LOW = Claim("error", {0: 0.03}, [0.99], "permuted", "the paper's", below=0.1)


@pytest.mark.parametrize("claim", [HIGH, LOW])
def test_it_holds_and_its_null_in_its_place_does_not(claim):
    assert claim.shown
    assert not claim.refuted
    assert claim.holds
    assert not claim.swapped().holds
    assert not claim.swapped().shown


@pytest.mark.parametrize(
    "change",
    [
        {"values": {0: 0.9, 1: 0.8}},  # one seed is at the threshold
        {"values": {0: 0.9, 1: math.nan}},
        {"null": [0.1, 0.31]},  # the control shows part of it
        {"null": [math.nan]},
    ],
)
def test_one_seed_or_one_null_number_is_enough_to_fail(change):
    assert not replace(HIGH, **change).holds


@pytest.mark.parametrize("change", [{"values": {0: 0.1}}, {"null": [0.09]}])
def test_below_is_the_mirror_image(change):
    assert not replace(LOW, **change).holds


def test_the_null_may_lie_at_the_threshold_itself_where_it_has_no_bound_of_its_own():
    assert replace(HIGH, null_bound=None, null=[0.8]).holds
    assert not replace(HIGH, null_bound=None, null=[0.81]).holds


def test_a_null_without_a_number_cannot_pass_for_the_effect():
    lost = replace(HIGH, null=[math.nan])
    assert not lost.holds
    assert not lost.swapped().holds


@pytest.mark.parametrize("claim", [HIGH, LOW])
def test_json_keeps_it(claim):
    again = Claim.from_json(json.loads(json.dumps(claim.to_json())))
    assert again == claim
    assert again.to_json() == claim.to_json()


def test_what_follows_is_computed_and_not_read():
    """A file that says "holds" of numbers that do not is not believed."""
    written = HIGH.to_json() | {"values": {"0": 0.1}, "holds": True, "mean": 0.9}
    assert not Claim.from_json(written).holds
    assert Claim.from_json(written).mean == 0.1


def test_it_is_told_with_its_range():
    assert HIGH.told == "0.925 [0.9, 0.95]"
    assert HIGH.null_told == "0.15 [0.1, 0.2]"
    assert repr(HIGH).startswith("✓ score: 0.925 [0.9, 0.95] (> 0.8); shuffled: 0.15")
    assert repr(LOW) == "✓ error: 0.03 (< 0.1); permuted: 0.99 (≥ 0.1)"
    assert repr(replace(LOW, values={0: 1.0})).startswith("✗")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"below": 0.9}, "above=0.8, below=0.9; expected one of the two"),
        ({"above": None}, "above=None, below=None"),
        ({"values": {}}, "0 values and 2 null values"),
        ({"null": []}, "a control that must not show it"),
        ({"null_bound": 0.85}, "lies on the good side of the threshold > 0.8"),
        ({"basis": (1, 10)}, r"fixed on seeds \[1, 10\], and \[1\] are seeds of the claim too"),
    ],
)
def test_what_no_claim_can_be_is_refused(change, text):
    with pytest.raises(NotebookError, match=text):
        replace(HIGH, **change)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_holds_what_json_can_hold(value):
    """A notebook with nan in its outputs cannot be opened in a browser."""
    claim = replace(HIGH, values={0: value, 1: 1.0}, null=[value])
    text = json.dumps(claim.to_json(), allow_nan=False)
    again = Claim.from_json(json.loads(text))
    assert repr(again) == repr(claim)
    assert again.holds == claim.holds


@pytest.mark.parametrize("basis", ["", ()])
def test_a_threshold_comes_from_somewhere(basis):
    with pytest.raises(
        NotebookError, match="says nothing; expected where its threshold comes from"
    ):
        replace(HIGH, basis=basis)
