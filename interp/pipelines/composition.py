"""Does one node steer where another looks? Composition, shown by path patching.

A head's attention from one position to another is made of queries and keys, and both read what
earlier nodes wrote. So: in the clean run let one sender's output, *as the queries (or keys) of later
heads read it and nothing else does*, be the corrupted run's, and see how much of their attention is
lost. Lost through the keys, that is K-composition (a previous-token head that tells an induction
head's keys what stood before them); through the queries, Q-composition (an S-inhibition head that
turns a name mover away).

Weights alone can also be compared (``interp.weight_lenses.composition``); this asks about runs.

Sources: Elhage et al. 2021 (composition of heads); Wang et al. 2022, arXiv:2211.00593, section 3.2
(path patching into the queries of name movers, read off their attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.probe import why_no_paths
from interp.errors import RunError
from interp.graph.names import Node
from interp.intervals import bootstrap
from interp.models.model import Model
from interp.pipelines.attending import share_at
from interp.pipelines.behaviour import Behaviour, columns
from interp.progress import track
from interp.prompts.prompts import Prompts
from interp.results import Provenance, Stored
from interp.runs.edits import Edit, Replace
from interp.runs.execute import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Channel", "Composition", "composition", "site_of"]

Channel = Literal["q", "k"]
_QUERY: Final = "the_query"
_KEY: Final = "the_key"


@dataclass(frozen=True, eq=False, repr=False)
class Composition(Stored):
    """Attention that later heads lose when one sender's path into them is corrupted.

    Attributes:
        senders: the nodes asked, ``a0.h4`` or ``m0``.
        channel: ``"q"`` or ``"k"``: which input of the receivers.
        query, key: the places between which attention is measured.
        mlps: between the two: ``"recomputed"`` or ``"frozen"``.
        clean: each head's attention there in the clean run, 0 to 1.
        lost: how much less it is, mean over prompts; negative: it is more. NaN for heads that do
            not come after the sender.
        per_prompt: the same for each prompt.
        provenance: model, prompts, versions and the call.
    """

    senders: tuple[str, ...]
    channel: str
    query: str
    key: str
    mlps: str
    clean: Float[Tensor, "layer head"]
    lost: Float[Tensor, "sender layer head"]
    per_prompt: Float[Tensor, "sender layer head prompt"]
    provenance: Provenance

    def __repr__(self) -> str:
        first = self.top(1)
        best = f"; most {first.sender[0]} → {first.receiver[0]} {first.lost[0]:.2f}" * len(first)
        return (
            f"Composition({len(self.senders)} senders, {self.channel}, attention "
            f"{self.query}→{self.key}{best})"
        )

    def behaviour(self) -> Behaviour:
        """For each sender the attention lost at the one head that loses most."""
        flat = self.per_prompt.flatten(1, 2)
        best = self.lost.flatten(1).nan_to_num(-torch.inf).argmax(-1)
        chosen = flat[torch.arange(len(flat)), best]
        name = f"{self.channel.upper()}-composition"
        return Behaviour(name, "attention lost", self.senders, chosen)

    def said(self, least: float = 0.1) -> list[str]:
        """A sentence for each sender whose path takes ``least`` of some head's attention away."""
        told = [
            f"{self.channel.upper()}-composition: {row['sender']} → {row['receiver']}, whose attention "
            f"{self.query}→{self.key} falls from {row['attention']:.2f} by {row['lost']:.2f}"
            for row in self.to_frame().drop_duplicates("sender").to_dict("records")
            if row["lost"] >= least and row["low"] > 0
        ]
        return told or [
            f"{self.channel.upper()}-composition: none takes {least:g} of any attention"
        ]

    def to_frame(self) -> DataFrame:
        """One row for each sender and later head, most lost first.

        Columns: ``sender``, ``receiver``, ``channel``, ``attention`` (of the clean run), ``lost``,
        and its 95% interval over prompts ``low`` to ``high``.
        """
        import pandas as pd

        interval = bootstrap(self.per_prompt.nan_to_num())
        rows: list[dict[str, Any]] = []
        for s, layer, head in (~self.lost.isnan()).nonzero().tolist():
            rows.append({
                "sender": self.senders[s], "receiver": f"a{layer}.h{head}",
                "channel": self.channel, "attention": float(self.clean[layer, head]),
                "lost": float(self.lost[s, layer, head]),
                "low": float(interval.low[s, layer, head]),
                "high": float(interval.high[s, layer, head]),
            })  # fmt: skip
        names = ["sender", "receiver", "channel", "attention", "lost", "low", "high"]
        frame = pd.DataFrame(rows, columns=names)
        return frame.sort_values("lost", ascending=False, kind="stable").reset_index(drop=True)

    def top(self, n: int = 10) -> DataFrame:
        """The ``n`` pairs in which most attention is lost."""
        return self.to_frame().head(n)

    def plot(self, *, title: str | None = None) -> Figure:
        """Senders as rows, later heads as columns."""
        from interp.figures import heatmap

        layers, heads = self.clean.shape
        first = next((i for i in range(layers) if not self.lost[:, i].isnan().all()), layers - 1)
        return heatmap(
            self.lost[:, first:].flatten(1), rows=list(self.senders),
            columns=[f"a{i}.h{j}" for i in range(first, layers) for j in range(heads)],
            title=title or f"{self.channel.upper()}-composition: attention {self.query}→{self.key}",
            unit="attention lost (path corrupted)", row_name="sender",
            column_name="receiver", missing="not later than the sender",
        )  # fmt: skip


def site_of(node: str) -> str:
    """The site that a head or an MLP writes: ``a0.h4`` is ``L0.H4.z``."""
    named = Node.parse(node)
    return f"L{named.layer}.H{named.index}.z" if named.kind == "head" else f"L{named.layer}.mlp_out"


@torch.no_grad()
def composition(
    model: Model,
    prompts: Prompts,
    senders: Sequence[str],
    channel: Channel,
    *,
    query: str,
    key: str,
    mlps: Literal["recomputed", "frozen"] = "recomputed",
    progress: bool | None = None,
) -> Composition:
    """How each sender steers the attention of all later heads from ``query`` to ``key``.

    A path stays at its position, so the sender is taken at ``query`` for queries and at ``key`` for
    keys. Costs three runs for each sender.

    Args:
        senders: nodes, ``"a0.h4"`` or ``"m0"``.
        channel: the receivers' input whose path is corrupted.
        query, key: positions, or places behind them (``"S1+1"``).
        mlps: between sender and receiver: ``"recomputed"`` lets them pass on what they read of the
            sender, with all heads frozen (Wang et al. 2022); ``"frozen"`` leaves the direct path.

    Raises:
        RunError: the model's stream is not the sum of its branches.
        SiteError: this family does not show its patterns, queries or keys.
    """
    if reason := why_no_paths(model.anatomy):
        raise RunError(f"there is no composition to measure in {model.name}: {reason}.")
    places = {_QUERY: columns(prompts, query), _KEY: columns(prompts, key)}
    asked = replace(prompts, positions={**prompts.positions, **places})
    where = _QUERY if channel == "q" else _KEY
    run = _Runs(model, asked, where, senders, frozen=mlps == "frozen")
    clean = run.attention({})
    lost = torch.full((len(senders), *clean.shape), torch.nan)
    what = f"{channel.upper()}-composition"
    for s, sender in enumerate(track(senders, total=len(senders), what=what, show=progress)):
        first = (Node.parse(sender).layer or 0) + 1
        if first < model.n_layers:
            edit = run.received(sender, channel, range(first, model.n_layers))
            lost[s, first:] = (clean - run.attention(edit))[first:]
    return Composition(
        senders=tuple(senders), channel=channel, query=query, key=key, mlps=mlps,
        clean=clean.mean(-1), lost=lost.mean(-1), per_prompt=lost,
        provenance=Provenance.of(
            model, prompts, verb="composition", senders=list(senders), channel=channel, query=query,
            key=key, mlps=mlps,
        ),
    )  # fmt: skip


class _Runs:
    """Runs of the clean prompts in which one sender's output is the corrupted run's.

    All attention outputs are held at the clean run's throughout, so that what one block's heads make
    of an edit is not read by the next.
    """

    def __init__(
        self, model: Model, prompts: Prompts, where: str, senders: Sequence[str], *, frozen: bool
    ) -> None:
        assert prompts.corrupted is not None  # the pipelines ask in pairs
        self._model, self._prompts, self._where = model, prompts, where
        kinds = ("attn_out", "mlp_out") if frozen else ("attn_out",)
        branches = [f"L{n}.{kind}" for n in range(model.n_layers) for kind in kinds]
        base = model.run(prompts, save=branches, logits="none").cache
        self._held: dict[str, Edit] = {name: Replace(base[name]) for name in branches}
        twin = replace(prompts, clean=prompts.corrupted, corrupted=None)
        sites = [self._site(sender) for sender in senders]
        theirs = model.run(twin, save=sites, logits="none").cache if sites else {}
        self._theirs = {site: theirs[site] for site in sites}

    def _site(self, sender: str) -> str:
        return f"{site_of(sender)}@{self._where}"

    def received(self, sender: str, channel: Channel, later: range) -> dict[str, Edit]:
        """What later heads' queries or keys are at the place, as an edit of all of them."""
        sites = [f"L{layer}.{channel}@{self._where}" for layer in later]
        cache = self._run(sites, self._held | self._sent(sender)).cache
        return {name: Replace(cache[name]) for name in sites}

    def _sent(self, sender: str) -> dict[str, Edit]:
        """The sender's branch with its output exchanged, all that it read held."""
        node, site = Node.parse(sender), self._site(sender)
        branch = f"L{node.layer}.{'attn' if node.kind == 'head' else 'mlp'}_out"
        edit: dict[str, Edit] = {site: Replace(self._theirs[site])}
        return {branch: Replace(self._run([branch], edit).cache[branch])}

    def attention(self, edit: dict[str, Edit]) -> Float[Tensor, "layer head prompt"]:
        """Attention between the two places, under an edit of queries or keys."""
        layers = range(self._model.n_layers)
        cache = self._run([f"L{n}.pattern" for n in layers], self._held | edit).cache
        rows = torch.arange(len(self._prompts), device=self._model.device)
        at = self._prompts.columns(_QUERY).to(self._model.device)
        shares = torch.stack([cache[f"L{n}.pattern"][rows, :, at].float() for n in layers])
        return share_at(shares.transpose(1, 2), self._prompts.columns(_KEY)).cpu()

    def _run(self, save: Sequence[str], edit: dict[str, Edit]) -> Run:
        return self._model.run(
            self._prompts, save=list(save), edit=edit, logits="none", batch=len(self._prompts)
        )
