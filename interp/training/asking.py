"""From a call's options to configurations: one, or one for each combination of listed values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from interp.errors import TrainingError
from interp.training.config import SHARED, TrainConfig

__all__ = ["configurations", "names_of"]

_LISTS = ("groups", "betas")  # options whose one value is a list
_IN_NAME = ("site", "kind", "activation", "d_sae", "k", "sparsity", "null")


def configurations(
    config: TrainConfig | Sequence[TrainConfig] | None, options: Mapping[str, Any]
) -> list[TrainConfig]:
    """The configurations of one pass over the data.

    Args:
        config: given whole; then there are no options beside.
        options: of :class:`TrainConfig`; a list stands for several dictionaries.

    Raises:
        TrainingError: an option that does not exist or fit, both ways at once, or dictionaries that
            cannot share a pass.
    """
    if config is not None:
        if options:
            raise TrainingError(
                f"options {', '.join(options)} beside config=: change the configuration with "
                "config.with_options(...)."
            )
        found = [config] if isinstance(config, TrainConfig) else list(config)
        for one in found:
            if not isinstance(one, TrainConfig):
                raise TrainingError(f"config={one!r}; expected a TrainConfig, or several.")
    else:
        found = [TrainConfig.from_options(one) for one in _combinations(options)]
    if not found:
        raise TrainingError("nothing to train: an empty list of configurations.")
    for name in SHARED:
        values = list(dict.fromkeys(getattr(one, name) for one in found))
        if len(values) > 1:
            raise TrainingError(
                f"dictionaries of one pass share {name}, and these have {values}: train them apart."
            )
    return found


def names_of(configs: Sequence[TrainConfig]) -> list[str]:
    """A name for each, which says in what they differ.

    Raises:
        TrainingError: two are the same.
    """
    said = [
        {f.name: _text(getattr(c, f.name)) for f in fields(c) if f.name not in c.defaults}
        for c in configs
    ]
    differing = [
        field.name for field in fields(TrainConfig)
        if field.name not in _IN_NAME and len({one.get(field.name) for one in said}) > 1
    ]  # fmt: skip
    names = [
        "-".join([c.name, *(f"{n}{one[n]}" for n in differing if n in one)])
        for c, one in zip(configs, said, strict=True)
    ]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TrainingError(f"the same dictionary is asked for twice: {twice}.")
    return names


def _text(value: Any) -> str:
    return "_".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _combinations(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    many = {
        name: list(value) for name, value in options.items()
        if isinstance(value, list | tuple) and name not in _LISTS
    }  # fmt: skip
    single = {name: value for name, value in options.items() if name not in many}
    return [
        {**single, **dict(zip(many, values, strict=True))}
        for values in itertools.product(*many.values())
    ]
