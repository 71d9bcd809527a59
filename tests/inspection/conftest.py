"""Dictionaries made by hand, so that what is to be found is known."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spec import DictionarySpec
from interp.models.model import Model
from interp.store.rows import Rows
from interp.weight_lenses.ends import tokens_in, unembedding
from tests import tiny

FRANCE, TWIN, PARIS, DEAD, ALWAYS = 0, 1, 2, 3, 4


@pytest.fixture(scope="package")
def model():
    return interp.load("demo")


@pytest.fixture(scope="package")
def gpt2():
    return interp.load(tiny.shared("gpt2"))


def transcoder(model: Model, d_sae: int = 12, *, activation: str = "relu", seed: int = 0,
               reads: str = "L0.mlp.input", writes: str = "L0.mlp_out", **options: int) -> Dictionary:  # fmt: skip
    """Random weights of small whole numbers: sums of whole inputs are then exact in any order."""
    generator = torch.Generator().manual_seed(seed)
    d = model.d_model
    spec = DictionarySpec("transcoder", (reads,), (writes,), d, d, d_sae, activation, options)
    tensors = {name: torch.randint(-3, 4, x.shape, generator=generator).float()
               for name, x in Dictionary(spec).state_dict().items()}  # fmt: skip
    tensors["parts.0.b_enc"] -= 30  # fires seldom
    return Dictionary.of(spec, tensors)


def whole_rows(model: Model, n: int = 900, *, site: str = "L0.mlp.input", seed: int = 0) -> Rows:
    """Activations of small whole numbers in documents of 1 to 30 tokens."""
    generator = torch.Generator().manual_seed(seed)
    document = torch.repeat_interleave(
        torch.arange(n), torch.randint(1, 31, (n,), generator=generator)
    )[:n]
    first = torch.cat([torch.tensor([True]), document[1:] != document[:-1]])
    position = torch.arange(n) - torch.arange(n).masked_fill(~first, 0).cummax(0).values
    x = torch.randint(-2, 3, (n, model.d_model), generator=generator).float()
    return Rows({site: x}, torch.randint(3, 40, (n,), generator=generator), document, position)


@pytest.fixture(scope="package")
def planted(model):
    """Five features: " France", one like it, one that writes " Paris", a dead one, one always active."""
    block = model.anatomy.blocks[0]
    seen = block.ln2(tokens_in(model)).detach()
    seen = seen - seen.mean(0)
    token = {word: model.to_single_token(word) for word in (" France", " Paris")}
    d = model.d_model
    noise = torch.randn(5, d, generator=torch.Generator().manual_seed(0)) / d**0.5
    enc, dec = noise.clone(), noise.roll(1, 0).clone()
    enc[FRANCE] = seen[token[" France"]] / seen[token[" France"]].norm()
    enc[TWIN] = enc[FRANCE] + 0.1 * noise[TWIN]
    dec[PARIS] = unembedding(model)[:, token[" Paris"]]
    dec[TWIN] = 2 * dec[FRANCE]
    bias = torch.tensor([-3.5, -3.5, 0.0, -1e4, 1e4])
    spec = DictionarySpec("transcoder", ("L0.mlp.input",), ("L0.mlp_out",), d, d, 5, "relu",
                          model="demo", weights_hash=model.weights_hash)  # fmt: skip
    return Dictionary.of(
        spec,
        {"parts.0.enc": enc, "parts.0.b_enc": bias, "parts.0.dec": dec, "b_dec": torch.zeros(d)},
    )


@pytest.fixture(scope="package")
def rows(model):
    """Activations of part of the demo corpus."""
    source = interp.stream(model, "demo", ["L0.mlp.input"], tokens=20_000)
    return list(source.batches(5000, shuffle=None))


@pytest.fixture(scope="package")
def found(planted, model, rows):
    return interp.inspection.features(planted, model, rows, k=10, controls=64)
