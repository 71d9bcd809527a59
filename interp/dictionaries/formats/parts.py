"""What all formats share: a dictionary as the tensors of its parts, and sites as hook names.

Between our weights and a file stand one dict for each part, with the names

    enc [d_sae, d_in]   b_enc [d_sae]   dec [d_sae, width]
    threshold [d_sae]        of JumpReLU and BatchTopK
    r_mag, b_mag [d_sae]     of gated

and every format only renames and transposes. What a format cannot say stands in a block of our own,
``interp``, beside its own settings, so that what is saved here is loaded here without loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spec import DictionarySpec
from interp.errors import DictionaryError, InterpError
from interp.sites import Edge, Site

__all__ = [
    "ACTIVATION_TENSORS", "assemble", "at_site", "block", "dtype_named", "ends", "hook_site",
    "parts_of", "spec_of_block",
]  # fmt: skip

#: Tensors that an activation has beside the encoder's and the decoder's.
ACTIVATION_TENSORS: dict[str, tuple[str, ...]] = {
    "relu": (), "topk": (), "gated": ("r_mag", "b_mag"),
    "jumprelu": ("threshold",), "batchtopk": ("threshold",),
}  # fmt: skip
_SAY = "load_dictionary(..., site='L3.resid_post'), or site='L2.mlp' for a transcoder"
_ALIASES = {"mlp.hook_out": "hook_mlp_out", "attn.hook_out": "hook_attn_out"}


def parts_of(dictionary: Dictionary) -> list[dict[str, Tensor]]:
    """The tensors of each part; BatchTopK's one threshold is there for each feature."""
    state, out = dictionary.state_dict(), []
    for i in range(len(dictionary.parts)):
        own = {name: state[f"parts.{i}.{name}"] for name in ("enc", "b_enc", "dec")}
        for name in ACTIVATION_TENSORS[dictionary.spec.activation]:
            own[name] = state[f"parts.{i}.activation.{name}"].expand(dictionary.d_sae)
        out.append(own)
    return out


def assemble(
    spec: DictionarySpec,
    parts: Sequence[Mapping[str, Tensor]],
    b_dec: Tensor,
    skip: Tensor | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Dictionary:
    """The dictionary of these parts.

    Raises:
        DictionaryError: they do not fit the spec.
    """
    state = {"b_dec": b_dec} if skip is None else {"b_dec": b_dec, "W_skip": skip}
    for i, part in enumerate(parts):
        for name, tensor in part.items():
            inner = name in ("enc", "b_enc", "dec")
            state[f"parts.{i}.{name if inner else f'activation.{name}'}"] = tensor
        if spec.activation == "batchtopk":
            threshold = part["threshold"]
            if not bool((threshold == threshold[0]).all()):
                raise DictionaryError(
                    "a batchtopk dictionary has one threshold; these weights have many. Remove the "
                    "'interp' block of its config to load it as what its format says it is."
                )
            state[f"parts.{i}.activation.threshold"] = threshold[0]
    own = dtype_named(dtype) or _widest(state.values())
    made = Dictionary.of(spec, {n: t.to(dtype=own) for n, t in state.items()})
    try:
        return made.to(device or "cpu")
    except (RuntimeError, AssertionError) as error:  # no such device, in several ways
        raise DictionaryError(
            f"device={str(device)!r} cannot hold it ({str(error).strip().splitlines()[0]}); expected "
            "one that is there, such as 'cpu' or 'cuda:0'."
        ) from error


def dtype_named(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A floating dtype, given itself or its name.

    Raises:
        DictionaryError: there is none of that name.
    """
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype is not None and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise DictionaryError(
            f"dtype={dtype!r}; expected a floating one such as 'float32' or 'bfloat16'."
        )
    return found


def _widest(tensors: Any) -> torch.dtype:
    widest = torch.bfloat16
    for i, tensor in enumerate(tensors):
        widest = tensor.dtype if i == 0 else torch.promote_types(widest, tensor.dtype)
    return widest


# -- what a format cannot say --------------------------------------------------------------


def block(spec: DictionarySpec) -> dict[str, Any]:
    """The ``interp`` block of a config: the whole spec."""
    return {"version": 1, "spec": spec.to_json()}


def spec_of_block(config: Mapping[str, Any], path: Path) -> DictionarySpec | None:
    """The spec that :func:`block` wrote down; None if there is no such block.

    Raises:
        DictionaryError: the block cannot be read.
    """
    given = config.get("interp")
    if given is None:
        return None
    try:
        if given["version"] != 1:
            raise DictionaryError(f"version {given['version']!r}, expected 1")
        return DictionarySpec.from_json(given["spec"])
    except (KeyError, TypeError, InterpError) as error:
        raise DictionaryError(
            f"the 'interp' block of {str(path)!r} cannot be read ({error}). A newer version may have "
            "written it; without the block the folder is read as other libraries do."
        ) from error


# -- sites ---------------------------------------------------------------------------------


def ends(site: str | None, kind: str) -> tuple[str, str] | None:
    """What a dictionary reads and writes, by the ``site`` that a user gave; None if none was given.

    ``"L2.mlp"`` is ``mlp.input → mlp_out``; ``"L2.ln2.normalized -> L2.mlp_out"`` says both; any
    other site is both ends of an SAE.

    Raises:
        DictionaryError: one site for a dictionary of another kind, or two for an SAE.
        SiteError: no such site.
    """
    if site is None:
        return None
    if "->" in site:
        edge = Edge.parse(site)
        pair = (str(edge.source), str(edge.target))
    else:
        own = Site.parse(site).ends
        pair = (str(own[0]), str(own[-1]))
    if (pair[0] == pair[1]) != (kind == "sae"):
        expected = "one site, 'L3.resid_post'" if kind == "sae" else "'L2.mlp', or 'a -> b'"
        raise DictionaryError(
            f"site={site!r} for a dictionary of kind {kind!r}: expected {expected}."
        )
    return pair


def hook_site(
    hook: object, what: str, path: Path, *, head: int | None = None, hint: str = _SAY
) -> str:
    """Our name of a TransformerLens hook.

    Raises:
        DictionaryError: no hook is named, or none that is known here.
    """
    if not isinstance(hook, str) or not hook:
        raise DictionaryError(
            f"{str(path)!r} names no {what}: say where the dictionary belongs, {hint}."
        )
    for theirs, ours in _ALIASES.items():
        hook = f"{hook.removesuffix(theirs)}{ours}" if hook.endswith(f".{theirs}") else hook
    try:
        site = Site.parse(hook)
        return str(site if head is None else site.at(head=head))
    except InterpError as error:
        raise DictionaryError(
            f"{what} {hook!r} of {str(path)!r} is no site of this package ({error}) Say where the "
            f"dictionary belongs: {hint}."
        ) from error


def at_site(spec: DictionarySpec, site: str | None) -> DictionarySpec:
    """The spec at the site that a user gave.

    Raises:
        DictionaryError: it does not fit the kind; a cross-layer transcoder, which has many sites.
        SiteError: no such site.
    """
    if site is not None and spec.crossing:
        raise DictionaryError(
            f"site={site!r} for a cross-layer transcoder, whose sites stand in its config: leave it out."
        )
    pair = ends(site, spec.kind)
    return spec if pair is None else replace(spec, reads=(pair[0],), writes=(pair[1],))
