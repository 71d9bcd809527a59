"""Directions of the residual stream in the model's own words.

A weight that writes to the residual stream, or reads from it, is a direction there; the
unembedding says which tokens' logits it raises, the embedding which tokens it resembles on the
way in (*de-embedding*). The probabilities are those of softmax over the direction's own logits:
they say how sharply it points at a token *at the length it has*, not how the model will act.

A direction that decodes well is a description, not a finding: some random directions decode well
too. :func:`interp.weight_lenses.decode_neurons` shows how well.

Sources: "Decoding specialised feature neurons in LLMs with the final projection layer" (up-
projection rows → softmax(LM_head · w) → top token); Dar et al. 2022, "Analyzing Transformers in
Embedding Space", arXiv:2209.02535; nostalgebraist 2020 for the idea of reading before the end.
Departure: norms are folded unless ``folded=False``, which is those papers' bare product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import MetricError, ResultError
from interp.models.model import Model
from interp.results import Provenance, read_file, write_file
from interp.sites import Site
from interp.weight_lenses.directions import directions
from interp.weight_lenses.ends import token_texts, tokens_in, unembedding
from interp.weight_lenses.reading import read

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["DecodeResult", "decode"]

Through = Literal["unembed", "embed"]


@dataclass(frozen=True, eq=False, repr=False)
class DecodeResult:
    """The tokens at both ends of some directions.

    Attributes:
        names: of the directions.
        top_ids, top_logits, top_probs: tokens that a direction raises most, best first.
        bottom_ids, bottom_logits, bottom_probs: tokens that it lowers most, lowest first.
        top_tokens, bottom_tokens: the same as text.
        kurtosis: excess kurtosis of the logits over the vocabulary; 0 = as Gaussian.
        norm: length of each direction.
        through: ``"unembed"`` or ``"embed"``.
        provenance: model, versions and the call.
    """

    names: tuple[str, ...]
    top_ids: Int[Tensor, "row k"]
    top_logits: Float[Tensor, "row k"]
    top_probs: Float[Tensor, "row k"]
    bottom_ids: Int[Tensor, "row k"]
    bottom_logits: Float[Tensor, "row k"]
    bottom_probs: Float[Tensor, "row k"]
    top_tokens: tuple[tuple[str, ...], ...]
    bottom_tokens: tuple[tuple[str, ...], ...]
    kurtosis: Float[Tensor, " row"]
    norm: Float[Tensor, " row"]
    through: str
    provenance: Provenance

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}: {words[0]!r}"
            for name, words in zip(self.names[:3], self.top_tokens, strict=False)
        )
        more = ", ..." if len(self.names) > 3 else ""
        return f"DecodeResult({len(self.names)} directions; {shown}{more})"

    def to_frame(self) -> DataFrame:
        """One row for each direction and rank: tokens, logits and probabilities at both ends."""
        import pandas as pd

        count, k = self.top_ids.shape
        columns: dict[str, Any] = {
            "name": [name for name in self.names for _ in range(k)],
            "rank": list(range(k)) * count,
        }
        for end in ("top", "bottom"):
            columns[end] = [word for row in getattr(self, f"{end}_tokens") for word in row]
            columns[f"{end}_logit"] = getattr(self, f"{end}_logits").flatten().tolist()
            columns[f"{end}_prob"] = getattr(self, f"{end}_probs").flatten().tolist()
        return pd.DataFrame(columns)

    def plot(self, *, rows: int = 12, end: Literal["top", "bottom", "both"] = "both",
             title: str | None = None) -> Figure:  # fmt: skip
        """A table of tokens, coloured by logit: for the first ``rows`` directions, or the last
        tokens of each end beside the first.

        Raises:
            ResultError: ``end`` is none of these.
        """
        from interp.figures.token_table import token_table

        if end not in ("top", "bottom", "both"):
            raise ResultError(f"end={end!r}; expected 'top', 'bottom' or 'both'.")
        k = min(self.top_ids.shape[1], 3 if end == "both" else 7)
        shown = range(min(rows, len(self.names)))
        words = [[*self.top_tokens[i][:k], *self.bottom_tokens[i][:k][::-1]] for i in shown]
        values = torch.cat([self.top_logits[:, :k], self.bottom_logits[:, :k].flip(-1)], -1)
        heads = [*(f"top {i + 1}" for i in range(k)), *(f"bottom {k - i}" for i in range(k))]
        pick = {"top": slice(0, k), "bottom": slice(k, None), "both": slice(None)}[end]
        word = "unembedding" if self.through == "unembed" else "embedding"
        return token_table(
            [row[pick] for row in words],
            values[: len(shown), pick],
            rows=[self.names[i] for i in shown],
            columns=heads[pick],
            title=title or f"weights read through the {word}",
            unit="logit" if self.through == "unembed" else "dot product",
        )

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file, whole or not at all."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        meta = {name: value for name, value in vars(self).items() if name not in tensors}
        return write_file(path, "DecodeResult", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> DecodeResult:
        """Read a saved result.

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
        """
        tensors, meta = read_file(path, "DecodeResult")
        return cls.of(meta, tensors)

    @classmethod
    def of(cls, meta: dict[str, Any], tensors: Mapping[str, Tensor]) -> DecodeResult:
        """A result from what a file holds."""
        meta["provenance"] = Provenance(**meta["provenance"])
        meta["names"] = tuple(meta["names"])
        for name in ("top_tokens", "bottom_tokens"):
            meta[name] = tuple(tuple(row) for row in meta[name])
        return cls(**{**meta, **tensors})


@torch.no_grad()
def decode(
    model: Model,
    what: str | Site | Sequence[str | Site] | Float[Tensor, "*any d_model"],
    *,
    top: int = 10,
    folded: bool = True,
    centre: bool = True,
    through: Through = "unembed",
    names: Sequence[str] | None = None,
) -> DecodeResult:
    """Tokens that directions of the residual stream raise and lower.

    >>> decode(model, "L3.mlp_post.N77").plot()       # doctest: +SKIP
    >>> decode(model, ["L2.H1.result", "L1.mlp_pre.N0-9"]).to_frame()  # doctest: +SKIP

    Args:
        what: sites of weights (:mod:`interp.weight_lenses.directions` has the table), or vectors.
        top: how many tokens to keep at each end.
        folded: fold norms and multipliers, of the weights and of the unembedding.
        centre: logits less their mean over the vocabulary; probabilities are the same.
        through: ``"unembed"``, or ``"embed"`` to compare with the tokens' embeddings instead.
        names: of the vectors, where ``what`` is a tensor.

    Raises:
        SiteError: a site that means no weights.
        MetricError: vectors of another width or that are not finite, nothing to decode, names that do not fit, ``top`` out of range, or
            ``through`` is none of these.
        ModelError: this model has no such weights.
    """
    labels, rows = _rows(model, what, folded, names)
    found = read(rows, vocabulary(model, through, folded=folded, centre=centre), top=top)
    texts = token_texts(model, out=through == "unembed")
    words: dict[str, Any] = {
        f"{end}_tokens": tuple(tuple(texts[i] for i in row) for row in ids.tolist())
        for end, ids in (("top", found.top_ids), ("bottom", found.bottom_ids))
    }
    asked = "vectors" if isinstance(what, Tensor) else [str(label) for label in _listed(what)]
    return DecodeResult(
        names=labels,
        norm=rows.norm(dim=-1).cpu(),
        through=through,
        provenance=Provenance.of(
            model, verb="decode", what=asked, top=top, folded=folded, centre=centre,
            through=through,
        ),
        **vars(found),
        **words,
    )  # fmt: skip


def vocabulary(
    model: Model, through: str, *, folded: bool, centre: bool
) -> Float[Tensor, "d_model d_vocab"]:
    """What directions are multiplied with, to be read as tokens."""
    if through == "unembed":
        return unembedding(model, folded=folded, centre=centre)
    if through != "embed":
        raise MetricError(f"through={through!r}; expected 'unembed' or 'embed'.")
    table = tokens_in(model).T
    return table - table.mean(-1, keepdim=True) if centre else table


def _listed(what: str | Site | Sequence[str | Site]) -> list[str | Site]:
    return [what] if isinstance(what, str | Site) else list(what)


def _rows(
    model: Model, what: Any, folded: bool, names: Sequence[str] | None
) -> tuple[tuple[str, ...], Float[Tensor, "row d_model"]]:
    if not isinstance(what, Tensor):
        listed = _listed(what) if isinstance(what, str | Site | Sequence) else []
        if not listed or not all(isinstance(one, str | Site) for one in listed):
            raise MetricError(
                f"decode got {type(what).__name__} {what!r:.60}; expected a site of weights, several, "
                f"or a tensor of directions [..., {model.d_model}]."
            )
        found = [directions(model, site, folded=folded) for site in listed]
        labels = tuple(name for part, _ in found for name in part)
        return labels, torch.cat([rows for _, rows in found])
    if what.ndim == 0 or what.shape[-1] != model.d_model or not what.numel():
        raise MetricError(
            f"decode got a tensor of shape {list(what.shape)}; expected [..., {model.d_model}], "
            "directions of the residual stream. For weights of a head, give its site."
        )
    rows = what.detach().as_subclass(Tensor).reshape(-1, model.d_model).float()
    if not bool(rows.isfinite().all()):
        raise MetricError(f"decode got vectors that are not finite, of shape {list(what.shape)}.")
    labels = tuple(names or map(str, range(len(rows))))
    if len(labels) != len(rows):
        raise MetricError(f"decode got {len(labels)} names for {len(rows)} vectors.")
    return labels, rows.to(model.device)
