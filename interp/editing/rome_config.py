"""The numbers of ROME, checked when they are given."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import RunError

__all__ = ["Rome"]


@dataclass(frozen=True, kw_only=True)
class Rome:
    """The numbers of ROME; the defaults are those of the paper and the authors' code for GPT-2 XL.

    Attributes:
        lr: Adam's step for the value.
        steps: losses looked at; one step fewer is taken.
        weight_decay: weight of ‖δ‖ / ‖v‖².
        clamp: largest ‖δ‖, as a multiple of ‖v‖.
        kl: weight of the KL at the essence prompt, per nat.
        stop: loss below which training stops.
        prefixes: pairs (how many, of how many tokens) to be made up.
        essence: a prompt with ``{subject}`` whose continuation should stay; None for none.
        damping: added to the diagonal of C, as a share of its mean.
    """

    lr: float = 0.5
    steps: int = 20
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl: float = 0.0625
    stop: float = 0.05
    prefixes: tuple[tuple[int, int], ...] = ((10, 5), (10, 10))
    essence: str | None = "{subject} is a"
    damping: float = 1e-2

    def __post_init__(self) -> None:
        positive = {"lr": self.lr, "steps": self.steps, "clamp": self.clamp}
        wrong = [f"{name}={value}" for name, value in positive.items() if not value > 0]
        least = ("weight_decay", "kl", "stop", "damping")
        wrong += [f"{name}={getattr(self, name)}" for name in least if not getattr(self, name) >= 0]
        if wrong:
            raise RunError(
                f"Rome({', '.join(wrong)}): lr, steps and clamp must be above 0, weight_decay, kl, "
                "stop and damping at least 0."
            )
        if self.essence is not None and "{subject}" not in self.essence:
            raise RunError(
                f"Rome(essence={self.essence!r}) has no {{subject}} in it: write it as "
                "'{subject} is a', or give None for no such term."
            )
