"""SAELens's folders: ``cfg.json`` and ``sae_weights.safetensors`` (SAELens 6, read in its code).

    W_enc [d_in, d_sae]   W_dec [d_sae, d_out]   b_enc, b_dec   threshold   W_skip [d_out, d_in]

===========================  ===========================================================
ours                         SAELens's ``architecture``
===========================  ===========================================================
sae, relu                    ``standard``
sae, gated                   ``gated`` (``b_gate`` is our ``b_enc``)
sae, topk                    ``topk``
sae, jumprelu or batchtopk   ``jumprelu``
transcoder, relu             ``transcoder``, ``skip_transcoder``
transcoder, jumprelu or      ``jumprelu_transcoder``, ``jumprelu_skip_transcoder``
batchtopk
transcoder, topk or gated    ``topk``, ``gated`` with ``apply_b_dec_to_input: false``
===========================  ===========================================================

SAELens has no TopK or gated transcoder by name, but its ``topk`` and ``gated`` compute just that once
``b_dec`` is not subtracted, and where a dictionary writes it knows by ``metadata.hook_name_out``,
whatever its class. What is left (TopK and gated *skip* transcoders, those of two widths, and
cross-layer transcoders) is written in the same layout under an architecture whose name begins with
``interp_``, which SAELens refuses by name; a warning says so.

SAELens's own ``run_with_saes`` leaves out ``W_skip`` (it calls ``encode`` and ``decode``, and the skip
stands in ``forward``): without error terms it is not the run that ``model.replaced`` is.

Transcoders state what they read by their hook: ``mlp.hook_in`` is what the MLP reads,
``ln2.hook_normalized`` is before the norm's γ and β.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.formats.folder import Content, read_json, read_tensors, take
from interp.dictionaries.formats.parts import (
    ACTIVATION_TENSORS,
    assemble,
    at_site,
    block,
    ends,
    hook_site,
    parts_of,
    spec_of_block,
)  # fmt: skip
from interp.dictionaries.forms import scale_features
from interp.dictionaries.spec import DictionarySpec
from interp.errors import DictionaryError, warn
from interp.sites import Site

__all__ = ["CONFIG", "WEIGHTS", "architecture", "files", "from_config", "read"]

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_ARCHITECTURES: dict[str, tuple[str, str]] = {
    "standard": ("sae", "relu"),
    "gated": ("sae", "gated"),
    "jumprelu": ("sae", "jumprelu"),
    "topk": ("sae", "topk"),
    "transcoder": ("transcoder", "relu"),
    "skip_transcoder": ("skip_transcoder", "relu"),
    "jumprelu_transcoder": ("transcoder", "jumprelu"),
    "jumprelu_skip_transcoder": ("skip_transcoder", "jumprelu"),
}
_BY_PAIR = {pair: name for name, pair in _ARCHITECTURES.items()}
#: What SAELens keeps of the language model and the data, if our metadata has it.
_CARRIED = (
    "context_size", "dataset_path", "prepend_bos", "seqpos_slice", "exclude_special_tokens",
    "neuronpedia_id", "model_class_name", "hf_hook_name", "hf_hook_name_out",
    "training_architecture", "training_architecture_details",
)  # fmt: skip
#: SAELens's own models rename and centre the weights unless told not to; ours are as they are.
_UNPROCESSED = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False}
_CONVENTIONS = {
    "mlp.input": "what the MLP reads: after the norm's gamma and beta",
    "ln2.normalized": "before the norm's gamma and beta",
}


def architecture(spec: DictionarySpec) -> str:
    """SAELens's name of it; one that begins with ``interp_`` where SAELens has none."""
    act = "jumprelu" if spec.activation == "batchtopk" else spec.activation
    if (spec.kind, act) in _BY_PAIR:
        return _BY_PAIR[spec.kind, act]
    if spec.kind == "transcoder" and spec.d_in == spec.d_out:
        return act  # topk and gated
    return f"interp_{spec.activation}_{spec.kind}"


# -- writing -------------------------------------------------------------------------------


def files(dictionary: Dictionary) -> dict[str, Content]:
    """The folder's files."""
    spec = dictionary.spec
    name = architecture(spec)
    if name.startswith("interp_"):
        warn(
            f"SAELens has no {spec.activation} {spec.kind} ({spec.d_in} → {spec.d_out}): the folder "
            f"keeps its layout under the architecture {name!r}, which interp.load_dictionary reads and "
            "SAELens refuses."
        )
    return {WEIGHTS: _tensors(dictionary), CONFIG: json.dumps(_config(dictionary, name), indent=2)}


def _tensors(dictionary: Dictionary) -> dict[str, Tensor]:
    state = dictionary.state_dict()
    out: dict[str, Tensor] = {name: state[name] for name in ("b_dec", "W_skip") if name in state}
    gated = dictionary.spec.activation == "gated"
    for i, part in enumerate(parts_of(dictionary)):
        end = f"_{i}" if dictionary.spec.crossing else ""
        bias = "b_gate" if gated else "b_enc"
        named = {"W_enc": part["enc"].T, "W_dec": part["dec"], bias: part["b_enc"]}
        named |= {name: part[name] for name in ACTIVATION_TENSORS[dictionary.spec.activation]}
        out |= {f"{name}{end}": tensor for name, tensor in named.items()}
    return out


def _config(dictionary: Dictionary, name: str) -> dict[str, Any]:
    spec = dictionary.spec
    read, write = Site.parse(spec.reads[0]), Site.parse(spec.writes[0])
    config: dict[str, Any] = {
        "architecture": name,
        "d_in": spec.d_in,
        "d_sae": spec.d_sae,
        "dtype": str(dictionary.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": spec.centre,
        "normalize_activations": spec.normalise,
        "reshape_activations": "hook_z" if read.point == "z" and read.head is None else "none",
    }
    if "transcoder" in name:
        config["d_out"] = spec.d_out
    if name == "topk":
        config |= {"k": spec.options["k"], "rescale_acts_by_decoder_norm": False}
    metadata: dict[str, Any] = {k: spec.metadata[k] for k in _CARRIED if k in spec.metadata}
    metadata |= {
        "sae_lens_version": _version(),
        "sae_lens_training_version": None,
        "model_name": spec.model,
        "hook_name": read.hook_name,
        "hook_head_index": int(read.head.text) if read.head is not None else None,
        "model_from_pretrained_kwargs": _UNPROCESSED,
    }
    if spec.kind != "sae":
        metadata["hook_name_out"] = write.hook_name
        if read.point in _CONVENTIONS:
            metadata["mlp_input_convention"] = _CONVENTIONS[read.point]
    return {**config, "metadata": metadata, "interp": block(spec)}


def _version() -> str:
    try:
        return version("sae-lens")
    except PackageNotFoundError:
        return "6.54.0"  # the version whose layout this is


# -- reading -------------------------------------------------------------------------------


def read(folder: Path, *, site: str | None, **options: Any) -> Dictionary:
    """The dictionary of a folder.

    Raises:
        DictionaryError: a damaged or incomplete folder, an architecture that is not supported, or a
            hook that is no site here.
    """
    config = read_json(folder / CONFIG)
    return from_config(config, read_tensors(folder / WEIGHTS), folder, site=site, **options)


def from_config(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: Path,
    *,
    site: str | None = None,
    **options: Any,
) -> Dictionary:
    """The dictionary of a config and its weights (from disk, or from an ``SAE`` in memory)."""
    path, config = source / CONFIG, _modern(config)
    spec = spec_of_block(config, path)
    rescaled = False
    if spec is None:
        spec, rescaled = _spec(config, path, site), bool(config.get("rescale_acts_by_decoder_norm"))
    spec = at_site(spec, site)
    weights = take(_without_scaling(tensors, source), _shapes(spec), source / WEIGHTS)
    made = assemble(spec, _parts(spec, weights), weights["b_dec"], weights.get("W_skip"), **options)
    if not rescaled:
        return made
    return scale_features(made, made.W_dec.float().norm(dim=-1)[None])


def _modern(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as SAELens 6 writes it, from that or from an older, flat one."""
    new = dict(config)
    if "metadata" in new:
        return new
    new["metadata"] = {k: v for k, v in new.items() if not isinstance(v, dict)}
    new["metadata"].setdefault("hook_name", new.get("hook_point"))
    new["metadata"].setdefault("hook_head_index", new.get("hook_point_head_index"))
    new.setdefault("architecture", "standard")
    new.setdefault("apply_b_dec_to_input", True)
    function = new.get("activation_fn", new.get("activation_fn_str", "relu"))
    if function == "topk":
        new |= {"architecture": "topk", "k": (new.get("activation_fn_kwargs") or {}).get("k")}
    if new.get("normalize_activations") in (None, False):
        new["normalize_activations"] = "none"
    if new["normalize_activations"] is True:
        new["normalize_activations"] = "expected_average_only_in"
    return new


def _spec(config: Mapping[str, Any], path: Path, site: str | None) -> DictionarySpec:
    name = config.get("architecture")
    if name not in _ARCHITECTURES:
        raise DictionaryError(
            f"{str(path)!r} has the architecture {name!r}, which this package does not compute; "
            f"supported: {', '.join(_ARCHITECTURES)}."
        )
    kind, act = _ARCHITECTURES[name]
    metadata = config["metadata"]
    out = metadata.get("hook_name_out")
    if kind == "sae" and (out not in (None, "", metadata.get("hook_name"))):
        kind = "transcoder"  # its class is an SAE's, its ends are not
    pair = ends(site, kind)
    if pair is None:
        head = metadata.get("hook_head_index")
        first = hook_site(metadata.get("hook_name"), "hook_name", path, head=head)
        last = first if kind == "sae" else hook_site(out, "hook_name_out", path)
        pair = (first, last)
    try:
        return DictionarySpec(
            kind=kind,  # type: ignore[arg-type]
            reads=(pair[0],),
            writes=(pair[1],),
            d_in=config["d_in"],
            d_out=config.get("d_out", config["d_in"]) if kind != "sae" else config["d_in"],
            d_sae=config["d_sae"],
            activation=act,
            options={"k": config["k"]} if act == "topk" else {},
            centre=bool(config.get("apply_b_dec_to_input", True)) and "transcoder" not in name,
            normalise=_normalise(config, path),
            model=metadata.get("model_name"),
            metadata=metadata,
        )
    except KeyError as error:
        raise DictionaryError(f"{str(path)!r} has no {error}: it is damaged.") from error


def _normalise(config: Mapping[str, Any], path: Path) -> str:
    given = str(config.get("normalize_activations", "none"))
    if given in ("expected_average_only_in", "covariance_whitening"):
        warn(
            f"{str(path)!r} says normalize_activations={given!r}: its scale belongs to the data and is "
            "not in the folder. It is taken as folded into the weights, as SAELens does; if it is "
            "not, fold it with interp.dictionaries.folding.fold_scales."
        )
        return "none"
    return given


def _shapes(spec: DictionarySpec) -> dict[str, tuple[int, ...]]:
    n = len(spec.reads)
    shapes: dict[str, tuple[int, ...]] = {"b_dec": (n * spec.d_out,)}
    if spec.kind == "skip_transcoder":
        shapes["W_skip"] = (spec.d_out, spec.d_in)
    for i in range(n):
        end = f"_{i}" if spec.crossing else ""
        shapes |= {
            f"W_enc{end}": (spec.d_in, spec.d_sae),
            f"{'b_gate' if spec.activation == 'gated' else 'b_enc'}{end}": (spec.d_sae,),
            f"W_dec{end}": (spec.d_sae, (n - i) * spec.d_out),
        }
        shapes |= {f"{name}{end}": (spec.d_sae,) for name in ACTIVATION_TENSORS[spec.activation]}
    return shapes


def _parts(spec: DictionarySpec, weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    out = []
    for i in range(len(spec.reads)):
        end = f"_{i}" if spec.crossing else ""
        bias = "b_gate" if spec.activation == "gated" else "b_enc"
        part = {
            "enc": weights[f"W_enc{end}"].T,
            "b_enc": weights[f"{bias}{end}"],
            "dec": weights[f"W_dec{end}"],
        }
        out.append(
            part | {name: weights[f"{name}{end}"] for name in ACTIVATION_TENSORS[spec.activation]}
        )
    return out


def _without_scaling(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Without the factors of a fine-tuning that SAELens no longer does; ones say nothing."""
    own = dict(tensors)
    factors = own.pop("scaling_factor", None)
    if factors is not None and not bool(torch.all(factors == 1)):
        raise DictionaryError(
            f"{str(source / WEIGHTS)!r} holds a scaling_factor (a fine-tuning of old SAELens versions), "
            "which is not supported: multiply the feature activations by it."
        )
    return own
