"""Which checkpoints of a run are written, and which of them stay."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import TrainingError

__all__ = ["Policy"]


@dataclass(frozen=True)
class Policy:
    """Which checkpoints are written, and which are kept.

    Attributes:
        every: steps from one to the next; None: only those that the trainer asks for (its last).
        keep: the newest so many are kept; while one more is written, the disk holds ``keep + 1``.
        milestones: each multiple of so many steps is written too, and kept for good; None: none.

    Raises:
        TrainingError: a number below 1.
    """

    every: int | None = 1000
    keep: int = 2
    milestones: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "keep", "milestones"):
            value = getattr(self, name)
            if value is None and name != "keep":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TrainingError(
                    f"{name}={value!r}; expected a whole number of "
                    f"{'checkpoints' if name == 'keep' else 'steps'} from 1 up."
                )

    def due(self, step: int) -> bool:
        """Whether a checkpoint is written after so many steps."""
        spans = (self.every, self.milestones)
        return step > 0 and any(span is not None and step % span == 0 for span in spans)

    def dropped(self, steps: list[int]) -> list[int]:
        """Which of the checkpoints at these rising steps are not kept.

        >>> Policy(keep=2, milestones=500).dropped([500, 600, 700, 800])
        [600]
        """
        old = steps[: -self.keep]
        return [step for step in old if self.milestones is None or step % self.milestones]
