"""What every part added to a logit, beside the model's own logit and what the control makes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import ResultError, nearest
from interp.intervals import Interval, bootstrap
from interp.results import Axis, Provenance, Stored, cell_labels, pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["LogitAttribution"]

_NO_CONTROL = "this attribution has no control: measure it with null=100 draws."
_UNITS = {"direction": "units of the direction"}


@dataclass(frozen=True, eq=False, repr=False)
class LogitAttribution(Stored):
    """What every part adds directly, in logits; the parts sum to ``total``.

    Positive speaks for the answer (or the token, or along the direction). A part's number is what it
    wrote, read with the final norm's scale held at its value in this run: not what the logit would
    lose without it, since later parts read it too.

    Attributes:
        values: mean over prompts; NaN prompts (padding, under ``positions="each"``) do not count.
        per_prompt: the same for each prompt, along a last axis.
        axes: ``part`` first; then ``token`` and ``position`` where they were asked for. Parts are
            ``embed``, ``pos_embed``, ``L0.attn_out`` or ``L0.H3.result`` with ``L0.attn_bias``,
            ``L0.mlp_out`` or ``L0.mlp_post.N7`` with ``L0.mlp_rest``, and last ``bias``: what
            the final norm's β and the unembedding's own bias give, whatever the stream holds.
        total: the model's own logit, or difference of logits, before a final soft-cap.
        error: largest distance between the sum of the parts and ``total``, over prompts.
        null: each draw's mean over prompts under the control; None if it was not asked for.
        control: what the control scores: ``"shuffled answers"``, ``"random tokens"``, ``"random
            directions"`` or ``"none"``; see :mod:`interp.direct.control`.
        by: how finely the stream was taken apart.
        what: ``"logit_diff"``, ``"logit"``, ``"logits"`` (of tokens) or ``"direction"``.
        n_heads: of the model, for the head grid.
        answers, foils: the tokens measured, as text, for the record.
        provenance: model, prompts, seed, versions and the call.
    """

    values: Float[Tensor, "part *axes"]
    per_prompt: Float[Tensor, "part *axes prompt"]
    axes: tuple[Axis, ...]
    total: Float[Tensor, "*axes prompt"]
    error: float
    null: Float[Tensor, "draw part *axes"] | None
    control: str
    by: str
    what: str
    n_heads: int
    answers: tuple[str, ...] | None
    foils: tuple[str, ...] | None
    provenance: Provenance

    def __repr__(self) -> str:
        axes = " × ".join(f"{axis.name} {len(axis)}" for axis in self.axes)
        mean = self.total.nanmean(-1)
        total = f"{float(mean):.3g}" if mean.ndim == 0 else f"{len(mean.flatten())} cells"
        return (
            f"LogitAttribution({axes}; {self.what} {total} in {self.unit}, "
            f"{self.total.shape[-1]} prompts; parts sum to it within {self.error:.1g}; "
            f"control: {self.control})"
        )

    @property
    def unit(self) -> str:
        return _UNITS.get(self.what, "logits")

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, in the order in which they are written."""
        return self.axes[0].labels

    def __getitem__(self, name: str) -> Float[Tensor, "*axes prompt"]:
        """One part, for each prompt.

        Raises:
            ResultError: there is no such part.
        """
        if name not in self.names:
            raise ResultError(f"no part is called {name!r}; nearest: {nearest(name, self.names)}.")
        return self.per_prompt[self.names.index(name)]

    # -- sums ------------------------------------------------------------------------------

    @property
    def n_layers(self) -> int:
        return 1 + max((n for n in map(_layer, self.names) if n is not None), default=-1)

    def heads(self) -> Float[Tensor, "layer head *axes prompt"]:
        """The heads as a grid.

        Raises:
            ResultError: this is not by head.
        """
        if self.by != "head":
            raise ResultError(f"this result is by {self.by!r}, expected by='head' for a head grid.")
        where = [i for i, name in enumerate(self.names) if name.endswith(".result")]
        return self.per_prompt[where].unflatten(0, (-1, self.n_heads))

    def layers(self, half: str) -> Float[Tensor, "layer *axes prompt"]:
        """What each layer's attention (``"attn"``) or MLP (``"mlp"``) adds, whatever the parts."""
        if half not in ("attn", "mlp"):
            raise ResultError(f"half={half!r}; expected 'attn' or 'mlp'.")
        out = self.per_prompt.new_zeros(self.n_layers, *self.per_prompt.shape[1:])
        for name, value in zip(self.names, self.per_prompt, strict=True):
            layer = _layer(name)
            if layer is not None and (".mlp" in name) == (half == "mlp"):
                out[layer] += value
        return out

    def accumulated(self) -> Float[Tensor, "step *axes prompt"]:
        """The measure of the stream before each block and, last, behind all of them.

        Under the final scale and with the bias throughout, so the steps differ by what the blocks
        add. The logit lens divides by each layer's own scale instead. TransformerLens:
        ``accumulated_resid`` read with ``logit_attrs``.
        """
        outside = [i for i, name in enumerate(self.names) if _layer(name) is None]
        start = self.per_prompt[outside].sum(0, keepdim=True)
        added = self.layers("attn") + self.layers("mlp")
        return torch.cat([start, start + added.cumsum(0)])

    @property
    def steps(self) -> tuple[str, ...]:
        """What :meth:`accumulated` stands at: ``"L0"`` is before block 0."""
        return (*(f"L{n}" for n in range(self.n_layers)), "out")

    # -- how sure ----------------------------------------------------------------------------

    def interval(self, *, level: float = 0.95, seed: int = 0) -> Interval:
        """Bootstrap interval over prompts of ``values``; NaN with one prompt or at padding."""
        return bootstrap(self.per_prompt, level=level, seed=seed)

    def null_interval(self, *, level: float = 0.95) -> Interval:
        """Mean of the control's draws and their central ``level``, for each part.

        Raises:
            ResultError: there was no control.
        """
        if self.null is None:
            raise ResultError(_NO_CONTROL)
        tail = (1 - level) / 2
        ends = torch.tensor([tail, 1 - tail], dtype=self.null.dtype)
        low, high = torch.quantile(self.null, ends, dim=0)
        return Interval(self.null.mean(0), low, high, level)

    def survives(self, *, level: float = 0.95) -> Bool[Tensor, "part *axes"]:
        """Whether each part's mean ranks outside the central ``level`` of the control's draws.

        A permutation test, two-sided: ``2 (1 + draws that go as far) / (1 + draws) <= 1 - level``.
        True says: it does to the prompts' own answers what it does not do to others. ``bias`` and
        parts that push a token up whatever the prompt do not survive shuffled answers. Of parts
        that know nothing at most one in twenty survives by chance, at the default level; of
        neurons more, since those with a part of their own were chosen for their size on these
        very prompts, and of all parts where the answer is the model's own top token (no answers
        were given), which is what it is because the parts agree on it.

        Raises:
            ResultError: there was no control, or one of too few draws for this level.
        """
        if self.null is None:
            raise ResultError(_NO_CONTROL)
        draws, share = len(self.null), 1 - level
        if 2 / (1 + draws) > share + 1e-9:
            raise ResultError(
                f"{draws} draws of the control bear level={1 - 2 / (1 + draws):.4g} at most, not {level}: "
                "measure with more, such as null=1000."
            )
        rounding = 1e-5 * self.per_prompt.abs().nan_to_num().amax().clamp(min=1.0)
        above = (self.null >= self.values - rounding).sum(0)
        below = (self.null <= self.values + rounding).sum(0)
        rare = 2 * (1 + torch.minimum(above, below)) <= (share + 1e-9) * (1 + draws)
        return rare & ~self.values.isnan()

    # -- tables, figures, files ---------------------------------------------------------------

    def to_frame(self) -> DataFrame:
        """One row for each part (and token, position): ``value``, ``low``, ``high``.

        The bounds are a 95% bootstrap over prompts. With a control also ``null`` (its mean),
        ``null_std``, ``null_low``, ``null_high`` (its central 95%) and ``survives``.
        """
        import pandas as pd

        interval = self.interval()
        columns: dict[str, Any] = {"value": self.values, "low": interval.low, "high": interval.high}
        if self.null is not None:
            null = self.null_interval()
            columns |= {"null": null.mean, "null_std": self.null.std(0), "null_low": null.low,
                        "null_high": null.high, "survives": self.survives()}  # fmt: skip
        cells = {name: column.flatten().tolist() for name, column in columns.items()}
        return pd.DataFrame({**cell_labels(self.axes), **cells})

    def top(self, n: int = 10) -> DataFrame:
        """The ``n`` rows of :meth:`to_frame` of largest absolute value."""
        frame = self.to_frame()
        order = frame["value"].abs().sort_values(ascending=False, kind="stable").index
        return frame.loc[order[:n]].reset_index(drop=True)

    def select(self, **labels: int | str) -> LogitAttribution:
        """The result at one ``token=`` or ``position=``.

        Raises:
            ResultError: there is no such axis or label, or the axis is ``part``.
        """
        if "part" in labels:
            raise ResultError(
                f"select picks tokens and positions; one part is result[{labels['part']!r}]."
            )
        index, axes = pick(self.axes, labels)
        null = None if self.null is None else self.null[(slice(None), *index)]
        return LogitAttribution(**{
            **vars(self), "values": self.values[index], "per_prompt": self.per_prompt[index],
            "axes": axes, "total": self.total[index[1:]], "null": null,
        })  # fmt: skip

    def plot(self, *, title: str | None = None) -> Figure:
        """Bars of the parts; by head a layer × head map with each layer's attention and MLP beside.

        With one more axis, a map of the parts along it.

        Raises:
            ResultError: more axes than a figure can show.
        """
        from interp.direct.figure import draw

        return draw(self, title or self._title())

    def plot_accumulated(self, *, title: str | None = None) -> Figure:
        """The measure before each block, with 95% bootstrap bands (see :meth:`accumulated`)."""
        from interp.direct.figure import draw_accumulated

        return draw_accumulated(self, title or f"accumulated {self.label}")

    @property
    def label(self) -> str:
        """What is measured, in words for a figure."""
        words = {"logit_diff": "answer − foil", "logit": "answer logit", "logits": "logit",
                 "direction": "along the direction"}  # fmt: skip
        return words[self.what]

    def _title(self) -> str:
        mean = self.total.nanmean(-1)
        total = f" = {float(mean):.3g}" if mean.ndim == 0 else ""
        return f"direct attribution: {self.label}{total}"


def _layer(part: str) -> int | None:
    """The layer that wrote a part; None for embeddings and the bias."""
    match = re.match(r"L(\d+)\.", part)
    return None if match is None else int(match[1])
