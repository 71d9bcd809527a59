"""The ways to find a circuit, and which options each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from interp.attribution.edges.verb import EDGE_METHODS
from interp.errors import RunError, nearest

__all__ = ["GATED", "METHODS", "check_options"]

GATED: Final = ("edge-pruning", "subnetwork-probing")
METHODS: Final = ("acdc", *EDGE_METHODS, *GATED)

_RANKED: Final = ("n", "threshold", "signed", "connected", "direction")
_TAKES: Final[dict[str, tuple[str, ...]]] = {
    "acdc": ("tau", "signed", "order", "record"),
    "eap-ig": (*_RANKED, "steps", "alphas"),
    "eap-ig-activations": (*_RANKED, "steps", "alphas"),
    "edge-pruning": ("n", "steps", "record"),
    "subnetwork-probing": ("n", "penalty", "steps", "record"),
}


def check_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given (those that are not None).

    Raises:
        RunError: an unknown method, an option that it has no use for, or none that says how many
            edges to keep where one must.
    """
    if method not in METHODS:
        raise RunError(
            f"method={method!r}; expected one of {', '.join(METHODS)}; "
            f"nearest: {nearest(str(method), METHODS)}."
        )
    given = {word: value for word, value in options.items() if value is not None}
    takes = _TAKES.get(method, _RANKED)
    for word in given:
        if word not in takes:
            users = [name for name in METHODS if word in _TAKES.get(name, _RANKED)]
            raise RunError(
                f"{word}= is no option of method={method!r}, which takes {', '.join(takes)}. "
                f"It belongs to {', '.join(users)}."
            )
    _check_size(method, given)
    return given


def _check_size(method: str, given: Mapping[str, Any]) -> None:
    if method in ("acdc", "subnetwork-probing"):
        return
    if method == "edge-pruning":
        if "n" not in given:
            raise RunError(
                "method='edge-pruning' trains gates towards a number of edges: give n=, such as 50, "
                "or a share such as n=0.05."
            )
    elif ("n" in given) == ("threshold" in given):
        raise RunError(
            f"method={method!r} scores every edge: say how many to keep with n= (50, or a share "
            "such as 0.05), or how strong they must be with threshold= in the metric's unit; one of "
            "the two."
        )
