"""``interp.attention``: where do heads look, over one prompt?

A pattern shows what a head reads from, not what it moves: a large weight on a token whose value
is small does little (Kobayashi et al. 2020, arXiv:2004.10102). ``value_lengths`` says how long what
each token's value writes is; patch ``z`` to see what a head does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError, SiteError
from interp.lenses.attention_view import AttentionView
from interp.models.model import Model
from interp.results import Provenance, Stored
from interp.runs.cache import Cache
from interp.runs.execute import execute
from interp.runs.plan import resolve
from interp.sites import ALL, Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["AttentionResult", "attention"]

_POINT = "pattern"


@dataclass(frozen=True, eq=False, repr=False)
class AttentionResult(Stored):
    """Attention patterns of some heads over one prompt.

    Attributes:
        patterns: each query's share of attention to each key, 0 to 1; rows sum to 1, and
            nothing after the query has a share.
        heads: their names, as ``"L1.H3"``.
        tokens: the prompt's tokens as text.
        provenance: model, versions and the call.
        value_lengths: ‖v W_O‖ of each head and key: how long what it writes is where a query attends
            to that key alone, before any norm or multiplier behind it. None where a family does not show ``v``.
    """

    patterns: Float[Tensor, "head query key"]
    heads: tuple[str, ...]
    tokens: tuple[str, ...]
    provenance: Provenance
    value_lengths: Float[Tensor, "head key"] | None = None

    def __repr__(self) -> str:
        some = ", ".join(self.heads[:4]) + (", ..." if len(self.heads) > 4 else "")
        return f"AttentionResult({len(self.heads)} heads: {some}; {len(self.tokens)} tokens)"

    def to_frame(self, top: int = 3) -> DataFrame:
        """For each head and query its ``top`` keys, most attended first.

        Columns: ``head``, ``query`` and ``key`` (positions from 0), ``query_token``,
        ``key_token``, ``attention`` (0 to 1).
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for head, pattern in zip(self.heads, self.patterns, strict=True):
            for query, shares in enumerate(pattern):
                order = shares[: query + 1].sort(descending=True, stable=True)
                for key, share in zip(order.indices[:top], order.values[:top], strict=True):
                    rows.append({
                        "head": head, "query": query, "query_token": self.tokens[query],
                        "key": int(key), "key_token": self.tokens[int(key)],
                        "attention": float(share),
                    })  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self, *, title: str = "attention patterns") -> Figure:
        """A small heat map for each head: queries as rows, from the top, and keys as columns.

        Where several layers have as many heads each, a layer is a row if that fits.

        Raises:
            ResultError: more heads than a figure can show.
        """
        from interp.figures import attention_patterns

        counts = Counter(name.partition(".")[0] for name in self.heads)
        even = len(counts) > 1 and len(set(counts.values())) == 1
        return attention_patterns(
            self.patterns, self.tokens, self.heads, title=title,
            across=max(counts.values()) if even else None,
        )  # fmt: skip

    def view(self, *, title: str | None = None) -> AttentionView:
        """An interactive view, for a notebook or as one HTML file; it needs no network.

        >>> interp.attention(model, text).view().save("attention.html")     # doctest: +SKIP

        Raises:
            ResultError: on showing or saving, more than a browser can open.
        """
        return AttentionView(
            self.tokens, self.patterns, self.heads, title or f"attention, {self.provenance.model}",
            self.value_lengths,
        )  # fmt: skip


@torch.no_grad()
def attention(
    model: Model, prompt: Any, heads: str | Site | Sequence[str | Site] = "L*.H*.pattern"
) -> AttentionResult:
    """Attention patterns of chosen heads over one prompt.

    >>> interp.attention(model, "The capital of France is", "L1.H0,3.pattern")  # doctest: +SKIP
    AttentionResult(2 heads: L1.H0, L1.H3; 6 tokens)

    Args:
        prompt: whatever ``model.run`` takes, as long as it is one prompt.
        heads: sites of ``pattern``, with or without its name: ``"L1.H0,3.pattern"``,
            ``"L1.pattern"`` (each head of a block), or what ``HeadScores.found`` gives.

    Raises:
        PromptError: there are several prompts.
        SiteError: a head does not exist, the site is not of ``pattern``, none was given, or
            this family does not show its patterns.
    """
    batch = model.batch(prompt)
    if len(batch) != 1:
        raise PromptError(
            f"attention() was given {len(batch)} prompts; expected one. Pick one: prompts[0] of a "
            "list, ids[:1] of a tensor, prompts.subset([0]) of Prompts."
        )
    sites = _heads(model, [heads] if isinstance(heads, str | Site) else list(heads))
    real = batch.mask[0].nonzero().flatten()
    values = [] if "v" in model.anatomy.refused else [
        f"L{layer}.v" for layer in dict.fromkeys(_layer(site) for site in sites)
    ]  # fmt: skip
    run = execute(
        model.anatomy, batch, save=[*(site.whole for site in sites), *values], logits="none"
    )
    patterns = [run.cache[site][0].float()[real][:, real].cpu() for site in sites]
    ids = batch.ids[0][real].tolist()
    words = [str(i) for i in ids] if model.tokenizer is None else model.to_str_tokens(ids)
    names = tuple(str(site).removesuffix(f".{_POINT}") for site in sites)
    return AttentionResult(
        patterns=torch.stack(patterns),
        heads=names,
        tokens=tuple(words),
        provenance=Provenance.of(model, prompt, verb="attention", heads=list(names), ids=ids),
        value_lengths=_value_lengths(model, sites, run.cache, real) if values else None,
    )


def _layer(site: Site) -> int:
    assert site.layer is not None  # resolve() has given each head its layer
    return int(site.layer.text)


def _value_lengths(
    model: Model, sites: Sequence[Site], cache: Cache, real: Int[Tensor, " pos"]
) -> Float[Tensor, "head key"]:
    """‖v W_O‖ of each head's key at each real token."""
    group = model.n_heads // model.n_kv_heads
    lengths = []
    for site in sites:
        assert site.head is not None
        head = site.head.expand(model.n_heads, "head")[0]
        v = cache[f"L{_layer(site)}.v"][0, real, head // group].float()
        W_O = model.weights.layer(_layer(site)).W_O[head].float()
        lengths.append((v @ W_O).norm(dim=-1).cpu())
    return torch.stack(lengths)


def _heads(model: Model, given: Sequence[str | Site]) -> tuple[Site, ...]:
    """One site for each head, in the order given, each once."""
    found: dict[Site, None] = {}
    for name in given:
        text = str(name).strip()
        last = text.rpartition(".")[2]
        bare = re.fullmatch(r"[LH][\d*,-]+", last)  # a head or a block, as found() names it
        site = Site.parse(f"{text}.{_POINT}" if bare else text)
        if site.point != _POINT:
            raise SiteError(
                f"{text!r} is not an attention pattern; expected heads such as 'L1.H0,3.pattern'."
            )
        for one in resolve(model.anatomy, [site]):
            numbers = (one.head or ALL).expand(model.n_heads, "head")
            found |= {one.at(head=number): None for number in numbers}
    if not found:
        raise SiteError("no heads were given; expected some, such as 'L1.H0,3.pattern'.")
    return tuple(found)
