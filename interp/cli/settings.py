"""Options of a training run from a file, from flags, and from ``--set name=value``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.errors import TrainingError

__all__ = ["settled"]

#: What the command gives to ``interp.train`` itself.
_OWN = ("source", "config", "progress")


def settled(
    file: Path | None, flags: Mapping[str, Any], given: Sequence[str], **fixed: Any
) -> dict[str, Any]:
    """The options asked for: flags go before ``--set``, which goes before the file.

    Args:
        file: TOML or YAML, option names and values.
        flags: None where a flag was not given; a list of one stands for its value.
        given: ``name=value``, values read as TOML.
        fixed: what the command itself says; the file may say the same, and nothing else.

    Raises:
        TrainingError: a file that cannot be read or says otherwise, or what is no option.
    """
    options = {} if file is None else _read(file)
    for name, value in fixed.items():
        if name in options and options[name] != value:
            raise TrainingError(
                f"{str(file)!r} says {name} = {options[name]!r}, and the command {value!r}."
            )
    options = {**fixed, **options}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise TrainingError(f"--set {text!r}; expected name=value, such as auxk=0.")
        options[name.strip()] = _value(value.strip())
    for name, value in flags.items():
        if value is not None and value != []:
            options[name] = value[0] if isinstance(value, list) and len(value) == 1 else value
    for name in options:
        if not isinstance(name, str) or name in _OWN:
            raise TrainingError(
                f"{name!r} is no option: expected those of interp train, or of interp.TrainConfig."
            )
    return options


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{str(file)!r} cannot be read: {error}.") from error
    if file.suffix in (".yaml", ".yml"):
        import yaml

        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise TrainingError(f"{str(file)!r} is no YAML: {error}.") from error
    elif file.suffix == ".toml":
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise TrainingError(f"{str(file)!r} is no TOML: {error}.") from error
    else:
        raise TrainingError(f"{str(file)!r}; expected a .toml or .yaml file.")
    if not isinstance(found, dict):
        raise TrainingError(f"{str(file)!r} holds no options; expected names and values.")
    return found


def _value(text: str) -> Any:
    """A value as TOML reads it, or as Python says it; what is neither is text."""
    said = {"null": None, "none": None, "true": True, "false": False}
    if text.lower() in said:
        return said[text.lower()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
