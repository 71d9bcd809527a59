"""Features in the model's own words: which tokens' logits one raises, and which embeddings excite it.

*Logit effect*: what one unit of activation adds directly to each logit. The decoder's direction goes
through the unembedding with the final norm's γ and centring folded in and the mean over the vocabulary
taken out (:func:`interp.weight_lenses.ends.unembedding`); the norm's division, a positive number for each
position, is left out, so that only order and ratios mean something. Later layers are not asked. A feature
of a cross-layer transcoder writes to several layers, and what it writes is summed over them.

*De-embedding* (Dunefsky et al. 2024, §4: ``W_E · W_enc``): what the encoder would read if the residual
stream held a token's embedding and nothing else, times the feature's encoder; ``b_enc`` is left out.
Where the site lies behind a norm the embedding goes through that norm, γ, β and division included. That
departs from the paper's bare product, and makes the number the true pre-activation of a token that stands
in layer 0 with attention silenced.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.dictionaries.dictionary import Dictionary
from interp.errors import DictionaryError
from interp.inspection.chosen import Chosen
from interp.models.folding import norm_before_attention, norm_before_mlp
from interp.models.model import Model
from interp.sites import Site
from interp.taps.norms import normalise
from interp.weight_lenses.ends import tokens_in, unembedding
from interp.weight_lenses.reading import Reading, read

__all__ = ["Tokens", "as_read", "de_embedding", "logit_effects", "written"]

_WRITTEN = ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out", "embed", "pos_embed")
_BEHIND_NORM = ("ln1.normalized", "attn.input", "ln2.normalized", "mlp.input")


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens at one end of each feature, strongest first.

    Attributes:
        top_ids, top: the largest numbers and their tokens.
        bottom_ids, bottom: the smallest.
        kurtosis: excess kurtosis over the vocabulary.
    """

    top_ids: Int[Tensor, "feature n"]
    top: Float[Tensor, "feature n"]
    bottom_ids: Int[Tensor, "feature n"]
    bottom: Float[Tensor, "feature n"]
    kurtosis: Float[Tensor, " feature"]

    @classmethod
    def of(cls, found: Reading) -> Tokens:
        return cls(
            found.top_ids, found.top_logits, found.bottom_ids, found.bottom_logits, found.kurtosis
        )


def written(chosen: Chosen) -> Float[Tensor, "feature d_out"]:
    """What one unit of each feature writes, summed over the layers it writes to."""
    dictionary, rows = chosen.dictionary, []
    n = len(dictionary.spec.writes)
    for part, units in enumerate(chosen.units):
        total = sum(dictionary.decoder(part, write).detach().float() for write in range(part, n))
        assert isinstance(total, Tensor)
        rows.append(total if units is None else total[units])
    return torch.cat(rows)


@torch.no_grad()
def logit_effects(model: Model, chosen: Chosen, top: int) -> tuple[Tokens, str]:
    """Tokens whose logits each feature raises and lowers most, and what was done.

    Raises:
        DictionaryError: what is written is no direction of the residual stream.
        ModelError: this model's unembedding cannot be folded.
    """
    directions = written(chosen)
    check_written(model, chosen.dictionary)
    found = read(directions.to(model.device), unembedding(model), top=top)
    several = ", summed over the layers it writes to" if chosen.dictionary.spec.crossing else ""
    return Tokens.of(found), (
        f"decoder direction{several} × unembedding; final norm's γ and centring folded, its division left "
        "out; less the mean over the vocabulary. The direct effect of one unit of activation."
    )


def check_written(model: Model, dictionary: Dictionary) -> None:
    """DictionaryError unless what is written is added to the residual stream."""
    spec = dictionary.spec
    points = {Site.parse(site).point for site in spec.writes}
    if points <= set(_WRITTEN) and spec.d_out == model.d_model:
        return
    raise DictionaryError(
        f"no logit effects: {spec.writes[0]} ({spec.d_out} numbers) is not part of the residual stream, "
        "which alone the unembedding reads."
    )


@torch.no_grad()
def de_embedding(model: Model, chosen: Chosen, top: int) -> tuple[Tokens, str]:
    """Tokens whose embedding alone excites each feature most, and what was done.

    Raises:
        DictionaryError: what is read is no function of the residual stream at that token.
    """
    dictionary, embedding = chosen.dictionary, tokens_in(model)
    found, said = [], ""
    for part, units in enumerate(chosen.units):
        if units is not None and not len(units):
            continue
        x, said = as_read(model, Site.parse(dictionary.spec.reads[part]), embedding)
        if x.shape[1] != dictionary.d_in:
            raise DictionaryError(
                f"no de-embedding: the encoder reads {dictionary.d_in} numbers, and this model's embeddings "
                f"have {x.shape[1]}."
            )
        x = dictionary.prepared(x.to(dictionary.device)).float()
        enc = dictionary.W_enc[part] if dictionary.spec.crossing else dictionary.W_enc
        rows = enc.T.float() if units is None else enc.T[units].float()
        found.append(Tokens.of(read(rows, x.T.contiguous(), top=top)))
    joined = (torch.cat([getattr(one, name) for one in found]) for name in vars(found[0]))
    return Tokens(*joined), said


def as_read(
    model: Model, site: Site, embedding: Float[Tensor, "token d_model"]
) -> tuple[Float[Tensor, "token d_model"], str]:
    """What stands at a site where the stream is the embedding alone."""
    if site.point in ("resid_pre", "resid_mid", "resid_post", "embed"):
        return embedding, "token embeddings as they enter the stream, × encoder; b_enc left out."
    if site.point not in _BEHIND_NORM or site.layer is None:
        raise DictionaryError(
            f"no de-embedding: {site} is not the residual stream, nor a norm of it, so a token's embedding "
            "alone does not say what stands there."
        )
    block = model.anatomy.blocks[int(site.layer.text)]
    of_mlp = site.point in ("ln2.normalized", "mlp.input")
    norm = (norm_before_mlp if of_mlp else norm_before_attention)(model.anatomy, block)
    whole = site.point in ("mlp.input", "attn.input")
    behind = "the norm with γ and β" if whole else "the norm before γ and β"
    return _normed(norm, embedding, whole=whole), (
        f"token embeddings alone through {behind} of layer {site.layer.text}, × encoder; b_enc left out."
        if norm is not None else "token embeddings × encoder; this model has no norm there."
    )  # fmt: skip


def _normed(norm: nn.Module | None, x: Tensor, *, whole: bool) -> Tensor:
    if norm is None:
        return x
    if whole:
        dtype = next((p.dtype for p in norm.parameters()), x.dtype)
        return norm(x.to(dtype)).float()
    centred, scale = normalise(norm, x)
    return centred / scale
