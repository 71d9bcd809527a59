"""Dictionaries in other units: the same function of the same run, with other weights.

A dictionary is affine on both sides of its non-linearity, so whatever scales, shifts or re-expresses
what it reads or writes can be folded into its weights:

    x = s · x' + o      →   enc' = enc · s,   b_enc' = b_enc + enc @ o
    y' = s · y + o      →   dec' = s · dec,   b_dec' = s · b_dec + o

That is how a dictionary trained on normalised activations is brought to raw units, and how a
transcoder that reads what the MLP reads (``mlp.input``: after the norm's γ and β) becomes one that
reads TransformerLens's ``ln2.hook_normalized`` (before them): Dunefsky et al. 2024 train on the latter.
Every function returns a new dictionary; equal means equal up to rounding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.affine import rebuilt, reread, rewrite, state_of
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.forms import as_jumprelu, scale_features, unit_decoder, with_centring
from interp.errors import DictionaryError, nearest, warn
from interp.sites import Site
from interp.taps.norms import gamma as gamma_of
from interp.taps.offload import fetched

__all__ = [
    "as_jumprelu", "fold_norm", "fold_scales", "reading", "scale_features", "unfold_norm",
    "unit_decoder", "with_centring",
]  # fmt: skip

_BEFORE = {"mlp.input": "ln2.normalized", "attn.input": "ln1.normalized"}
_AFTER = {before: after for after, before in _BEFORE.items()}


def fold_scales(
    dictionary: Dictionary,
    *,
    in_shift: Float[Tensor, "*layer d_in"] | float = 0.0,
    in_scale: Float[Tensor, "*layer"] | float = 1.0,
    out_shift: Float[Tensor, "*layer d_out"] | float = 0.0,
    out_scale: Float[Tensor, "*layer"] | float = 1.0,
) -> Dictionary:
    """The dictionary in raw units, given one for ``x' = (x − shift) · scale`` on both sides.

    Feature activations stay what they were. A cross-layer transcoder takes a scale and a shift for
    each layer.

    Raises:
        DictionaryError: a shape that does not fit; a scale of 0; an SAE which subtracts ``b_dec`` and
            whose two sides differ; one that normalises at run time.
    """
    spec = dictionary.spec
    if spec.normalise != "none":
        raise DictionaryError(
            f"a dictionary with normalise={spec.normalise!r} computes its scale for each input: there "
            "is none to fold."
        )
    shift_in, scale_in, shift_out, scale_out = (
        _layers(dictionary, name, value)
        for name, value in (("in_shift", in_shift), ("in_scale", in_scale),
                            ("out_shift", out_shift), ("out_scale", out_scale))
    )  # fmt: skip
    if not (scale_in.all() and scale_out.all()):
        raise DictionaryError("a scale is 0; expected numbers other than 0.")
    state = state_of(dictionary)
    if spec.centre:
        if not (torch.equal(scale_in, scale_out) and bool((shift_in == shift_out).all())):
            raise DictionaryError(
                "this SAE subtracts b_dec from its input, so both sides have one b_dec in one unit: "
                "give out_shift and out_scale the values of in_shift and in_scale."
            )
        reread(dictionary, state, scale_in, torch.zeros_like(shift_in))
    else:
        reread(dictionary, state, scale_in, -scale_in * shift_in)
    rewrite(dictionary, state, 1 / scale_out, shift_out)
    return rebuilt(dictionary, state)


def fold_norm(
    dictionary: Dictionary,
    gamma: Float[Tensor, "*layer d_in"] | float,
    beta: Float[Tensor, "*layer d_in"] | None = None,
    *,
    to: str = "ln2.normalized",
) -> Dictionary:
    """A transcoder of ``mlp.input`` as one that reads what the norm has before its γ and β.

    Args:
        dictionary: reads ``γ · n + β``.
        gamma: the factor that the norm multiplies by: ``1 + weight`` where a family's norm does that.
        beta: what it adds; None for none.
        to: the point where ``n`` stands.

    Raises:
        DictionaryError: it reads another site, or γ has another width.
    """
    _check_point(dictionary, _AFTER.get(to, "mlp.input"), to)
    state, offset = state_of(dictionary), 0.0 if beta is None else beta
    reread(
        dictionary,
        state,
        _layers(dictionary, "gamma", gamma, wide=True),
        _layers(dictionary, "beta", offset, wide=True),
    )
    return rebuilt(dictionary, state, reads=_moved(dictionary, to))


def unfold_norm(
    dictionary: Dictionary,
    gamma: Float[Tensor, "*layer d_in"] | float,
    beta: Float[Tensor, "*layer d_in"] | None = None,
    *,
    to: str = "mlp.input",
) -> Dictionary:
    """The reverse of :func:`fold_norm`: from ``ln2.normalized`` to what the MLP reads.

    Raises:
        DictionaryError: as there; or γ has zeros, where the norm's output says nothing about ``n``.
    """
    _check_point(dictionary, _BEFORE.get(to, "ln2.normalized"), to)
    factor = _layers(dictionary, "gamma", gamma, wide=True)
    offset = _layers(dictionary, "beta", 0.0 if beta is None else beta, wide=True)
    if zeros := int((factor == 0).sum()):
        raise DictionaryError(
            f"γ is 0 in {zeros} places: what stood there before it cannot be told from {to}. Keep the "
            "dictionary at the site before the norm's γ."
        )
    state = state_of(dictionary)
    reread(dictionary, state, 1 / factor, -offset / factor)
    return rebuilt(dictionary, state, reads=_moved(dictionary, to))


def reading(dictionary: Dictionary, model: Any, where: str) -> Dictionary:
    """The same transcoder, reading ``"ln2.normalized"`` or ``"mlp.input"``.

    γ and β come from the model's own norms. Itself if it reads there already.

    Args:
        dictionary: a transcoder of either site.
        model: the model that it belongs to.
        where: the point to read.

    Raises:
        DictionaryError: no such convention, or a model whose norm does not stand there or has another
            width.
    """
    if where not in (*_BEFORE, *_AFTER):
        raise DictionaryError(
            f"reads={where!r}; expected 'mlp.input' (after the norm's γ and β) or 'ln2.normalized' "
            f"(before them); nearest: {nearest(where, ('mlp.input', 'ln2.normalized'))}."
        )
    if all(Site.parse(site).point == where for site in dictionary.spec.reads):
        return dictionary
    folding = where in _AFTER
    before = where if folding else _BEFORE[where]
    norms = [_norm(model, Site.parse(site), before) for site in dictionary.spec.reads]
    offset = model.anatomy.family.norm_offset
    factors, shifts = [], []
    for norm in norms:
        factor = torch.as_tensor(gamma_of(norm, offset)).detach()
        beta = fetched(norm, "bias")
        factors.append(factor.expand(dictionary.d_in) if factor.ndim == 0 else factor)
        shifts.append(torch.zeros_like(factors[-1]) if beta is None else beta.detach())
    _warn_if_another(dictionary, model)
    crossing = dictionary.spec.crossing
    gamma, beta = (torch.stack(ts) if crossing else ts[0] for ts in (factors, shifts))
    fold = fold_norm if folding else unfold_norm
    return fold(dictionary, gamma, beta, to=where)


# -- inside ------------------------------------------------------------------------------


def _layers(dictionary: Dictionary, name: str, value: Any, *, wide: bool = False) -> Tensor:
    """A number, vector or table as [layer, width], where width may be 1."""
    n, crossing = len(dictionary.parts), dictionary.spec.crossing
    width = dictionary.d_out if name.startswith("out") else dictionary.d_in
    dtype = torch.promote_types(dictionary.dtype, torch.float32)
    given = torch.as_tensor(value, dtype=dtype, device=dictionary.device)
    if given.ndim == 0:
        return given.expand(n, 1)
    scale = name.endswith("scale") and not wide
    expected = ((n,) if crossing else ()) + (() if scale else (width,))
    if given.shape != expected:
        raise DictionaryError(
            f"{name} has the shape {list(given.shape)}; expected a number"
            + (f" or {list(expected)}." if expected else ".")
        )
    return given.reshape(n, -1)


def _check_point(dictionary: Dictionary, point: str, to: str) -> None:
    points = {Site.parse(site).point for site in dictionary.spec.reads}
    if dictionary.kind == "sae" or points != {point}:
        raise DictionaryError(
            f"a {dictionary.kind} that reads {dictionary.spec.reads[0]} cannot be read at {to!r}: "
            f"expected a transcoder that reads {point!r}."
        )


def _moved(dictionary: Dictionary, point: str) -> tuple[str, ...]:
    return tuple(str(replace(Site.parse(site), point=point)) for site in dictionary.spec.reads)


def _norm(model: Any, site: Site, before: str) -> Any:
    """The norm module whose inside is the site called ``before`` in the site's layer."""
    anatomy = model.anatomy
    late = not getattr(anatomy.hf.config.get_text_config(), "do_layer_norm_before", True)
    reason = "its norms come after the branches" if late else anatomy.refused.get(before)
    if reason:
        raise DictionaryError(f"{model.name} has no {before!r} to read: {reason}.")
    layer = Site.parse(site).layer
    assert layer is not None  # both points belong to blocks
    (number,) = layer.expand(anatomy.n_layers, "layer")
    return getattr(anatomy.blocks[number], before.split(".")[0])


def _warn_if_another(dictionary: Dictionary, model: Any) -> None:
    known = dictionary.spec.weights_hash
    if known is not None and known != model.weights_hash:
        warn(
            f"this dictionary was trained on {dictionary.spec.model} with other weights than those of "
            f"{model.name}, whose γ and β are folded now."
        )
