"""Attention patterns to look into: every head as a thumbnail, one as text and as a matrix.

Point at a token to see where it looks, or who looks at it. The fragment carries its own script and
opens without a network. (CircuitsVis and BertViz, the libraries for this, have notebooks fetch
theirs from a content network when they are opened.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.errors import ResultError, warn
from interp.views.page import read, render

__all__ = ["across", "attention_html", "side_of"]

_DIGITS: Final = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", dtype=np.uint8
)
_LARGE, _MOST = 8e6, 64e6  # characters of patterns: slow to open, and too much for a browser


def attention_html(
    tokens: Sequence[str],
    patterns: Float[Tensor, "head query key"],
    names: Sequence[str],
    *,
    title: str = "",
    lengths: Float[Tensor, "head key"] | None = None,
) -> str:
    """Attention patterns as an HTML fragment: a section with its own style, data and script.

    It refers to nothing outside itself, so a page may hold several. Shares are kept to three
    digits, two characters each. Without JavaScript a table of the most attended tokens stands there.

    Args:
        tokens: the prompt's tokens as text.
        patterns: shares, 0 to 1; nothing after the query.
        names: of the heads.
        title: a heading over it, as text.
        lengths: ‖what each key's value writes‖, for a value-weighted mode: each key's share of the
            row's sum of attention × length. None: no such mode.

    Raises:
        ResultError: shapes that do not fit, patterns that look ahead, or too much for a browser
            to open.
    """
    from markupsafe import Markup

    shares = _checked(tokens, patterns, names, lengths)
    rows = [
        (name, _most_attended(tokens, row[-1])) for name, row in zip(names, shares, strict=True)
    ]
    data = {
        "side": side_of(len(tokens)), "tokens": list(tokens), "names": list(names), "patterns": _encoded(shares),
        "lengths": None if lengths is None else _rounded(lengths),
    }  # fmt: skip
    return render(
        "attention.html.j2", title=title, across=across(names), last=repr(tokens[-1]), rows=rows,
        data=Markup(_json(data)), css=Markup(read("attention.css")), js=Markup(read("attention.js")),
    )  # fmt: skip


def _checked(
    tokens: Sequence[str], patterns: Tensor, names: Sequence[str], lengths: Tensor | None
) -> Float[Tensor, "head query key"]:
    """The patterns in float32 on the CPU."""
    expected = [len(names), len(tokens), len(tokens)]
    if list(patterns.shape) != expected or not all(expected):
        raise ResultError(
            f"patterns of shape {list(patterns.shape)} for {len(names)} heads and {len(tokens)} tokens; "
            f"expected {expected}, and at least one of each."
        )
    if lengths is not None and list(lengths.shape) != expected[:2]:
        raise ResultError(
            f"lengths of shape {list(lengths.shape)}; expected [head, key], {expected[:2]}."
        )
    if lengths is not None and not bool(lengths.isfinite().all()):
        raise ResultError(
            "these lengths have NaN or infinite numbers; expected finite ones, or None."
        )
    shares = patterns.detach().float().cpu()
    if not bool(shares.isfinite().all()) or float(shares.min()) < 0 or float(shares.max()) > 1.001:
        raise ResultError(
            "these patterns are no shares: expected numbers from 0 to 1, as the site 'pattern' has "
            "them (scores before the softmax are 'attn_scores')."
        )
    if float(shares.triu(1).abs().max()) > 1e-6:
        raise ResultError(
            "these patterns look at later tokens, and the view draws causal ones only: expected "
            "[head, query, key] with nothing after the query. Are the axes the right way round?"
        )
    _check_size(len(names), len(tokens))
    return shares


def _check_size(heads: int, tokens: int) -> None:
    size = heads * tokens * (tokens + 1)
    advice = (
        "Choose fewer heads, such as interp.attention(model, prompt, 'L5'), or a shorter prompt."
    )
    if size > _MOST:
        raise ResultError(
            f"{heads} heads × {tokens} tokens make a view of {size / 1e6:.0f} MB, more than the "
            f"{_MOST / 1e6:.0f} MB that a browser opens. {advice}"
        )
    if size > _LARGE:
        warn(f"a view of {size / 1e6:.0f} MB takes a while to open. {advice}")


def _encoded(shares: Float[Tensor, "head query key"]) -> list[str]:
    """For each head the lower triangle in thousandths, two base-64 digits each, row by row."""
    lower = np.tril_indices(shares.shape[-1])
    out = []
    for pattern in shares.numpy():
        thousandths = np.rint(pattern[lower] * 1000).astype(np.int64)
        pairs = np.stack([_DIGITS[thousandths // 64], _DIGITS[thousandths % 64]], -1)
        out.append(pairs.tobytes().decode("ascii"))
    return out


def _rounded(lengths: Tensor) -> list[list[float]]:
    rows: list[list[float]] = lengths.detach().float().cpu().tolist()
    return [[float(f"{value:.4g}") for value in row] for row in rows]


def _json(data: Any) -> str:
    """JSON that can stand inside a script element: no ``<``, ``>`` or ``&``."""
    import json

    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _most_attended(tokens: Sequence[str], shares: Float[Tensor, " key"]) -> list[tuple[str, float]]:
    order = shares.sort(descending=True, stable=True)
    best = zip(order.indices[:3].tolist(), order.values[:3].tolist(), strict=True)
    return [(repr(tokens[key]), share) for key, share in best]


def side_of(tokens: int) -> int:
    """Width of a cell of the matrix, in CSS pixels."""
    least = 1 if tokens > 500 else 2  # below 11 pixels tokens are not written beside it
    return max(least, min(20, 480 // tokens), min(30, 340 // tokens))


def across(names: Sequence[str]) -> int:
    """Thumbnails in a row: a layer's heads, where each layer has as many, else eight."""
    counts = Counter(re.split(r"\.", name, maxsplit=1)[0] for name in names)
    even = len(counts) > 1 and len(set(counts.values())) == 1
    most = max(counts.values()) if even else 8
    return max(1, min(most, 16, len(names)))
