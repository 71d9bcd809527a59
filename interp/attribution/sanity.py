"""Sanity checks: does an attribution depend on what the model has learned?

An attribution that is the same for a trained and for a random model says something about the input, not about the
model. So replace the trained weights by random ones, from the output down, and compare attributions at each step with
those of the model as it was, by rank:

    cascading     the unembedding; then the last block too; then the one before too; ... at last the embedding too
    independent   each of these alone, the others as trained

A method passes if its rank correlation falls to about 0. It fails if it stays up: edges of an image, or here how long
an embedding is and how late its token stands, are enough for that. What two *random* models' attributions have in
common (``null``) says how much of an attribution the input and the architecture alone decide. Signed
attributions are compared as they are and by size: a random model may turn all signs around.

Source: Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv:1810.03292 (model parameter randomisation test;
Spearman's rank correlation, with and without absolute values).

Departure: tokens of a prompt in place of pixels: with few of them one prompt's correlation is noisy, so it is the mean
over prompts that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.attribution.saliency import saliency
from interp.errors import MetricError
from interp.geometry.correlation import spearman
from interp.intervals import bootstrap
from interp.models.model import Model
from interp.progress import Bar
from interp.prompts.prompts import Prompts
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["SanityCheck", "sanity_check"]

Order = Literal["cascading", "independent"]
Attribution = Callable[[Model, Prompts], Float[Tensor, "prompt pos"]]
_FEWEST: Final = 4  # tokens whose order says anything


@dataclass(frozen=True, eq=False, repr=False)
class SanityCheck(Stored):
    """Rank correlations of attributions with those of the trained model, as weights become random.

    Attributes:
        steps: what was made random (under ``cascading``, with everything before it).
        signed: Spearman's correlation of the attributions, -1 to 1, for each prompt; NaN where one is constant.
        absolute: of their sizes.
        null: between the attributions of two random models, signed.
        method: of attribution.
        order: ``"cascading"`` or ``"independent"``.
        provenance: model, prompts, versions and the call.
    """

    steps: tuple[str, ...]
    signed: Float[Tensor, "step prompt"]
    absolute: Float[Tensor, "step prompt"]
    null: Float[Tensor, " prompt"]
    method: str
    order: str
    provenance: Provenance

    def __repr__(self) -> str:
        signed, absolute = (float(x[-1].nanmean()) for x in (self.signed, self.absolute))
        return (
            f"SanityCheck({self.method}, {self.order}; at {self.steps[-1]!r} rank correlation {signed:+.2f}, of sizes "
            f"{absolute:+.2f}; two random models {float(self.null.nanmean()):+.2f})"
        )

    def to_frame(self) -> DataFrame:
        """One row for each step: mean correlations over prompts."""
        import pandas as pd

        return pd.DataFrame({
            "step": list(self.steps), "signed": self.signed.nanmean(-1).tolist(),
            "absolute": self.absolute.nanmean(-1).tolist(),
        })  # fmt: skip

    def plot(self, *, title: str | None = None) -> Figure:
        """Mean correlations over steps with 95% intervals over prompts, and that of two random models."""
        from interp.figures import lines

        curves, bands = {}, {}
        for name, values in (("signed", self.signed), ("by size", self.absolute)):
            curves[name] = [1.0, *values.nanmean(-1).tolist()]
            ends = [bootstrap(row[~row.isnan()]) for row in values]
            bands[name] = (
                [1.0, *(float(e.low) for e in ends)],
                [1.0, *(float(e.high) for e in ends)],
            )
        curves["two random models"] = [float(self.null.nanmean())] * (1 + len(self.steps))
        word = "made random, with all to its left" if self.order == "cascading" else "made random"
        return lines(
            ["trained", *self.steps], curves, bands=bands, x_name=word,
            y_name="rank correlation",
            title=title or f"Does {self.method} depend on the weights?",
        )  # fmt: skip


def sanity_check(
    model: Model,
    prompts: Prompts,
    method: str | Attribution = "gradient x input",
    *,
    order: Order = "cascading",
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> SanityCheck:
    """Attribute again and again as weights become those of ``model.random_twin(seed)``.

    Args:
        method: of :func:`interp.attribution.saliency.saliency`; or a callable ``(model, prompts) -> [prompt, pos]``.
        order: see above.
        seed: of the twin's weights; the second random model has the next one.
        options: of ``saliency``: ``metric``, ``batch``.

    Raises:
        MetricError: an unknown order or method, options for a callable, or prompts of fewer than 4 tokens.
    """
    if order not in ("cascading", "independent"):
        raise MetricError(f"order={order!r}; expected 'cascading' or 'independent'.")
    if callable(method) and options:
        raise MetricError(f"{', '.join(options)}: options of saliency; a callable takes none.")
    if int(prompts.clean.n_real.min()) < _FEWEST:
        raise MetricError(
            f"sanity_check() orders tokens: give prompts of {_FEWEST} tokens or more."
        )
    name = getattr(method, "__name__", "callable") if callable(method) else str(method)
    attribute: Attribution = method if callable(method) else _method(method, options)
    trained, parts = attribute(model, prompts), _parts(model)
    twins = [model.random_twin(seed + i, check=False) for i in range(2)]
    null = _correlations(attribute(twins[0], prompts), attribute(twins[1], prompts))
    weights = {n: p.detach() for n, p in _named(twins[0]).items()}
    signed, absolute = [], []
    done: dict[str, Tensor] = {}
    with Bar(total=len(parts), what="sanity check", show=progress) as bar:
        for names in parts.values():
            new = {n: weights[n] for n in names}
            done = {**done, **new} if order == "cascading" else new
            with model.edited(done):
                found = attribute(model, prompts)
            signed.append(_correlations(trained, found))
            absolute.append(_correlations(trained.abs(), found.abs()))
            bar.advance()
    origin = Provenance.of(
        model, prompts, seed=seed, verb="sanity_check", method=name, order=order,
        **{n: str(v) for n, v in options.items()},
    )  # fmt: skip
    return SanityCheck(
        tuple(parts), torch.stack(signed), torch.stack(absolute), null, name, order, origin
    )


def _method(method: str, options: Mapping[str, Any]) -> Attribution:
    return lambda model, prompts: saliency(model, prompts, method, **options)  # type: ignore[arg-type]


def _named(model: Model) -> dict[str, torch.nn.Parameter]:
    return dict(model.hf.named_parameters(remove_duplicate=False))


def _parts(model: Model) -> dict[str, list[str]]:
    """Parameters by Hugging Face name, from the output down: the end, blocks, the embedding."""
    named, reads = _named(model), model.hf.get_input_embeddings()
    blocks = {
        id(p): i for i, block in enumerate(model.anatomy.blocks) for p in block.module.parameters()
    }
    begins = {id(p) for p in reads.parameters()}
    if model.anatomy.pos_embed is not None:
        begins |= {id(p) for p in model.anatomy.pos_embed.parameters()}
    writes = model.hf.get_output_embeddings()
    ends = {id(p) for p in writes.parameters()}
    end, start = "unembedding", "embedding"
    if ends & begins:
        end = "unembedding (tied)"
    parts: dict[str, list[str]] = {end: []}
    parts |= {f"block {i}": [] for i in reversed(range(model.n_layers))}
    parts[start] = []
    for name, parameter in named.items():
        at = id(parameter)
        if at in ends:
            parts[end].append(name)
        elif at in blocks:
            parts[f"block {blocks[at]}"].append(name)
        else:
            parts[start if at in begins else end].append(name)
    return {name: names for name, names in parts.items() if names}


def _correlations(
    a: Float[Tensor, "prompt pos"], b: Float[Tensor, "prompt pos"]
) -> Float[Tensor, " prompt"]:
    """Spearman's over each prompt's real tokens."""
    real = ~(a.isnan() | b.isnan())
    return torch.stack([spearman(x[r], y[r]) for x, y, r in zip(a, b, real, strict=True)])
