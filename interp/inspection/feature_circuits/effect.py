"""``without_paths``: do the paths that weights and one run name matter when they are cut?

Paths are found with norms, attention and gates held. Here nothing is: the features on the paths are set to zero in
a run of the model with its transcoders and their error nodes in place (equal to the model's own until something is
edited), everything behind them is computed anew, and the feature at the paths' end is read again. Beside it: as
many other features that are active at the same layers and positions. (Zero ablation as in Marks et al. 2024,
arXiv:2403.19647.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.errors import DictionaryError
from interp.inspection.feature_circuits.node import Node
from interp.inspection.feature_circuits.paths_result import FeaturePaths
from interp.inspection.feature_circuits.standing import Transcoders, by_layer, one_prompt
from interp.models.model import Inputs, Model
from interp.runs.edits import Zero

__all__ = ["PathsEffect", "without_paths"]


@dataclass(frozen=True, eq=False)
class PathsEffect:
    """What is left of a feature without the features on its paths.

    Attributes:
        feature: which.
        zeroed: the features that were set to zero.
        whole: its activation with nothing edited.
        without: its activation without them.
        random: the same without as many others that are active at the same places, for each draw.
    """

    feature: str
    zeroed: tuple[str, ...]
    whole: float
    without: float
    random: Float[Tensor, " draw"]

    @property
    def lost(self) -> float:
        """Share of the activation that goes with them: 0 = none, 1 = all; negative where it grows."""
        return 1 - self.without / self.whole

    @property
    def lost_at_random(self) -> Float[Tensor, " draw"]:
        """The same for each draw of others."""
        return 1 - self.random / self.whole


@torch.no_grad()
def without_paths(
    transcoders: Transcoders, model: Model, prompt: Inputs, paths: FeaturePaths, *, draws: int = 4, seed: int = 0
) -> PathsEffect:  # fmt: skip
    """Set the features on a feature's paths to zero, and see what is left of it.

    >>> without_paths(tcs, model, prompt, feature_paths(tcs, model, prompt, name)).lost     # doctest: +SKIP

    Args:
        transcoders, model, prompt: as the paths were found with.
        paths: of :func:`feature_paths`.
        draws: of other features, by ``seed``.

    Raises:
        DictionaryError: no feature is on the paths, or the feature is not active on this prompt.
    """
    standing, batch = by_layer(model, transcoders), one_prompt(model, prompt)
    zeroed = paths.features
    if not zeroed:
        raise DictionaryError(
            f"no feature lies on the paths to {paths.feature}: give more steps, or transcoders of earlier layers."
        )
    generator = torch.Generator().manual_seed(seed)
    with model.replaced(list(standing.values()), error=True):

        def left(names: Sequence[str]) -> float:
            edit = {name: Zero() for name in names}
            return float(model.run(batch, save=paths.feature, edit=edit).cache[paths.feature])

        whole = left(())
        if whole <= 0:
            raise DictionaryError(f"{paths.feature} is not active on this prompt: nothing to lose.")
        others = _active(model, batch, standing, zeroed)
        random = [left(_drawn(others, zeroed, generator)) for _ in range(draws)]
        return PathsEffect(paths.feature, zeroed, whole, left(zeroed), torch.tensor(random))


Place = tuple[int, int]


def _place(name: str) -> Place:
    layer, _, position = Node.parse(name).numbers
    return layer, position


def _active(
    model: Model, batch: object, standing: dict[int, Dictionary], zeroed: Sequence[str]
) -> dict[Place, list[str]]:
    """At each place of a zeroed feature the others that are active there."""
    cache = model.run(batch, save=[f"L{layer}.mlp" for layer in standing]).cache  # type: ignore[arg-type]
    found: dict[Place, list[str]] = {}
    for layer, position in sorted(set(map(_place, zeroed))):
        active = cache[f"L{layer}.mlp"][0, position].nonzero()[:, 0].tolist()
        names = [Node("feature", position, layer, unit).name for unit in active]
        found[layer, position] = [name for name in names if name not in zeroed]
    return found


def _drawn(
    others: dict[Place, list[str]], zeroed: Sequence[str], generator: torch.Generator
) -> list[str]:
    """As many of the others, at each place, as there are zeroed ones (all, where there are fewer)."""
    names: list[str] = []
    for place, count in Counter(map(_place, zeroed)).items():
        order = torch.randperm(len(others[place]), generator=generator)[:count]
        names += [others[place][i] for i in order.tolist()]
    return names
