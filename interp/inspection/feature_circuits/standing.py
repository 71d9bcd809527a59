"""Which transcoder stands for which MLP, and which feature at which position is meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from interp.dictionaries.dictionary import Dictionary
from interp.errors import DictionaryError, PromptError
from interp.inspection.feature_circuits.node import Node
from interp.models.model import Inputs, Model
from interp.prompts.positions import resolve_columns
from interp.prompts.prompts import Prompts
from interp.sites import Site
from interp.token_batch import TokenBatch

__all__ = ["Transcoders", "by_layer", "feature_of", "one_prompt", "layer_of"]

Transcoders = Dictionary | Iterable[Dictionary] | Mapping[str, Dictionary]
_READS = ("mlp.input", "ln2.normalized")


def by_layer(model: Model, transcoders: Transcoders) -> dict[int, Dictionary]:
    """Each MLP's transcoder.

    Raises:
        DictionaryError: none, something else than transcoders of one MLP, of another width than the model's, or
            two for one MLP; or some stand in the model's runs already.
    """
    if model.anatomy.splices:
        raise DictionaryError(
            f"{model.name!r} has dictionaries in place, and the question is what the model itself does, with what "
            "they leave out as terms of its own: call this outside of model.replaced(...)."
        )
    given: list[Any] = (
        [transcoders] if isinstance(transcoders, Dictionary)
        else list(transcoders.values()) if isinstance(transcoders, Mapping) else list(transcoders)
    )  # fmt: skip
    found: dict[int, Dictionary] = {}
    for one in given:
        layer = layer_of(model, one)
        if layer in found:
            raise DictionaryError(f"two transcoders of layer {layer}'s MLP: expected one of each.")
        found[layer] = one
    if not found:
        raise DictionaryError("no transcoder was given; expected one for each MLP, or for some.")
    return found


def layer_of(model: Model, one: Any) -> int:
    """The layer whose MLP a transcoder stands for.

    Raises:
        DictionaryError: it is none, or not one of this model.
    """
    if not isinstance(one, Dictionary):
        raise DictionaryError(
            f"a {type(one).__name__} is no dictionary; expected transcoders, such as interp.train(..., "
            "kind='transcoder') makes."
        )
    read, write = Site.parse(one.spec.reads[0]), Site.parse(one.spec.writes[0])
    own = read.point in _READS and write.point == "mlp_out" and read.layer == write.layer
    if one.spec.crossing or not own or read.layer is None:
        raise DictionaryError(
            f"{one.spec.name} reads {one.spec.reads[0]} and writes {one.spec.writes[0]}: expected a transcoder "
            "of one MLP (from mlp.input or ln2.normalized to mlp_out of its layer)."
        )
    layer = int(read.layer.text)
    if (one.d_in, one.d_out) != (model.d_model,) * 2 or not 0 <= layer < model.n_layers:
        raise DictionaryError(
            f"{one.spec.name} reads {one.d_in} and writes {one.d_out} numbers in layer {layer}, and {model.name!r} "
            f"has {model.n_layers} layers of {model.d_model}: it is a dictionary of another model."
        )
    return layer


def one_prompt(model: Model, prompt: Inputs) -> TokenBatch:
    """The tokens of one prompt, without padding.

    Raises:
        PromptError: there are several.
    """
    batch = model.batch(prompt)
    if len(batch) != 1:
        raise PromptError(
            f"{len(batch)} prompts: what is frozen belongs to one run. Expected one prompt, such as "
            "prompts.subset([0])."
        )
    return TokenBatch.of(batch.ids[batch.mask][None])


def feature_of(
    model: Model, prompt: Inputs, transcoders: Mapping[int, Dictionary], name: str
) -> Node:
    """The feature that a site names, at its position (the last, if it names none).

    Raises:
        SiteError: it is no site.
        DictionaryError: it is not one feature of one of these transcoders.
        PromptError: no such position.
    """
    site = Site.parse(name)
    single = site.layer is not None and site.layer.single and site.unit and site.unit.single
    if site.point != "mlp" or not single or site.layer is None or site.unit is None:
        raise DictionaryError(f"{name!r} is not one feature; expected a name like 'L2.mlp.F12@-1'.")
    layer = site.layer.expand(model.n_layers, "layer")[0]
    if layer not in transcoders:
        have = ", ".join(f"L{layer}.mlp" for layer in sorted(transcoders))
        raise DictionaryError(
            f"{name!r}: no transcoder of layer {layer} was given. There are {have}."
        )
    unit = site.unit.expand(transcoders[layer].d_sae, "feature", "dictionary")[0]
    where = -1 if site.position is None else site.position
    batch, named = model.batch(prompt), prompt.positions if isinstance(prompt, Prompts) else {}
    column = int(resolve_columns(where, batch, named)[0]) - int(batch.first[0])
    return Node("feature", column, layer, unit)
