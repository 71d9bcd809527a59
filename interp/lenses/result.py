"""What a lens read: a distribution over next tokens for each row, prompt and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import PromptError, ResultError
from interp.intervals import Interval, bootstrap
from interp.lenses.reading import short_names
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["LensResult"]

Where = Literal["last", "all"]


@dataclass(frozen=True, eq=False, repr=False)
class LensResult(Stored):
    """What each layer (or branch, or head) predicts next, at each position.

    By default row ``i`` of the layer axis is the residual stream before block ``i``, and the last
    row the one after the last block, which is the model's own prediction. With other ``sites`` a
    row is one of them. At padding, numbers are NaN and token ids 0.

    Attributes:
        layers: a name for each row: ``"L0" ... "out"``, else the site's (``"L2.H1.result"``).
        top_ids: the ``k`` most probable next tokens, most probable first.
        top_probs: their probabilities.
        entropy: of the prediction, in nats.
        kl: KL(model's output ‖ this row's prediction), in nats; 0 in the row ``out``.
        answer_prob, answer_rank: of the prompts' answers (the sum over a set; the best of it), at
            the answer position; rank 0 is the top. None where the prompts have no answers.
        tokens: the input tokens as text, "" at padding.
        top_tokens: the most probable next token as text, by layer, prompt and position.
        last: each prompt's answer column.
        method: ``"logit lens"`` or ``"tuned lens"``.
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
    method: str = "logit lens"

    def __repr__(self) -> str:
        n_layers, batch, pos, _ = self.top_ids.shape
        what = "LensResult" if self.method == "logit lens" else f"LensResult of a {self.method}"
        return f"{what}({n_layers} layers × {batch} prompts × {pos} positions)"

    @property
    def name(self) -> str:
        """The lens, and what it read if that is not the residual stream: ``"logit lens of mlp_out"``."""
        point = short_names(self.layers)[1]
        return f"{self.method} of {point}" if point else self.method

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

    def scores(self, where: Where = "last") -> dict[str, Float[Tensor, "layer batch"]]:
        """Numbers for each layer and prompt, by name.

        ``probability`` and ``rank`` of the answer (where there are answers; rank 1 is the top
        here), ``kl`` and ``entropy`` in nats, at each prompt's answer position
        (``where="last"``), or the latter two as means over all its positions (``"all"``).

        Raises:
            PromptError: ``where`` is another word.
        """
        if where not in ("last", "all"):
            raise PromptError(f"where={where!r}; expected 'last' or 'all'.")
        found: dict[str, Tensor] = {}
        if self.answer_prob is not None and self.answer_rank is not None and where == "last":
            found = {"probability": self.answer_prob, "rank": self.answer_rank.float() + 1}
        prompts = torch.arange(len(self.last))
        for name, values in (("kl", self.kl), ("entropy", self.entropy)):
            if where == "last":
                found[name] = values[:, prompts, self.last]
            else:
                found[name] = values.masked_fill(~self._real(), torch.nan).nanmean(-1)
        return found

    def intervals(self, where: Where = "last", *, seed: int = 0) -> dict[str, Interval]:
        """The means over prompts of :meth:`scores` with 95% bootstrap intervals.

        Of ranks it is the geometric mean: one prompt at rank 5000 would outvote all others.
        """
        found = {}
        for name, values in self.scores(where).items():
            if name != "rank":
                found[name] = bootstrap(values, seed=seed)
                continue
            logs = bootstrap(values.log(), seed=seed)
            found[name] = Interval(logs.mean.exp(), logs.low.exp(), logs.high.exp(), logs.level)
        return found

    def to_frame(self, prompt: int = 0) -> DataFrame:
        """One row for each layer and position of a prompt: top token, probability, entropy, KL.

        Raises:
            PromptError: there is no such prompt.
        """
        import pandas as pd

        self._check_prompt(prompt)
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

    def trajectory(self, prompt: int | None = None, *, where: Where = "last") -> DataFrame:
        """How the prediction develops: a row for each layer.

        Args:
            prompt: one prompt, read at its answer position (its last token), with its top token;
                None: means over all prompts, each with the ends of its interval (``_low``,
                ``_high``).
            where: for ``None``: at the answer positions, or over all positions (``"all"``).

        Raises:
            PromptError: there is no such prompt.
        """
        import pandas as pd

        columns: dict[str, Any] = {"layer": list(self.layers)}
        if prompt is None:
            for name, interval in self.intervals(where).items():
                ends = {"": interval.mean, "_low": interval.low, "_high": interval.high}
                columns |= {f"{name}{end}": values.tolist() for end, values in ends.items()}
            return pd.DataFrame(columns)
        self._check_prompt(prompt)
        at = int(self.last[prompt])
        columns["top"] = [row[prompt][at] for row in self.top_tokens]
        columns["prob"] = self.top_probs[:, prompt, at, 0].tolist()
        columns |= {name: values[:, prompt].tolist() for name, values in self.scores().items()}
        return pd.DataFrame(columns)

    def plot(
        self,
        prompt: int = 0,
        *,
        positions: Sequence[int] | None = None,
        colour: Literal["prob", "entropy", "kl"] = "prob",
        title: str | None = None,
    ) -> Figure:
        """The top token of each layer and position of one prompt, in colours.

        Args:
            positions: which tokens of the prompt (negative from the end); None: all, or as many
                of the last ones as fit on a page.
            colour: what the colours say: the top token's probability, or entropy or KL in nats.
            title: None: the name of the lens and of what it reads.

        Raises:
            PromptError: there is no such prompt, it has no such position, or ``colour`` is none of
                these.
        """
        from interp.figures.lens_table import lens_table

        self._check_prompt(prompt)
        if colour not in ("prob", "entropy", "kl"):
            raise PromptError(f"colour={colour!r}; expected 'prob', 'entropy' or 'kl'.")
        real = [i for i, token in enumerate(self.tokens[prompt]) if token]
        shown = real if positions is None else [_nth(real, i) for i in positions]
        values, unit = {
            "prob": (self.top_probs[..., 0], "probability of the top token"),
            "entropy": (self.entropy, "entropy (nats)"),
            "kl": (self.kl, "KL(output ‖ lens) (nats)"),
        }[colour]
        return lens_table(
            [[row[prompt][i] for i in shown] for row in self.top_tokens],
            values[:, prompt, shown],
            rows=short_names(self.layers)[0],
            columns=[self.tokens[prompt][i] for i in shown],
            title=self.name if title is None else title,
            unit=unit,
            high=1.0 if colour == "prob" else None,
        )

    def plot_layers(
        self,
        *others: LensResult,
        labels: Sequence[str] = (),
        where: Where = "last",
        title: str | None = None,
        seed: int = 0,
    ) -> Figure:
        """Curves over layers: probability and rank of the answer, KL to the output, entropy.

        Bands are 95% bootstrap intervals over prompts; ranks are geometric means, 1 the top.

        Args:
            others: more results, drawn beside: another lens, the random twin.
            labels: a name for each result; none: what each was read with.
            where: at the answer positions, or over all positions (KL and entropy only).

        Raises:
            ResultError: not one label for each result, or several rows of one layer in a result
                whose rows differ from another's.
        """
        from interp.figures.trajectories import trajectories

        results = (self, *others)
        names = tuple(labels) or tuple(f"{r.name}, {r.provenance.model}" for r in results)
        if len(names) != len(results) or len(set(names)) != len(names):
            raise ResultError(
                f"{len(results)} results with labels {list(names)}; expected one label for each, "
                "all different: labels=[...]."
            )
        axis, steps = _steps(results)
        curves = [
            (name, at, result.intervals(where, seed=seed))
            for name, at, result in zip(names, steps, results, strict=True)
        ]
        return trajectories(short_names(axis)[0], curves, title=title or _heading(results))

    def _check_prompt(self, prompt: int) -> None:
        count = len(self.tokens)
        if not -count <= prompt < count:
            raise PromptError(f"prompt {prompt} of {count}; expected {-count} to {count - 1}.")

    def _real(self) -> Bool[Tensor, "batch pos"]:
        return torch.tensor([[token != "" for token in row] for row in self.tokens])


def _nth(real: Sequence[int], position: int) -> int:
    if not -len(real) <= position < len(real):
        raise PromptError(
            f"position {position} of a prompt of {len(real)} tokens; expected {-len(real)} to "
            f"{len(real) - 1}."
        )
    return real[position]


def _steps(results: Sequence[LensResult]) -> tuple[list[str], list[list[int]]]:
    """Labels along the layer axis, and where on it each row of each result stands."""
    rows = [list(result.layers) for result in results]
    axis = rows[0]
    if any(given != axis for given in rows):
        rows = [[name.partition(".")[0] for name in given] for given in rows]
        if any(len(set(given)) < len(given) for given in rows):
            raise ResultError(
                "results with several rows of one layer (heads) and other rows than each other's "
                "have no common axis; expected the same sites, or one site for each layer."
            )
        axis = sorted({name for given in rows for name in given}, key=_depth)
    return axis, [[axis.index(name) for name in given] for given in rows]


def _depth(row: str) -> float:
    return float(row[1:]) if row[1:].isdigit() else torch.inf if row == "out" else -1.0


def _heading(results: Sequence[LensResult]) -> str:
    names = dict.fromkeys(result.name for result in results)
    return " and ".join(names) + f", {len(results[0].last)} prompts"
