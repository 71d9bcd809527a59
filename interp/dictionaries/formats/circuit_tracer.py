"""circuit-tracer's folders: transcoder sets and cross-layer transcoders, as on the hub.

    config.yaml                 model_kind, model_name, feature_input_hook, feature_output_hook, scan
    layer_{i}.safetensors       a set: W_enc [d_sae, d], W_dec [d_sae, d], b_enc, b_dec, and W_skip [d, d]
                                and activation_function.threshold [d_sae] where there are such
    W_enc_{i}.safetensors       a cross-layer transcoder: W_enc_i [d_sae, d], b_enc_i, b_dec_i [d] and
                                threshold_i
    W_dec_{i}.safetensors       W_dec_i [d_sae, layers from i on, d]

A set has a transcoder for each layer from 0 on. Its activations are ReLU, or JumpReLU where there are
thresholds: its JumpReLU is ``x · 1[x > θ]`` without our ``max(x, 0)``, which is the same for θ ≥ 0;
thresholds below 0 are written as 0 and refused when read. Its models are loaded without folded norms,
so ``mlp.hook_in`` is what the MLP reads, and ``ln2.hook_normalized`` is before the norm's γ and β.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.formats.folder import Content, read_tensors, read_yaml, take
from interp.dictionaries.formats.parts import (
    assemble,
    block,
    hook_site,
    parts_of,
    spec_of_block,
)  # fmt: skip
from interp.dictionaries.forms import as_jumprelu
from interp.dictionaries.spec import DictionarySpec
from interp.errors import DictionaryError
from interp.sites import Site

__all__ = ["CONFIG", "files", "layer_of", "members", "read_layer"]

CONFIG = "config.yaml"
_THRESHOLD = "activation_function.threshold"


# -- writing -------------------------------------------------------------------------------


def files(dictionaries: Sequence[Dictionary]) -> dict[str, Content]:
    """The folder's files, of one transcoder for each layer or of one cross-layer transcoder.

    Raises:
        DictionaryError: they are no such set, or circuit-tracer cannot compute them.
    """
    import yaml

    crossing = dictionaries[0].spec.crossing if dictionaries else False
    if crossing and len(dictionaries) > 1:
        raise DictionaryError(
            "a cross-layer transcoder is a set of its own: save each in a folder."
        )
    for dictionary in dictionaries:
        _check(dictionary.spec)
    plain = [_plain(dictionary) for dictionary in dictionaries]
    read, write = (_hook(sites) for sites in _by_layer(plain))
    first = dictionaries[0].spec
    config = {
        "model_name": first.model or "unknown",
        "model_kind": "cross_layer_transcoder" if crossing else "transcoder_set",
        "feature_input_hook": read,
        "feature_output_hook": write,
        "scan": f"{first.model or 'unknown'}-{first.kind}",
        "interp": [
            block(one.spec) for one in sorted(dictionaries, key=lambda one: _layers(one.spec))
        ],
    }
    tensors = _cross_layer(plain[0]) if crossing else dict(_layer_file(one) for one in plain)
    return {**tensors, CONFIG: yaml.safe_dump(config, sort_keys=False)}


def _check(spec: DictionarySpec) -> None:
    if spec.kind == "sae" or spec.activation not in ("relu", "jumprelu", "batchtopk"):
        raise DictionaryError(
            f"circuit-tracer has transcoders with ReLU or JumpReLU; this is a {spec.kind} with "
            f"{spec.activation} ({spec.features[0]}). Save it with format='saelens'."
        )
    if spec.d_in != spec.d_out:
        raise DictionaryError(
            f"circuit-tracer's transcoders have one width; given {spec.d_in} → {spec.d_out}."
        )


def _plain(dictionary: Dictionary) -> Dictionary:
    return as_jumprelu(dictionary) if dictionary.spec.activation == "batchtopk" else dictionary


def _by_layer(dictionaries: Sequence[Dictionary]) -> tuple[list[Site], list[Site]]:
    """The sites that are read and written, layer by layer from 0 on."""
    specs = sorted((one.spec for one in dictionaries), key=_layers)
    layers = [layer for spec in specs for layer in _layers(spec)]
    if not layers or layers != list(range(len(layers))):
        raise DictionaryError(
            f"transcoders of layers {layers}; expected one for each layer from 0 on, all layers of the "
            "model: circuit-tracer replaces every MLP."
        )
    if len({(spec.d_in, spec.d_sae, spec.kind) for spec in specs}) > 1:
        raise DictionaryError(
            "the transcoders of a set are of one kind and have one width and d_sae; given "
            f"{sorted({(spec.kind, spec.d_in, spec.d_sae) for spec in specs})}."
        )
    reads = [Site.parse(site) for spec in specs for site in spec.reads]
    return reads, [Site.parse(site) for spec in specs for site in spec.writes]


def _layers(spec: DictionarySpec) -> list[int]:
    found = [Site.parse(site).layer for site in spec.writes]
    return [int(layer.text) if layer is not None and layer.single else -1 for layer in found]


def _hook(sites: Sequence[Site]) -> str:
    """One hook for all layers, without the block."""
    if len({site.point for site in sites}) > 1:
        raise DictionaryError(
            f"the transcoders of a set read and write one point; given {', '.join(map(str, sites))}."
        )
    return sites[0].hook_name.split(".", 2)[2]


def _layer_file(dictionary: Dictionary) -> tuple[str, dict[str, Tensor]]:
    (part,) = parts_of(dictionary)
    tensors = {"W_enc": part["enc"], "W_dec": part["dec"], "b_enc": part["b_enc"]}
    tensors["b_dec"] = dictionary.b_dec
    if dictionary.W_skip is not None:
        tensors["W_skip"] = dictionary.W_skip
    if "threshold" in part:
        tensors[_THRESHOLD] = part["threshold"].clamp(min=0)
    return f"layer_{_layers(dictionary.spec)[0]}.safetensors", tensors


def _cross_layer(dictionary: Dictionary) -> dict[str, Content]:
    out: dict[str, Content] = {}
    biases = dictionary.b_dec.unflatten(-1, (-1, dictionary.d_out))
    for i, part in enumerate(parts_of(dictionary)):
        read = {f"W_enc_{i}": part["enc"], f"b_enc_{i}": part["b_enc"], f"b_dec_{i}": biases[i]}
        if "threshold" in part:
            read[f"threshold_{i}"] = part["threshold"].clamp(min=0)
        out[f"W_enc_{i}.safetensors"] = read
        blocks = part["dec"].unflatten(-1, (-1, dictionary.d_out))
        out[f"W_dec_{i}.safetensors"] = {f"W_dec_{i}": blocks}
    return out


# -- reading -------------------------------------------------------------------------------


def members(folder: Path) -> dict[str, Callable[..., Dictionary]]:
    """What a folder holds: feature site → a function that loads it. Nothing is read but the config.

    Raises:
        DictionaryError: a damaged config, one of another kind, or missing layers.
    """
    path = folder / CONFIG
    config = read_yaml(path)
    kind = config.get("model_kind")
    if kind == "cross_layer_transcoder":
        n = len(list(folder.glob("W_enc_*.safetensors")))
        if n == 0:
            raise DictionaryError(f"{str(folder)!r} has no W_enc_0.safetensors: it is incomplete.")
        sites = [_ends(config, i, path) for i in range(n)]
        return {_feature(*sites[0]): partial(_read_cross_layer, folder, config, sites)}
    if kind != "transcoder_set":
        raise DictionaryError(
            f"{str(path)!r} has model_kind {kind!r}; expected 'transcoder_set' or "
            "'cross_layer_transcoder'."
        )
    paths = _paths(config, folder)
    out: dict[str, Callable[..., Dictionary]] = {}
    for layer, file in sorted(paths.items()):
        pair = _ends(config, layer, path)
        out[_feature(*pair)] = partial(read_layer, file, pair, config=config, layer=layer)
    return out


def read_layer(
    source: Path | str,
    pair: tuple[str, str],
    *,
    config: Mapping[str, Any] | None = None,
    layer: int = 0,
    **options: Any,
) -> Dictionary:
    """One transcoder of a set, from its file.

    Raises:
        DictionaryError: a damaged file, or thresholds below 0.
    """
    path, config = _local(source), config or {}
    found = read_tensors(path)
    if missing := {"W_enc", "b_enc", "b_dec"} - found.keys():
        raise DictionaryError(f"{str(path)!r} lacks {', '.join(sorted(missing))}: it is damaged.")
    d_sae, d_in = (*found["W_enc"].shape, 0)[:2]
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (d_sae, d_in), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,),
    }  # fmt: skip
    shapes |= {"W_skip": (d_in, d_in)} if "W_skip" in found else {}
    shapes |= {_THRESHOLD: (d_sae,)} if _THRESHOLD in found else {}
    found = take(found, shapes, path)
    spec = _own(config, layer, path) or DictionarySpec(
        kind="skip_transcoder" if "W_skip" in found else "transcoder",
        reads=pair[:1],
        writes=pair[1:],
        d_in=d_in,
        d_out=d_in,
        d_sae=d_sae,
        activation="jumprelu" if _THRESHOLD in found else "relu",
        model=config.get("model_name"),
        metadata={
            key: value for key, value in config.items() if key not in ("interp", "transcoders")
        },
    )
    part = {"enc": found["W_enc"], "b_enc": found["b_enc"], "dec": found["W_dec"]}
    part |= _thresholds(found, _THRESHOLD, path)
    return assemble(spec, [part], found["b_dec"], found.get("W_skip"), **options)


def _read_cross_layer(
    folder: Path, config: Mapping[str, Any], sites: Sequence[tuple[str, str]], **options: Any
) -> Dictionary:
    n, parts, biases = len(sites), [], []
    first = read_tensors(folder / "W_enc_0.safetensors").get("W_enc_0")
    d_sae, d = first.shape if first is not None and first.ndim == 2 else (0, 0)
    for i in range(n):
        path = folder / f"W_enc_{i}.safetensors"
        found = read_tensors(path)
        shapes: dict[str, tuple[int, ...]] = {
            f"W_enc_{i}": (d_sae, d), f"b_enc_{i}": (d_sae,), f"b_dec_{i}": (d,),
        }  # fmt: skip
        shapes |= {f"threshold_{i}": (d_sae,)} if f"threshold_{i}" in found else {}
        found = take(found, shapes, path)
        behind = folder / f"W_dec_{i}.safetensors"
        dec = take(read_tensors(behind), {f"W_dec_{i}": (d_sae, n - i, d)}, behind)
        biases.append(found[f"b_dec_{i}"])
        part = {"enc": found[f"W_enc_{i}"], "b_enc": found[f"b_enc_{i}"]}
        part["dec"] = dec[f"W_dec_{i}"].flatten(-2)
        parts.append(part | _thresholds(found, f"threshold_{i}", path))
    spec = _own(config, 0, folder / CONFIG) or DictionarySpec(
        kind="cross_layer_transcoder",
        reads=tuple(read for read, _ in sites),
        writes=tuple(write for _, write in sites),
        d_in=d,
        d_out=d,
        d_sae=d_sae,
        activation="jumprelu" if "threshold" in parts[0] else "relu",
        model=config.get("model_name"),
        metadata={key: value for key, value in config.items() if key != "interp"},
    )
    return assemble(spec, parts, torch.cat(biases), **options)


def _thresholds(found: Mapping[str, Tensor], name: str, path: Path) -> dict[str, Tensor]:
    if name not in found:
        return {}
    if bool((found[name] < 0).any()):
        raise DictionaryError(
            f"{str(path)!r} has thresholds below 0, where circuit-tracer's feature activations are "
            "negative: they have no place here."
        )
    return {"threshold": found[name]}


def layer_of(path: Path) -> int | None:
    """The layer that a file of a set belongs to, by its name."""
    stem = path.name.removesuffix(".safetensors")
    return int(stem[6:]) if stem.startswith("layer_") and stem[6:].isdecimal() else None


def _paths(config: Mapping[str, Any], folder: Path) -> dict[int, Path | str]:
    listed = config.get("transcoders")
    if listed is not None:
        return {i: one if str(one).startswith("hf://") else folder / one
                for i, one in enumerate(listed)}  # fmt: skip
    found: dict[int, Path | str] = {}
    for file in folder.glob("layer_*.safetensors"):
        if (layer := layer_of(file)) is not None:
            found[layer] = file
    if sorted(found) != list(range(len(found))) or not found:
        raise DictionaryError(
            f"{str(folder)!r} has files for the layers {sorted(found)}; expected layer_0.safetensors and "
            "all that follow: the set is incomplete."
        )
    return found


def _local(source: Path | str) -> Path:
    """A file here, from its path or from ``hf://owner/name/file?revision=...``."""
    text = str(source)
    if not text.startswith("hf://"):
        path = Path(source)
    else:
        from interp.dictionaries.formats.hub import fetch_file

        path = fetch_file(text)
    if path.suffix == ".npz":
        raise DictionaryError(
            f"{text!r} is one of Gemma Scope's npz files: load it by its SAELens release, "
            "load_dictionary('gemma-scope-2b-pt-transcoders/...')."
        )
    return path


def _ends(config: Mapping[str, Any], layer: int, path: Path) -> tuple[str, str]:
    hint = f"load its files one by one, load_dictionary('.../layer_{layer}.safetensors', site='L{layer}.mlp')"
    found = []
    for name in ("feature_input_hook", "feature_output_hook"):
        hook = f"blocks.{layer}.{config[name]}" if config.get(name) else None
        found.append(hook_site(hook, name, path, hint=hint))
    return found[0], found[1]


def _feature(read: str, write: str) -> str:
    """The key of a member: the name of its features' site."""
    probe = DictionarySpec("transcoder", (read,), (write,), 1, 1, 1, "relu")
    return probe.features[0]


def _own(config: Mapping[str, Any], layer: int, path: Path) -> DictionarySpec | None:
    """Our own spec of a member, where we wrote the config."""
    blocks = config.get("interp")
    if not isinstance(blocks, list) or layer >= len(blocks):
        return None
    return spec_of_block({"interp": blocks[layer]}, path)
