"""The logit lens: what would each layer say, if the model stopped there?

The residual stream before each block, and after the last, goes through the
model's own final norm and unembedding. The last row is the model's output itself.
An early layer need not write in the output's basis, so an unreadable early row
means little; a readable one means something.

Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance, read_file, write_file
from interp.runs.execute import execute
from interp.taps.unembed import unembed
from interp.token_batch import TokenBatch

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["LensResult", "lens"]


@dataclass(frozen=True, eq=False, repr=False)
class LensResult:
    """What each layer predicts next, at each position.

    Row ``i`` of the layer axis is the residual stream before block ``i``; the last row is the
    one after the last block, which is the model's own prediction. At padding, numbers mean
    nothing.

    Attributes:
        layers: ``"L0" ... "out"``.
        top_ids: the ``k`` most probable next tokens, most probable first.
        top_probs: their probabilities.
        entropy: of the prediction, in nats.
        kl: KL(model's output ‖ this layer's prediction), in nats; 0 in the last row.
        answer_prob, answer_rank: of the prompts' answers (the best of a set), at the answer
            position; rank 0 is the top. None where the prompts have no answers.
        tokens: the input tokens as text.
    """

    layers: tuple[str, ...]
    top_ids: Int[Tensor, "layer batch pos k"]
    top_probs: Float[Tensor, "layer batch pos k"]
    entropy: Float[Tensor, "layer batch pos"]
    kl: Float[Tensor, "layer batch pos"]
    answer_prob: Float[Tensor, "layer batch"] | None
    answer_rank: Int[Tensor, "layer batch"] | None
    tokens: tuple[tuple[str, ...], ...]
    top_tokens: tuple[tuple[tuple[str, ...], ...], ...]
    last: Int[Tensor, " batch"]
    provenance: Provenance

    def __repr__(self) -> str:
        n_layers, batch, pos, _ = self.top_ids.shape
        return f"LensResult({n_layers} layers × {batch} prompts × {pos} positions)"

    def accuracy(self) -> Float[Tensor, " layer"]:
        """Share of prompts whose answer is each layer's top token.

        Raises:
            PromptError: the prompts had no answers.
        """
        if self.answer_rank is None:
            raise PromptError(
                "these prompts had no answers: pass Prompts with answers to the lens."
            )
        return (self.answer_rank == 0).float().mean(-1)

    def to_frame(self, prompt: int = 0) -> DataFrame:
        """One row for each layer and position of a prompt: top token, probability, entropy, KL."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for i, layer in enumerate(self.layers):
            for position, token in enumerate(self.tokens[prompt]):
                if token:
                    rows.append({
                        "layer": layer, "position": position, "token": token,
                        "top": self.top_tokens[i][prompt][position],
                        "prob": float(self.top_probs[i, prompt, position, 0]),
                        "entropy": float(self.entropy[i, prompt, position]),
                        "kl": float(self.kl[i, prompt, position]),
                    })  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, prompt: int = 0, *, title: str = "logit lens") -> Figure:
        """The top token of each layer and position of one prompt, coloured by its probability."""
        from interp.figures import lens_table

        shown = [i for i, token in enumerate(self.tokens[prompt]) if token]
        return lens_table(
            [
                [self.top_tokens[layer][prompt][i] for i in shown]
                for layer in range(len(self.layers))
            ],
            self.top_probs[:, prompt, shown, 0],
            rows=self.layers,
            columns=[self.tokens[prompt][i] for i in shown],
            title=title,
        )

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file."""
        tensors = {n: v for n, v in vars(self).items() if isinstance(v, Tensor)}
        meta = {n: v for n, v in vars(self).items() if not isinstance(v, Tensor) and v is not None}
        return write_file(path, "LensResult", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> LensResult:
        """Read a saved result."""
        tensors, meta = read_file(path, "LensResult")
        meta["provenance"] = Provenance(**meta["provenance"])
        meta["layers"] = tuple(meta["layers"])
        meta["tokens"] = tuple(tuple(row) for row in meta["tokens"])
        meta["top_tokens"] = tuple(tuple(tuple(r) for r in layer) for layer in meta["top_tokens"])
        return cls(**{"answer_prob": None, "answer_rank": None, **meta, **tensors})


@torch.no_grad()
def lens(model: Model, inputs: Any, *, top: int = 5) -> LensResult:
    """Read the residual stream at each layer and position in the model's vocabulary.

    Args:
        inputs: whatever ``model.run`` takes; Prompts with answers are also scored by answer.
        top: how many tokens to keep for each cell.

    Raises:
        ModelError: the model's head is more than a norm and an unembedding that this package
            knows, so that the last row would not be the model's own output.
        PromptError: ``top`` is not between 1 and the vocabulary's size.
    """
    if not 1 <= top <= model.d_vocab:
        raise PromptError(f"top={top}; expected 1 to {model.d_vocab}, the vocabulary's size.")
    batch = model.batch(inputs)
    run = execute(model.anatomy, batch, save=["L*.resid_pre", "L-1.resid_post"])
    stream, final = run.cache.stack_residual(), run.logits.float()
    _proven(model, stream[-1], final)
    answers = inputs.answers if isinstance(inputs, Prompts) else None
    columns = inputs.answer_column if isinstance(inputs, Prompts) else batch.column(-1)
    rows = [_read(model, resid, final, answers, columns.to(model.device), top) for resid in stream]
    stacked = {name: torch.stack([row[name] for row in rows]).cpu() for name in rows[0]}
    return LensResult(
        layers=(*(f"L{i}" for i in range(model.n_layers)), "out"),
        tokens=_texts(model, batch),
        top_tokens=_words(model, stacked["top_ids"][..., 0]),
        last=columns.cpu(),
        provenance=Provenance.of(model, inputs, verb="lens", top=top),
        **{"answer_prob": None, "answer_rank": None, **stacked},  # type: ignore[arg-type]
    )


def _proven(model: Model, last: Tensor, logits: Tensor) -> None:
    read = unembed(model.anatomy, last).float()
    deviation = float((read - logits).abs().max() / logits.abs().max().clamp(min=1e-9))
    if not deviation < (1e-4 if model.dtype in (torch.float32, torch.float64) else 3e-2):
        raise ModelError(
            f"the head of {model.anatomy.name} is not understood: reading the last residual stream "
            f"gives logits that differ from the model's own by {deviation:.1e} (relative)."
        )


def _read(
    model: Model,
    resid: Float[Tensor, "batch pos d_model"],
    final: Float[Tensor, "batch pos d_vocab"],
    answers: Int[Tensor, "batch a"] | None,
    columns: Int[Tensor, " batch"],
    top: int,
) -> dict[str, Tensor]:
    log_probs = unembed(model.anatomy, resid).float().log_softmax(-1)
    probs, ids = log_probs.exp().topk(top, dim=-1)
    reference = final.log_softmax(-1)
    out = {
        "top_ids": ids,
        "top_probs": probs,
        "entropy": -(log_probs.exp() * log_probs).sum(-1),
        "kl": (reference.exp() * (reference - log_probs)).sum(-1).clamp(min=0),
    }
    if answers is not None:
        at = log_probs[torch.arange(len(columns), device=columns.device), columns]
        given = answers.to(at.device)
        scores = at.gather(1, given.clamp(min=0)).masked_fill(given < 0, -torch.inf)
        out["answer_prob"] = scores.exp().sum(-1)
        best = scores.max(-1, keepdim=True).values
        out["answer_rank"] = (at >= best).sum(-1) - 1  # ties count against the answer
    return out


def _texts(model: Model, batch: TokenBatch) -> tuple[tuple[str, ...], ...]:
    """Input tokens as text, "" at padding."""
    rows = []
    for ids, mask in zip(batch.ids.tolist(), batch.mask.tolist(), strict=True):
        words = _row(model, ids)
        rows.append(tuple(w if real else "" for w, real in zip(words, mask, strict=True)))
    return tuple(rows)


def _row(model: Model, ids: list[int]) -> list[str]:
    return model.to_str_tokens(ids) if model.tokenizer is not None else [str(i) for i in ids]


def _words(
    model: Model, ids: Int[Tensor, "layer batch pos"]
) -> tuple[tuple[tuple[str, ...], ...], ...]:
    return tuple(tuple(tuple(_row(model, row)) for row in layer) for layer in ids.tolist())
