"""Sweeps nobody would think of: random sites, groups, positions, sources and metrics."""

from __future__ import annotations

import random
import warnings
from copy import deepcopy

import pytest
import torch

import interp
from interp.errors import MetricError
from interp.sites import POINTS
from tests import tiny
from tests.engine.cases import assert_equal, pairs

FAMILIES = (*tiny.REGISTRY, *tiny.OWN_ATTENTION, *tiny.FALCONS)
METRICS = ("logit_diff", "prob", "prob_diff", "log_prob", "kl", "nll", "rank", "accuracy", "mine")
SOURCES = (None, None, None, "zero", "mean", "resample", "noise", interp.Scale(0.5), "tensor")


def mine(logits, prompts):
    """A score of every position but the padding, whose logits are nobody's."""
    spread = logits.float().logsumexp(-1) * prompts.clean.mask
    rows = torch.arange(len(prompts), device=logits.device)
    return spread.sum(-1) - logits[rows, prompts.answer_column, 7]


def prompts_of(model, draw):
    """Up to five pairs of up to eleven tokens; each pair differs from a column of its own on."""
    rows, width = draw.randint(2, 5), draw.randint(4, 11)
    padding = draw.choice(["none", "none", "left", "right"])
    numbers = torch.Generator().manual_seed(draw.randrange(10**6))

    def ids(*shape):
        return torch.randint(3, tiny.VOCAB, shape, generator=numbers)

    clean, corrupted = ids(rows, width), ids(rows, width)
    for row in range(rows):
        same = draw.randrange(width)
        corrupted[row, :same] = clean[row, :same]
        if draw.random() < 0.5:  # one other token, then the same again
            corrupted[row, same + 1 :] = clean[row, same + 1 :]
    answers = [draw.sample(range(3, tiny.VOCAB), draw.randint(1, 2)) for _ in range(rows)]
    foils = [[draw.choice([n for n in range(3, tiny.VOCAB) if n not in few])] for few in answers]
    answers = torch.tensor([[*few, -1][:2] for few in answers])
    lengths = [width if padding == "none" else draw.randint(3, width) for _ in range(rows)]
    lengths[0] = width
    batches = [
        interp.TokenBatch.stack(
            [some[:n].tolist() for some, n in zip(side, lengths, strict=True)],
            pad="right" if padding == "none" else padding,
        )
        for side in (clean, corrupted)
    ]
    where = batches[0].column(torch.tensor([draw.randrange(n) for n in lengths]))
    return interp.Prompts(
        *batches, answers=answers, foils=torch.tensor(foils), positions={"here": where}
    )


def site_of(model, draw, *, wild):
    """A site that the model has; with ``wild`` its layer may be a range."""
    names = [n for n, p in POINTS.items() if n not in model.anatomy.refused and not p.spliced]
    names.remove("logits")
    point = POINTS[draw.choice(names)]
    layers, heads = model.anatomy.n_layers, model.anatomy.n_heads
    text = ""
    if point.layered:
        layer = draw.randrange(layers)
        text += draw.choice(["L*.", f"L{layer}-{layers - 1}."]) if wild else f"L{layer}."
    if point.headed and draw.random() < 0.8:
        heads = model.anatomy.n_kv_heads if "kv_head" in point.axes else heads
        head = draw.randrange(heads)
        text += draw.choice(["H*.", f"H{head}.", f"H0,{head}."]) if wild and head else f"H{head}."
    text += point.name
    if point.name in ("mlp_pre", "mlp_post") and draw.random() < 0.5:
        text += f".N{draw.randrange(32)}"
    return text, point


def sweep_of(model, prompts, draw):
    """Sites and positions: a site with axes, or a group of sites that each stand at a position."""
    width = int(prompts.clean.mask.sum(1).min())
    places = ["here", "END", -1, -2, draw.randrange(width)]
    if draw.random() < 0.5:
        site, point = site_of(model, draw, wild=True)
        if "pos" not in point.axes:
            return site, "all"
        return site, draw.choice(["all", "each", draw.sample(places, 2), "here"])
    group = []
    for _ in range(draw.randint(2, 4)):
        site, point = site_of(model, draw, wild=False)
        if "pos" in point.axes and draw.random() < 0.7:
            site += f"@{draw.choice(places)}"
        group.append(site)
    return " + ".join(group), None


def call_of(model, prompts, draw):
    """What to patch, and all other arguments."""
    sites, positions = sweep_of(model, prompts, draw)
    source, metric = draw.choice(SOURCES), draw.choice(METRICS)
    if source == "tensor":
        source = torch.tensor(draw.uniform(-1, 1))
    by_column = isinstance(source, str) and source in ("mean", "resample")
    if by_column and prompts.clean.padded:
        source = "zero"
    given = source == "zero" if isinstance(source, str) else source is not None
    if given and metric in ("rank", "accuracy"):
        metric = "prob"  # where all logits are equal, rounding decides on those
    if given and "resid_mid" in sites:
        source = None  # the plain path rounds there, and a norm of almost zero enlarges it
    by_padding = prompts.clean.padded and model.anatomy.name == "falcon"
    if by_padding and ("pattern" in sites or "attn_scores" in sites):
        source = None  # what stands at padding depends on the kernel; a source may attend to it
    options = {
        "direction": draw.choice(["denoise", "noise"]), "source": source,
        "reference": prompts if isinstance(source, str) and source == "mean" else None,
        "metric": mine if metric == "mine" else metric, "positions": positions,
        "batch": draw.choice(["auto", "auto", 1, 2, 3]), "seed": draw.randrange(100),
    }  # fmt: skip
    return sites, options


@pytest.mark.parametrize("family", FAMILIES)
def test_random_sweeps(family):
    draw = random.Random(f"sweeps of {family}")
    model = interp.load(tiny.shared(family), check=False)
    for _ in range(4):
        prompts = prompts_of(model, draw)
        sites, options = call_of(model, prompts, draw)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="these prompts differ in length")
            try:
                assert_equal(model, prompts, sites, **options)
            except MetricError:  # a norm's scale of zero, say: the plain path refuses it too
                with pytest.raises(MetricError, match="contain NaN"):
                    interp.patch(model, prompts, sites, engine="plain", **options)
            except AssertionError:  # a norm of almost zero, say, which enlarges what is rounded
                double = interp.load(deepcopy(model.hf).double(), check=False)
                assert_equal(double, prompts, sites, tolerance=1e-9, **options)


@pytest.mark.parametrize("family", ["gpt2", "llama", "falcon-heads", "granite"])
def test_of_edits_that_overlap_the_last_counts(family):
    """Found by random sweeps: what two edits of one place changed was added up."""
    model = interp.load(tiny.shared(family), check=False)
    for group in (
        "embed@4 + embed",
        "embed + embed@-1",
        "L1.mlp_post.N3@5 + L1.mlp_post@5",
        "L1.mlp_post.N3 + L1.mlp_post.N3-5 + L1.mlp_out@-1",
        "L1.mlp_out + L1.mlp_post@4",
        "L1.H0.z + L1.z@4 + L1.attn_out@-1",
        "L1.attn_out@4 + L1.attn_out + L1.resid_post@-1",
    ):
        for source in (None, "noise"):
            direction = "noise" if source else "denoise"
            assert_equal(model, pairs(model), group, source=source, direction=direction)


def test_cells_keep_their_places_however_they_enter():
    """Found by random sweeps: cells that enter a block in different ways came back in another order.

    Where the position is a prompt's last, both edits stand in one column and enter there; in the
    other cells they do not.
    """
    model = interp.load(tiny.shared("falcon-heads"), check=False)
    prompts = pairs(model, "right")
    for group in ("L0.attn_out + L0.H3.z@-1", "L1.attn_out + L1.mlp_out@-1"):
        for batch in (1, 2, "auto"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="these prompts differ in length")
                assert_equal(model, prompts, group, source="zero", batch=batch)
