"""Clamps put a part of the induction circuit into its perfect form, and nothing else."""

from __future__ import annotations

import pytest
import torch

import interp
from interp import toys
from interp.errors import ToyError

TASK = toys.InContext(classes=6, held_out=4, d_in=8)
ROWS = TASK.batch(20, torch.Generator().manual_seed(0))


def small(**options):
    given = {
        "d_out": TASK.d_out,
        "n_ctx": 5,
        "n_layers": 2,
        "n_heads": 2,
        "d_model": 16,
        "positions": "rotary",
    }
    return toys.transformer(features=TASK.features, **given | options)


def patterns(toy, clamp):
    return toy.run(ROWS.inputs, edit=clamp(ROWS), save=["L0.pattern", "L1.pattern"]).saved


def test_previous_token_is_that_of_all_heads_or_of_one():
    toy, perfect = small(), toys.previous_token(5)
    assert torch.equal(perfect.argmax(-1), torch.tensor([0, 0, 1, 2, 3]))
    found = patterns(toy, toys.perfect_previous_token())["L0.pattern"]
    assert torch.equal(found, perfect.expand(20, 2, 5, 5))
    assert toys.previous_token_strength(toy, ROWS).max() < 1
    one = patterns(toy, toys.perfect_previous_token("L0.H1.pattern"))["L0.pattern"]
    own = toy.run(ROWS.inputs, save="L0.pattern").saved["L0.pattern"]
    assert torch.equal(one[:, 1], found[:, 1])
    assert torch.equal(one[:, 0], own[:, 0])


def test_match_attends_to_the_right_label_from_the_query_alone():
    toy = small()
    found = patterns(toy, toys.perfect_match())["L1.pattern"]
    own = toy.run(ROWS.inputs, save="L1.pattern").saved["L1.pattern"]
    assert torch.equal(found[:, :, -1].argmax(-1), ROWS.facts["correct"][:, None].expand(20, 2))
    assert torch.equal(found[:, :, -1].max(-1).values, torch.ones(20, 2))
    assert torch.equal(found[:, :, :-1], own[:, :, :-1])
    # the label it attends to is the target
    looked_up = (
        ROWS.inputs.gather(1, ROWS.facts["correct"][:, None])[:, 0] - TASK.classes - TASK.held_out
    )
    assert torch.equal(looked_up, ROWS.targets)


@pytest.mark.bad_input  # no Toy, but something that runs like one
def test_strength_is_one_under_a_perfect_match_and_minus_one_under_the_wrong():
    class Clamped:
        """A toy whose patterns are clamped in each run."""

        def __init__(self, toy, clamp):
            self.toy, self.clamp = toy, clamp

        def run(self, inputs, **options):
            return self.toy.run(inputs, edit=self.clamp(ROWS), **options)

    toy = small()
    assert torch.allclose(
        toys.induction_strength(Clamped(toy, toys.perfect_match()), ROWS), torch.ones(2)
    )
    assert toys.induction_strength(toy, ROWS).abs().max() < 0.9
    with pytest.raises(ToyError, match="'correct' and 'incorrect'"):
        toys.induction_strength(toy, toys.Batch(ROWS.inputs, ROWS.targets))


def test_copy_makes_the_heads_scores_the_logits():
    toy = small()
    scores = toy.run(ROWS.inputs, save="L1.attn_scores").saved["L1.attn_scores"][:, 0, -1]
    logits = toys.outputs(toy, ROWS, readout=toys.perfect_copy(TASK.d_out))
    rows = torch.arange(20)
    for place, position in enumerate((1, 3)):
        assert torch.equal(logits[rows, ROWS.facts["labels"][:, place]], scores[rows, position])
    assert int((logits > -1e8).sum()) == 40


def test_a_perfect_layer_0_makes_keys_of_the_exemplars():
    """With queries and keys that read the exemplar, the query's own exemplar gets the largest score."""
    toy = small(norm=None, positions="none")
    with torch.no_grad():
        for weight in (toy.hf.model.blocks[1].attn.q, toy.hf.model.blocks[1].attn.k):
            weight.weight.copy_(torch.eye(16))
            weight.bias.zero_()
    forward = toys.perfect_layer_0(copy_from="L1.H0")
    whole = toys.perfect_layer_0()
    assert forward(toy, ROWS).argmax(-1).eq(ROWS.targets).double().mean() > 0.9
    assert (
        toys.outputs(toy, ROWS, readout=toys.perfect_copy(5))
        .argmax(-1)
        .eq(ROWS.targets)
        .double()
        .mean()
        < 0.8
    )
    assert whole(toy, ROWS).shape == (20, 5, TASK.d_out)


def test_only_one_head_is_left():
    toy = small(n_heads=4)
    logits = toys.outputs(toy, ROWS, clamp=toys.only_head(2, 4))
    edits = {f"L1.H{h}.z": interp.Zero() for h in (0, 1, 3)}
    # values of zero, with the value bias gone too: z is zero
    assert torch.allclose(logits, toy.run(ROWS.inputs, edit=edits).logits, atol=1e-6)
    assert toys.only_head(0, 1)(ROWS) == {}


def test_kept_patterns_and_values_leave_the_direct_path():
    toy = small()
    kept = toys.keep_pattern_and_values(toy, ROWS, "L0.z")
    saved = toy.run(ROWS.inputs, save=["embed", "L1.attn_out"]).saved
    ablated = toy.run(
        ROWS.inputs,
        edit={"L1.attn_out": interp.Replace(saved["L1.attn_out"]), "L0.z": interp.Zero()},
    ).logits
    assert torch.allclose(kept, ablated, atol=1e-5)
    assert not torch.allclose(
        kept, toy.run(ROWS.inputs, edit={"L0.z": interp.Zero()}).logits, atol=1e-3
    )


def test_clamps_go_together_if_their_sites_differ():
    two = toys.both(toys.perfect_previous_token(), toys.perfect_match())
    assert set(two(ROWS)) == {"L0.pattern", "L1.pattern"}
    with pytest.raises(ToyError, match=r"two clamps are of 'L1.pattern'"):
        toys.both(toys.perfect_match(), toys.perfect_match())(ROWS)
    with pytest.raises(ToyError, match="needs the fact 'correct'"):
        toys.perfect_match()(toys.Batch(ROWS.inputs, ROWS.targets))


@pytest.mark.parametrize(
    ("queries", "of"),
    [
        (slice(1, None), [1, 2, 3, 4]),
        (slice(1, 3), [1, 2]),
        (slice(0, None, 2), [2, 4]),
        (slice(1, None, 2), [1, 3]),
        (slice(-1, None), [4]),
    ],
)
def test_previous_token_strength_is_of_the_queries_asked_for(queries, of):
    toy = small()
    pattern = toy.run(ROWS.inputs, save="L0.pattern").saved["L0.pattern"]
    expected = torch.stack([pattern[:, :, q, q - 1] for q in of]).mean((0, 1))
    found = toys.previous_token_strength(toy, ROWS, queries=queries)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ToyError, match="none has a token before it"):
        toys.previous_token_strength(toy, ROWS, queries=slice(0, 1))
