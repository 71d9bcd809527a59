"""What callers name: sites as a harvest takes them, tokens by number, and what is neither."""

import pytest
import torch

from interp.errors import StoreError
from interp.sites import Edge, Site
from interp.store.store import ActivationStore
from tests.store.reading import table, write


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    rows = table(150)
    return rows, write(tmp_path_factory.mktemp("store") / "s", rows)


@pytest.mark.bad_input
def test_sites_are_asked_for_as_a_harvest_is(tmp_path):
    sites = {
        "L0.H1.z": (3,),
        "L0.z": (2, 3),
        "L2.mlp.input": (4,),
        "L2.mlp_out": (4,),
        "L10.z": (2, 3),
    }
    store = write(tmp_path / "s", table(20, sites=sites), pairs=(("L2.mlp.input", "L2.mlp_out"),))
    pair = ("L2.mlp.input", "L2.mlp_out")
    for asked, names in (
        ("L2.mlp", pair), ("L*.mlp", pair), ("L2.mlp.input -> L2.mlp_out", pair),
        (Edge.parse("L2.mlp_out -> L0.z"), ("L2.mlp_out", "L0.z")), ("L2.*", pair),
        ("L*.z", ("L0.z", "L10.z")), ("L*.H*.z", ("L0.H1.z",)), ("L0,10.z", ("L0.z", "L10.z")),
        (Site.parse("L*.mlp_out"), ("L2.mlp_out",)), (["L10.z", "L2.mlp"], ("L10.z", *pair)),
    ):  # fmt: skip
        assert tuple(ActivationStore.open(store.folder, sites=asked).sites) == names
        assert store.rows(0, sites=asked).sites == names
    for asked, lacking in (
        ("L0-1.z", "L1.z"),
        ("L3.mlp", "L3.mlp.input"),
        ("L-1.z", "L-1.z"),
        ("L*.q", r"L\*.q"),
    ):
        with pytest.raises(StoreError, match=f"lacks '{lacking}'"):
            ActivationStore.open(store.folder, sites=asked)
    with pytest.raises(StoreError, match="sites=3; expected a site, several"):
        store.rows(0, sites=3)


def test_a_token_beyond_the_numbers_is_not_another_one(made):
    """Document and position are searched as one number: position 2³² + p is not the next document's."""
    _, store = made
    for document, position in (
        (0, 2**32 + 5),
        (0, 2**31),
        (2**40, 1),
        ([2**40, 3], [1, 1]),
        (2**32, 1),
    ):
        with pytest.raises(
            StoreError, match=r"document (0|\d{10,}), position \d+ is not in the store"
        ):
            store.find(document, position)


def test_a_context_of_any_length(made):
    """All of the document, at the cost of what it has."""
    rows, store = made
    assert torch.equal(store.context(25, before=10**12, after=2**40), rows.tokens[20:30])


@pytest.mark.bad_input
def test_arguments_that_are_none(made):
    _, store = made
    for ask, told in (
        (lambda: store.rows(slice(0.5, 3)), "no slice of rows"),
        (lambda: store.rows(slice(None, None, 0)), "no slice of rows"),
        (lambda: store.rows([[1], [2, 3]]), "no row of whole numbers"),
        (lambda: store.rows(torch.tensor([1.0], dtype=torch.bfloat16)), "rows by float32"),
        (lambda: store.context([1, 2]), "2 rows; expected the number of one"),
        (lambda: store.context("a"), "rows by <U1"),
        (lambda: store.context(3, after=1.5), "after=1.5; expected numbers of tokens"),
        (lambda: store.stats([]), "statistics of no site"),
        (lambda: store.stats(rows="5"), "statistics of '5' rows"),
        (lambda: store.to_datasets(sites=[]), "a data set of no site"),
        (lambda: store.batches(8, dtype="float32"), "dtype='float32'; expected a torch dtype"),
        (lambda: store.batches(8, device="gpu"), "device='gpu' cannot be had"),
        (lambda: store.batches(8, part=1), "part=1 of batches"),
        (lambda: store.batches(8).load_state_dict(None), "None is no position"),
        (
            lambda: ActivationStore.open(store.folder, model="demo"),
            "model='demo'; expected a model",
        ),
        (lambda: ActivationStore.from_datasets("/nowhere", store.folder), "holds no data set"),
    ):
        with pytest.raises(StoreError, match=told):
            ask()
