"""Circuits as files: a small JSON for each, which a person can read and a diff can show.

A file lists the circuit's members and no other edge, one a line, in the graph's order; nodes are
their ends and are not listed. Scores of all edges are many numbers and stand beside it, in
``<name>.safetensors``. ``circuits/README.md`` has every field, ``circuits/schema.json`` the same as
JSON Schema. Reading checks everything and says which field is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, Final

from interp.attribution.edges import EdgeScores
from interp.circuits.circuit import Circuit
from interp.errors import CircuitError, InterpError, nearest
from interp.paths import circuits_dir
from interp.results import Provenance, write_atomically

__all__ = ["VERSION", "load", "rendered", "save", "shipped"]

VERSION: Final = 1
_SCHEMA: Final = "schema.json"

#: What each field of a file may be.
_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "name": ((str,), "text"),
    "model": ((str,), "the name that the model is loaded by"),
    "weights_hash": ((str, type(None)), "a sha256 as text, or null"),
    "shape": ((dict,), "an object such as {\"n_layers\": 12, \"n_heads\": 12}"),
    "metric": ((str,), "the name of a metric"),
    "ablation": ((str,), "'resample', 'mean' or 'zero'"),
    "prompts": ((dict,), "an object"),
    "method": ((dict,), "an object"),
    "source": ((str,), "text"),
    "measured": ((dict,), "an object"),
    "roles": ((dict,), "an object of nodes, each with a list of roles"),
    "provenance": ((dict, type(None)), "an object, or null"),
    "scores": ((str, type(None)), "the name of a file beside this one, or null"),
    "edges": ((list,), "a list of edges such as \"m0->logits\""),
}  # fmt: skip
_BLOCKS: Final = ("prompts", "method", "measured", "roles", "provenance")


def shipped() -> tuple[str, ...]:
    """The names of the circuits that come with this package, for :meth:`Circuit.load`."""
    return tuple(
        sorted(path.stem for path in circuits_dir().glob("*.json") if path.name != _SCHEMA)
    )


# -- writing ---------------------------------------------------------------------------------


def rendered(circuit: Circuit, *, scores: str | None = None) -> str:
    """A circuit as the text of its file: the same text for the same circuit.

    Args:
        scores: the name of the file with its scores, beside it.
    """
    given = circuit.provenance
    values = {key: getattr(circuit, key) for key in _TYPES} | {
        "provenance": None if given is None else asdict(given), "scores": scores,
        "roles": {node: list(own) for node, own in circuit.roles.items()},
    }  # fmt: skip
    lines = [_line("kind", "circuit"), _line("version", VERSION)]
    for key, value in values.items():
        if key == "edges":
            lines.append(f' "edges": [{_block(map(_json, circuit.ordered))}]')
        elif key in _BLOCKS:
            lines.append(f" {_json(key)}: {_object(value)}")
        else:
            lines.append(_line(key, value))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _line(key: str, value: Any) -> str:
    return f" {_json(key)}: {_json(value)}"


def _object(value: Any, depth: int = 1) -> str:
    """An object with one entry a line, objects in it too."""
    if not isinstance(value, dict):
        return _json(value)
    return f"{{{_block((f'{_json(key)}: {_object(one, depth + 1)}' for key, one in value.items()), depth)}}}"


def _block(entries: Iterable[str], depth: int = 1) -> str:
    """One entry a line."""
    text = ",\n".join(f"{' ' * (depth + 1)}{entry}" for entry in entries)
    return f"\n{text}\n{' ' * depth}" if text else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def save(circuit: Circuit, path: str | Path) -> Path:
    """Write a circuit to a JSON file, and its scores, if it has any, beside it; each whole or not.

    Raises:
        CircuitError: the file's name does not end in ``.json``.
        ResultError: the place cannot be written.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise CircuitError(
            f"{str(path)!r} does not end in '.json', expected the name of a JSON file."
        )
    beside = path.with_suffix(".safetensors")
    if circuit.scores is not None:
        circuit.scores.save(beside)
    text = rendered(circuit, scores=None if circuit.scores is None else beside.name)
    return write_atomically(path, text.encode())


# -- reading ---------------------------------------------------------------------------------


def load(path: str | Path) -> Circuit:
    """Read a circuit from its file, or a shipped one by its name.

    Raises:
        CircuitError: no such file or shipped circuit; not JSON, not a circuit or of another version;
            a field that is missing, unknown or of the wrong kind; an edge or node that the graph has
            not, or an edge given twice; scores that are missing or of another graph.
    """
    place = _place(path)
    content = _content(place)
    try:
        return _built(place, content)
    except CircuitError as error:
        said = str(error)
        raise error if said.startswith(str(place)) else CircuitError(f"{place}: {said}") from None


def _place(path: str | Path) -> Path:
    place = Path(path)
    if place.is_file():
        return place
    bare = place.name == str(path) and place.suffix != ".json"
    if bare and (circuits_dir() / f"{place.name}.json").is_file() and place.name in shipped():
        return circuits_dir() / f"{place.name}.json"
    raise CircuitError(
        f"there is no circuit file {str(place)!r}, nor a shipped circuit of that name; "
        f"nearest of those shipped: {nearest(place.stem, shipped())}."
    )


def _content(place: Path) -> dict[str, Any]:
    """The file's object, with the fields of a circuit and no other."""
    content = read_json(place)
    if content.get("kind") != "circuit":
        other = (" It looks like a file of EAP-IG or MIB: read it with Circuit.from_mib."
                 if {"cfg", "nodes", "edges"} <= content.keys() else "")  # fmt: skip
        raise CircuitError(
            f"{place}: 'kind' is {content.get('kind')!r}, expected 'circuit'.{other}"
        )
    if content.get("version") != VERSION:
        raise CircuitError(
            f"{place}: 'version' is {content.get('version')!r}, expected {VERSION}: it was written "
            "for another version of interp."
        )
    own = {
        key: value for key, value in content.items() if key not in ("$schema", "kind", "version")
    }
    for key in own.keys() - _TYPES.keys():
        raise CircuitError(f"{place}: no field {key!r} is known; nearest: {nearest(key, _TYPES)}.")
    for key, (types, expected) in _TYPES.items():
        if key not in own:
            raise CircuitError(f"{place}: the field {key!r} is missing, expected {expected}.")
        if not isinstance(own[key], types):
            raise CircuitError(f"{place}: {key!r} is {_short(own[key])}, expected {expected}.")
    return own


def read_json(place: Path) -> dict[str, Any]:
    """A JSON file's object, strictly: no name twice, and no NaN.

    Raises:
        CircuitError: it cannot be read, is not JSON, or is not an object.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                raise CircuitError(f"{place}: {name!r} stands {count} times in one object.")
        return dict(pairs)

    try:
        content = json.loads(place.read_bytes(), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise CircuitError(
            f"{place}, line {error.lineno}, is not JSON: {error.msg} at column {error.colno}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CircuitError(
            f"{place} cannot be read ({error}); expected a circuit's JSON."
        ) from None
    if not isinstance(content, dict):
        raise CircuitError(f"{place} holds {_short(content)}, expected an object.")
    return content


def _built(place: Path, own: dict[str, Any]) -> Circuit:
    edges, provenance, scores = own.pop("edges"), own.pop("provenance"), own.pop("scores")
    circuit = Circuit(
        **own, edges=edges, provenance=_provenance(place, provenance), scores=_scores(place, scores)
    )
    if len(circuit) < len(edges):
        names = Counter(circuit.graph.edges[circuit.graph.number(edge)] for edge in edges)
        twice = names.most_common(1)[0][0]
        raise CircuitError(f"{place}: 'edges' has {twice!r} twice, expected each edge once.")
    return circuit


def _provenance(place: Path, given: dict[str, Any] | None) -> Provenance | None:
    if given is None:
        return None
    expected = {one.name for one in fields_of(Provenance)}
    if given.keys() != expected:
        raise CircuitError(
            f"{place}: 'provenance' has {sorted(given)}, expected {sorted(expected)}."
        )
    return Provenance(**given)


def _scores(place: Path, name: str | None) -> Any:
    """The scores beside the file."""
    if name is None:
        return None

    if Path(name).name != name:
        raise CircuitError(f"{place}: 'scores' is {name!r}, expected the name of a file beside it.")
    try:
        return EdgeScores.load(place.parent / name)
    except InterpError as error:
        raise CircuitError(f"{place}: its 'scores' cannot be read: {error}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
