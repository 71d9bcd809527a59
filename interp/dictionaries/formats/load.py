"""``load_dictionary``: a dictionary from a folder of any known format, or from the hub.

A folder is recognised by what is in it:

=========================================  =================================================
``cfg.json``, ``sae_weights.safetensors``  SAELens (:mod:`.saelens`)
``cfg.json``, ``sae.safetensors``          sparsify (:mod:`.sparsify`)
``config.yaml`` with a ``model_kind``      circuit-tracer, one or many (:mod:`.circuit_tracer`)
folders of those                           many
=========================================  =================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.formats import circuit_tracer, hub, saelens, sparsify
from interp.dictionaries.formats.folder import FILES
from interp.dictionaries.formats.parts import ends
from interp.errors import DictionaryError, nearest
from interp.sites import Site

__all__ = ["load_dictionaries", "load_dictionary"]

_Load = Callable[..., Dictionary]
_SMALL = ("*.json", "*.yaml")


def load_dictionary(
    source: str | Path,
    *,
    site: str | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Dictionary:
    """An SAE or transcoder from a folder, a file in it, SAELens's registry, or the hub.

    >>> interp.load_dictionary("out/transcoder-L0.mlp")                       # doctest: +SKIP
    >>> interp.load_dictionary("gpt2-small-res-jb/blocks.8.hook_resid_pre")   # doctest: +SKIP
    >>> interp.load_dictionary("EleutherAI/sae-pythia-70m-32k/layers.3")      # doctest: +SKIP

    Args:
        source: a folder of any known format, or a file in one; or ``"release/id"`` of SAELens's
            registry; or a Hugging Face repository, ``"owner/name"`` or ``"owner/name/subfolder"``.
        site: where it belongs, if the folder does not say it or says it wrongly:
            ``"L3.resid_post"`` for an SAE, ``"L2.mlp"`` for a transcoder (``mlp.input → mlp_out``), or
            ``"L2.ln2.normalized -> L2.mlp_out"``. Of a set, the transcoder to load.
        device: where to; None for the CPU.
        dtype: None keeps that of the file.

    Raises:
        DictionaryError: nothing there, an unknown format, a damaged or incomplete folder, an
            architecture or hook that is not known here, or several dictionaries and no ``site``.
        SiteError: ``site`` is none.
    """
    options = {"device": device, "dtype": dtype}
    found = _located(source, site)
    if isinstance(found, partial):  # of a release
        return found(site=site, **options)
    if not found.is_dir():
        return _from_file(found, site, options)
    held = _held(found)
    if len(held) == 1:
        (load,) = held.values()
        return load(site=site, **options)
    if site is None:
        raise DictionaryError(
            f"{str(source)!r} holds {len(held)} dictionaries ({', '.join(held)}): say which, site="
            f"{next(iter(held))!r}, or load them all with load_dictionaries."
        )
    if site not in held:
        raise DictionaryError(
            f"{str(source)!r} holds no dictionary for {site!r}; nearest: {nearest(site, held)}."
        )
    return held[site](site=None, **options)


def load_dictionaries(
    source: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> dict[str, Dictionary]:
    """All dictionaries of a transcoder set, or of a folder of folders: feature site → dictionary.

    >>> with model.replaced(interp.load_dictionaries("out/set")):                # doctest: +SKIP
    ...     model.run("The capital of France is")

    Raises:
        DictionaryError: as :func:`load_dictionary`; or two of them for one site.
    """
    found = _located(source, None)
    if isinstance(found, partial) or not found.is_dir():
        one = load_dictionary(source, device=device, dtype=dtype)
        return {one.spec.features[0]: one}
    out: dict[str, Dictionary] = {}
    for name, load in _held(found).items():
        made = load(site=None, device=device, dtype=dtype)
        key = made.spec.features[0]
        if key in out:
            raise DictionaryError(
                f"{str(source)!r} holds two dictionaries for {key} (one of them {name!r}): load each "
                "with load_dictionary."
            )
        out[key] = made
    return out


# -- finding -------------------------------------------------------------------------------


def _located(source: str | Path, site: str | None) -> Path | partial[Dictionary]:
    """What is meant: a path here (fetched if it must be), or an entry of SAELens's registry."""
    if not isinstance(source, str | Path) or not str(source):
        raise DictionaryError(
            f"source={source!r}; expected a folder, 'release/id' from SAELens's registry, or "
            "'owner/name' on the Hugging Face hub."
        )
    path = Path(source).expanduser()
    if path.exists():
        return path
    text = str(source)
    release, _, name = text.partition("/")
    if isinstance(source, Path) or path.is_absolute() or text.startswith((".", "~")) or not name:
        known = (*hub.releases(),)
        hint = (
            f"its dictionaries are {release}/... such as {hub.ids(release)[0]!r}"
            if text in known
            else f"nearest releases of SAELens: {nearest(text, known)}"
        )
        raise DictionaryError(
            f"there is no folder {text!r}; expected one, or 'release/id' from SAELens's registry, or "
            f"'owner/name' on the Hugging Face hub ({hint})."
        )
    if release in hub.releases():
        return partial(hub.from_registry, release, name)
    return _fetched(text, site)


def _fetched(source: str, site: str | None) -> Path:
    """A repository's files: configs first, then the weights that they and ``site`` ask for."""
    folder = hub.fetch_folder(source, patterns=_SMALL)
    patterns: tuple[str, ...] = ("*.safetensors",)
    layer = Site.parse(site).layer if site is not None and "->" not in site else None
    if layer is not None and layer.single and (folder / circuit_tracer.CONFIG).is_file():
        text = (folder / circuit_tracer.CONFIG).read_text(encoding="utf-8")
        if "cross_layer" not in text:
            patterns = (f"layer_{layer.text}.safetensors",)
    return hub.fetch_folder(source, patterns=(*_SMALL, *patterns))


def _held(folder: Path) -> dict[str, _Load]:
    """The dictionaries of a folder: name → a function of ``site`` and options that loads one.

    Raises:
        DictionaryError: there are none, or half of one.
    """
    inside = _members(folder)
    if inside:
        return inside
    below = [one for one in sorted(folder.iterdir()) if one.is_dir() and _members(one)]
    if not below:
        names = sorted(one.name for one in folder.iterdir())
        raise DictionaryError(
            f"{str(folder)!r} holds no dictionary known here ({', '.join(names[:6]) or 'it is empty'}); "
            f"expected {saelens.CONFIG} with {saelens.WEIGHTS} (SAELens) or {sparsify.WEIGHTS} "
            f"(sparsify), or {circuit_tracer.CONFIG} with a model_kind (circuit-tracer)."
        )
    return {one.name: _of_folder(one) for one in below}


def _of_folder(folder: Path) -> _Load:
    def load(*, site: str | None, **options: Any) -> Dictionary:
        return load_dictionary(folder, site=site, **options)

    return load


def _members(folder: Path) -> dict[str, _Load]:
    """The dictionaries whose files stand in the folder itself."""
    if (folder / saelens.CONFIG).is_file():
        for name, read in ((saelens.WEIGHTS, saelens.read), (sparsify.WEIGHTS, sparsify.read)):
            if (folder / name).is_file():
                return {folder.name: partial(read, folder)}
        raise DictionaryError(
            f"{str(folder)!r} holds {saelens.CONFIG} but neither {saelens.WEIGHTS} (SAELens) nor "
            f"{sparsify.WEIGHTS} (sparsify): it is incomplete."
        )
    for name in (saelens.WEIGHTS, sparsify.WEIGHTS):
        if (folder / name).is_file():
            raise DictionaryError(
                f"{str(folder)!r} holds {name} but no {saelens.CONFIG}: it is incomplete."
            )
    if not (folder / circuit_tracer.CONFIG).is_file():
        return {}
    many = circuit_tracer.members(folder)
    return {name: _of_set(load, single=len(many) == 1) for name, load in many.items()}


def _of_set(load: _Load, *, single: bool) -> _Load:
    def chosen(*, site: str | None, **options: Any) -> Dictionary:
        made = load(**options)
        if single and site not in (None, *made.spec.features):
            raise DictionaryError(
                f"site={site!r}; the set holds {', '.join(made.spec.features)} and no other."
            )
        return made

    return chosen


def _from_file(path: Path, site: str | None, options: dict[str, Any]) -> Dictionary:
    """The dictionary that a file belongs to."""
    layer = circuit_tracer.layer_of(path)
    if layer is None:
        if not (any(path.match(one) for one in FILES) and _members(path.parent)):
            raise DictionaryError(
                f"{str(path)!r} is no file of a dictionary; expected a folder, or one of "
                f"{', '.join(FILES)}."
            )
        return load_dictionary(path.parent, site=site, **options)
    pair = ends(site, "transcoder")
    if pair is not None:
        return circuit_tracer.read_layer(path, pair, **options)
    for one in _members(path.parent).values() if layer is not None else ():
        made = one(site=None, **options)
        if str(Site.parse(made.spec.writes[0]).layer.text) == str(layer):  # type: ignore[union-attr]
            return made
    raise DictionaryError(
        f"{str(path)!r} is a layer of a transcoder set without its {circuit_tracer.CONFIG}: say where it "
        f"belongs, site='L{layer}.mlp'."
    )
