"""Dictionaries from the hub: SAELens's releases by name, and Hugging Face repositories.

``"release/id"`` is an entry of SAELens's registry, which knows the formats of many publishers; SAELens
itself loads it. Anything else with a slash is a repository, ``"owner/name"`` or
``"owner/name/subfolder"``, whose files are recognised as a folder's are. The registry is read as text:
SAELens is imported only to load from it.
"""

from __future__ import annotations

import importlib.util
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.formats import saelens
from interp.errors import DictionaryError, nearest

__all__ = ["fetch_file", "fetch_folder", "from_registry", "releases"]

_OFFLINE = (
    "It must come from the Hugging Face hub, or from its cache on this machine: check the name and the "
    "network (HF_HUB_OFFLINE), or download the folder elsewhere and give its path."
)


@cache
def releases() -> tuple[str, ...]:
    """Names of SAELens's releases; empty if it is not installed."""
    return tuple(re.findall(r"^([^\s#].*):\s*$", _registry(), re.M))


def ids(release: str) -> tuple[str, ...]:
    """Names of the dictionaries of a release."""
    match = re.search(rf"^{re.escape(release)}:\s*\n((?:[ \-].*\n?)*)", _registry(), re.M)
    found = re.findall(r"^\s*-?\s*id:\s*(\S+)\s*$", match[1], re.M) if match else []
    return tuple(one.strip("'\"") for one in found)


def from_registry(release: str, name: str, *, site: str | None, **options: Any) -> Dictionary:
    """A dictionary of a SAELens release.

    Raises:
        DictionaryError: the release has none of that name, or it cannot be fetched.
    """
    known = ids(release)
    if name not in known:
        raise DictionaryError(
            f"the release {release!r} has no {name!r}; nearest of {len(known)}: {nearest(name, known)}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own imports
        from sae_lens import SAE

    try:
        theirs: Any = SAE.from_pretrained(release, name, device="cpu")
    except Exception as error:  # each publisher's loader has errors of its own
        raise DictionaryError(
            f"SAELens could not load {release + '/' + name!r} ({_line(error)}). {_OFFLINE}"
        ) from error
    config, tensors = theirs.cfg.to_dict(), theirs.state_dict()
    return saelens.from_config(config, tensors, Path(release) / name, site=site, **options)


def fetch_folder(source: str, *, patterns: tuple[str, ...]) -> Path:
    """The local copy of a repository, or of a subfolder of one: the files that match.

    Raises:
        DictionaryError: there is none, or it cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    owner, name, *inner = source.rstrip("/").split("/")
    prefix = "".join(f"{part}/" for part in inner)
    try:
        root = snapshot_download(
            f"{owner}/{name}", allow_patterns=[f"{prefix}{pattern}" for pattern in patterns]
        )
    except Exception as error:  # the hub's client raises errors of several libraries
        raise DictionaryError(
            f"there is no folder {source!r}, SAELens has no release {owner!r} (nearest: "
            f"{nearest(owner, releases())}), and the repository {owner}/{name} could not be fetched "
            f"({_line(error)}). {_OFFLINE}"
        ) from error
    return Path(root, *inner)


def fetch_file(uri: str) -> Path:
    """The local copy of ``hf://owner/name/file?revision=...``.

    Raises:
        DictionaryError: it cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    parsed = urlsplit(uri)
    name, _, file = parsed.path.lstrip("/").partition("/")
    revision = parse_qs(parsed.query).get("revision", [None])[0]
    try:
        return Path(hf_hub_download(f"{parsed.netloc}/{name}", file, revision=revision))
    except Exception as error:  # as above
        raise DictionaryError(
            f"{uri!r} could not be fetched ({_line(error)}). {_OFFLINE}"
        ) from error


@cache
def _registry() -> str:
    """SAELens's list of releases, without importing SAELens."""
    found = importlib.util.find_spec("sae_lens")
    if found is None or found.origin is None:
        return ""
    path = Path(found.origin).parent / "pretrained_saes.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
