"""sparsify's folders (EleutherAI): ``cfg.json`` and ``sae.safetensors``.

    encoder.weight [latents, d_in]   encoder.bias   W_dec [latents, d_in]   b_dec   W_skip [d_in, d_in]

Its sparse coders are TopK (ReLU first, then the k largest: equal to ours). An SAE subtracts ``b_dec``
from its input, a transcoder does not; ``y = acts @ W_dec + b_dec + x @ W_skipᵀ``. Where it was trained is
said by the folder's name alone, a *hookpoint*: a Hugging Face module by its path. ``layers.3`` is the
block's output (``L3.resid_post``); ``layers.3.mlp`` is the MLP module's output, and for a transcoder
its input and output. In families with a norm behind the MLP (Gemma 2), that output is not yet
``mlp_out``: give ``site=`` if you know better.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.formats.folder import Content, read_json, read_tensors, take
from interp.dictionaries.formats.parts import (
    assemble,
    at_site,
    block,
    ends,
    parts_of,
    spec_of_block,
)  # fmt: skip
from interp.dictionaries.forms import with_centring
from interp.dictionaries.spec import DictionarySpec
from interp.errors import DictionaryError
from interp.sites import Site

__all__ = ["CONFIG", "WEIGHTS", "files", "read"]

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
_HOOKPOINT = re.compile(r"(?:.*\.)?(?:layers|h|blocks)[._](?P<layer>\d+)(?:\.(?P<module>\w+))?")
_MODULES = {
    None: "resid_post", "mlp": "mlp_out", "self_attn": "attn_out", "attn": "attn_out",
    "attention": "attn_out", "self_attention": "attn_out",
}  # fmt: skip
_HOOKPOINTS = {"resid_post": "layers.{}", "mlp_out": "layers.{}.mlp", "attn_out": "layers.{}.attn"}


def files(dictionary: Dictionary) -> dict[str, Content]:
    """The folder's files.

    Raises:
        DictionaryError: a dictionary that sparsify's sparse coder cannot compute.
    """
    spec = dictionary.spec
    if spec.activation != "topk" or spec.crossing:
        raise DictionaryError(
            f"sparsify has topk SAEs, transcoders and skip transcoders; this is a {spec.kind} with "
            f"{spec.activation}. Save it with format='saelens'."
        )
    if spec.d_in != spec.d_out or spec.normalise != "none":
        raise DictionaryError(
            "sparsify's sparse coders have one width and no normalisation at run time: given "
            f"{spec.d_in} → {spec.d_out}, normalise={spec.normalise!r}. Save it with format='saelens'."
        )
    if spec.kind == "sae":
        dictionary = with_centring(dictionary, True)
    (part,) = parts_of(dictionary)
    tensors = {"encoder.weight": part["enc"], "encoder.bias": part["b_enc"], "W_dec": part["dec"]}
    tensors["b_dec"] = dictionary.b_dec
    if dictionary.W_skip is not None:
        tensors["W_skip"] = dictionary.W_skip
    config = {
        "activation": "topk",
        "expansion_factor": max(1, spec.d_sae // spec.d_in),
        "normalize_decoder": bool(spec.metadata.get("normalize_decoder", True)),
        "num_latents": spec.d_sae,
        "k": spec.options["k"],
        "multi_topk": False,
        "skip_connection": spec.kind == "skip_transcoder",
        "transcode": spec.kind != "sae",
        "d_in": spec.d_in,
        "hookpoint": _hookpoint(Site.parse(spec.writes[0])),
        "interp": block(dictionary.spec),
    }
    return {WEIGHTS: tensors, CONFIG: json.dumps(config, indent=2)}


def read(folder: Path, *, site: str | None, **options: Any) -> Dictionary:
    """The dictionary of a folder.

    Raises:
        DictionaryError: a damaged or incomplete folder, the groupmax activation, or a folder whose
            name is no hookpoint, without ``site``.
    """
    path = folder / CONFIG
    config = read_json(path)
    spec = spec_of_block(config, path) or _spec(config, folder, site)
    spec = at_site(spec, site)
    latents, d_in = spec.d_sae, spec.d_in
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.weight": (latents, d_in), "encoder.bias": (latents,), "W_dec": (latents, d_in),
        "b_dec": (d_in,),
    }  # fmt: skip
    if config.get("skip_connection"):
        shapes["W_skip"] = (d_in, d_in)
    found = take(read_tensors(folder / WEIGHTS), shapes, folder / WEIGHTS)
    part = {"enc": found["encoder.weight"], "b_enc": found["encoder.bias"], "dec": found["W_dec"]}
    return assemble(spec, [part], found["b_dec"], found.get("W_skip"), **options)


def _spec(config: Mapping[str, Any], folder: Path, site: str | None) -> DictionarySpec:
    path = folder / CONFIG
    if config.get("activation", "topk") != "topk":
        raise DictionaryError(
            f"{str(path)!r} has the activation {config['activation']!r}, which this package does not "
            "compute; supported: topk."
        )
    transcode, skip = bool(config.get("transcode")), bool(config.get("skip_connection"))
    if skip and not transcode:
        raise DictionaryError(
            f"{str(path)!r} is an SAE with a skip connection, which this package does not have; "
            "supported: SAEs, transcoders and skip transcoders."
        )
    kind = "skip_transcoder" if skip else "transcoder" if transcode else "sae"
    reads, writes = ends(site, kind) or _sites(
        str(config.get("hookpoint") or folder.name), kind, path
    )
    try:
        d_in = config["d_in"]
        return DictionarySpec(
            kind=kind,  # type: ignore[arg-type]
            reads=(reads,),
            writes=(writes,),
            d_in=d_in,
            d_out=d_in,
            d_sae=config.get("num_latents") or d_in * config["expansion_factor"],
            activation="topk",
            options={"k": config["k"]},
            centre=kind == "sae",
            metadata=dict(config),
        )
    except KeyError as error:
        raise DictionaryError(f"{str(path)!r} has no {error}: it is damaged.") from error


def _sites(hookpoint: str, kind: str, path: Path) -> tuple[str, str]:
    match = _HOOKPOINT.fullmatch(hookpoint)
    point = _MODULES.get(match["module"]) if match else None
    if hookpoint == "embed_tokens" and kind == "sae":
        return "embed", "embed"
    if match is None or point is None or (kind != "sae" and point != "mlp_out"):
        raise DictionaryError(
            f"the folder of {str(path)!r} names no hookpoint known here ({hookpoint!r}; expected "
            "'layers.3', 'layers.3.mlp' or 'layers.3.self_attn'): say where the dictionary belongs, "
            "load_dictionary(..., site='L3.resid_post'), or site='L3.mlp' for a transcoder."
        )
    write = f"L{match['layer']}.{point}"
    return (write, write) if kind == "sae" else (f"L{match['layer']}.mlp.input", write)


def _hookpoint(site: Site) -> str | None:
    name = _HOOKPOINTS.get(site.point)
    return None if name is None or site.layer is None else name.format(site.layer.text)
