"""Dictionaries spliced into a run: exact, of the tokens asked for, as ``model.replaced`` does it."""

from __future__ import annotations

import pytest
import torch

from interp.errors import DictionaryError
from interp.evaluation.spliced import Placed, splicing, written
from tests.evaluation import built

TEXTS = ["The capital of France is Paris.", "People in Brazil speak", "The capital of Japan is"]


def _logits(demo, dictionaries, keep=None, **options):
    batch = demo.batch(TEXTS)
    placed = [Placed.of(demo, one, str(i)) for i, one in enumerate(dictionaries)]
    edits = splicing(placed, batch.mask if keep is None else keep)
    return demo.run(batch, edit=edits, **options).logits[batch.mask]


def test_an_identity_changes_nothing(demo):
    own = demo.run(demo.batch(TEXTS)).logits[demo.batch(TEXTS).mask]
    for site in ("L0.mlp_out", "L2.resid_post", "L1.attn_out"):
        torch.testing.assert_close(_logits(demo, [built.identity(site, 192)]), own)
    together = [built.identity(f"L{n}.mlp_out", 192) for n in range(4)]
    torch.testing.assert_close(_logits(demo, together), own)


def test_several_axes_count_as_one_vector(demo):
    own = demo.run(demo.batch(TEXTS)).logits[demo.batch(TEXTS).mask]
    torch.testing.assert_close(_logits(demo, [built.identity("L1.z", 192)]), own)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("sae", range(1, 2)),
        ("transcoder", range(2, 3)),
        ("skip_transcoder", range(0, 1)),
        ("cross_layer_transcoder", range(1, 4)),
    ],
)
def test_the_same_as_replaced(demo, kind, layers):
    one = built.random(kind, layers, 192, 40)
    have = _logits(demo, [one])
    with demo.replaced(one) as model:
        batch = model.batch(TEXTS)
        want = model.run(batch).logits[batch.mask]
    torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-9)


def test_only_kept_tokens_are_replaced(demo):
    batch = demo.batch(TEXTS)
    keep = batch.mask.clone()
    keep[:, :3] = False
    one = Placed.of(demo, built.random("sae", range(1, 2), 192, 40), "one")
    run = demo.run(batch, edit=splicing([one], keep), save="L1.resid_post")
    own = demo.run(batch, save="L1.resid_post").cache["L1.resid_post"]
    same = (run.cache["L1.resid_post"] == own).all(-1)
    assert torch.equal(same, ~keep)


def test_a_run_in_parts_is_the_same_run(demo):
    one = built.random("cross_layer_transcoder", range(0, 3), 192, 40)
    torch.testing.assert_close(_logits(demo, [one], batch=2), _logits(demo, [one]))


def test_parts_add_up_to_the_dictionary(demo):
    one = built.random("cross_layer_transcoder", range(0, 3), 192, 40)
    x = torch.randn(3, 7, 192, dtype=torch.float64)
    outs = Placed.of(demo, one, "one").sums([written(one, i, x[i]).out for i in range(3)])
    torch.testing.assert_close(torch.stack(outs), one(x))
    assert int(written(one, 0, x[0]).fired.sum()) == int(written(one, 0, x[0]).active.sum())


def test_two_cannot_write_to_one_site(demo):
    with pytest.raises(DictionaryError, match=r"several dictionaries write to 'L1.resid_post'"):
        _logits(demo, [built.identity("L1.resid_post", 192)] * 2)


def test_another_width_is_refused(demo):
    with pytest.raises(
        DictionaryError, match=r"made for 64 numbers at 'L1.mlp_out', and .* has 192"
    ):
        Placed.of(demo, built.identity("L1.mlp_out", 64), "narrow")
