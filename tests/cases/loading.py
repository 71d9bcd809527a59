"""Reads the models with a known circuit that lie beside this file (README.md says what they are)."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

import interp
from interp.metrics import Metric
from interp.models.hooked import from_weights
from interp.models.model import Model

__all__ = ["CASES", "Case", "load_case"]

CASES = ("hist", "induction", "pair_balance", "reverse", "xproportion")
HERE = Path(__file__).resolve().parent
Kind = Literal["linear", "l2"]


@dataclass(frozen=True, eq=False)
class Case:
    """A compiled model, its prompts, and what is true of it.

    Attributes:
        cfg: ``config.json``.
        weights: by TransformerLens's names, in float32 as stored.
        data: ``data.safetensors``, one row for each pair.
        truth: ``edges.json``.
        golden: scores of edges ``[source, dest]`` and grids, in float64.
        dtype: of the model and of the logits that are compared.
    """

    name: str
    cfg: dict[str, Any]
    weights: dict[str, Tensor]
    data: dict[str, Tensor]
    truth: dict[str, Any]
    golden: dict[str, Tensor]
    dtype: torch.dtype

    @property
    def clean(self) -> Tensor:
        return self.data["clean"]

    @property
    def corrupted(self) -> Tensor:
        return self.data["corrupted"]

    @property
    def nodes(self) -> list[str]:
        """Sources, the rows of the golden matrices."""
        return list(self.truth["nodes"])

    @property
    def dests(self) -> list[str]:
        """Destinations, the columns of the golden matrices."""
        return list(self.truth["dests"])

    def edges(self, which: str = "resample") -> set[str]:
        """The edges of the circuit: ``"resample"``, ``"zero"`` or ``"structural"``; ``"all"``."""
        edges = self.truth["edges"] if which == "all" else self.truth["circuits"][which]["edges"]
        return set(edges)

    def metric(
        self, logits: Float[Tensor, "*cells prompt pos vocab"], kind: Kind = "linear"
    ) -> Float[Tensor, "*cells prompt"]:
        """Mean over scored positions of ``logits · direction``, or of the squared distance to the
        clean logits (``"l2"``)."""
        mask = self.data["mask"].to(logits.dtype)
        if kind == "linear":
            values = (logits * self.data["direction"].to(logits.dtype)).sum(-1)
        else:
            values = ((logits - self.data["clean_logits"].to(logits.dtype)) ** 2).sum(-1)
        return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1)

    def as_metric(self, kind: Kind = "linear") -> Metric:
        """The same as a metric of all positions, for the prompts of :meth:`prompts` as they are."""

        def compute(logits: Tensor, prompts: Any, side: Any) -> Tensor:
            return self.metric(logits, kind)

        return Metric(kind, kind, "all", compute, needs_answers=False)

    def model(self, *, through_hooked: bool = False, check: Any = "quick") -> Model:
        """The model. Built from the weights, without importing TransformerLens, which takes seconds;
        ``through_hooked=True`` gives ``interp.load`` a HookedTransformer: the same to the bit."""
        if through_hooked:
            return interp.load(self.hooked_transformer(), check=check)
        hf = from_weights(self._fields(), self.weights, dtype=self.dtype)
        return Model.wrap(hf, None, name=self.name, level=check)

    def prompts(self) -> interp.Prompts:
        """All pairs, clean and corrupted."""
        batches = [interp.TokenBatch.of(ids) for ids in (self.clean, self.corrupted)]
        return interp.Prompts(*batches, name=self.name)

    def hooked_transformer(self) -> Any:
        """The same weights as a HookedTransformer."""
        with quiet():
            from transformer_lens import HookedTransformer, HookedTransformerConfig

            fields = {**self._fields(), "device": "cpu", "dtype": self.dtype}
            hooked = HookedTransformer(HookedTransformerConfig(**fields))
        state = dict(hooked.state_dict())
        state.update({name: value.to(self.dtype) for name, value in self.weights.items()})
        hooked.load_state_dict(state)
        return hooked

    def _fields(self) -> dict[str, Any]:
        names = (
            "n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "d_vocab", "d_vocab_out",
            "act_fn", "normalization_type", "attention_dir",
        )  # fmt: skip
        return {**{name: self.cfg[name] for name in names}, "model_name": self.name}


@contextlib.contextmanager
def quiet():
    """TransformerLens announces, logs and deprecates as it is imported and builds a model."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


@cache
def load_case(name: str, dtype: torch.dtype = torch.float64) -> Case:
    """One of :data:`CASES`. Read once; its tensors are shared, so do not write to them."""
    folder = HERE / name
    return Case(
        name=name,
        cfg=json.loads((folder / "config.json").read_text()),
        weights=load_file(folder / "model.safetensors"),
        data=load_file(folder / "data.safetensors"),
        truth=json.loads((folder / "edges.json").read_text()),
        golden=load_file(folder / "golden.safetensors"),
        dtype=dtype,
    )
