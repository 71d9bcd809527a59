"""The loop: batches to every dictionary in training, a line of the log, a checkpoint now and then."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from interp.progress import Bar, announce
from interp.training.checkpoints import Checkpoint, Checkpoints
from interp.training.config import TrainConfig
from interp.training.feed import Feed
from interp.training.logs import RunLog
from interp.training.parallel import Together
from interp.training.trainee import Trainee

__all__ = ["Loop"]


@dataclass
class Loop:
    """A training run under way.

    Attributes:
        trainees: the dictionaries, which all see the same batches.
        feed: where batches come from.
        checkpoints: where they are kept; None for a run that leaves nothing.
        log: where measurements go; on the first rank only.
        seconds: that earlier parts of this run took.
    """

    trainees: Sequence[Trainee]
    feed: Feed
    checkpoints: Checkpoints | None
    log: RunLog
    together: Together
    seconds: float = 0.0
    done: int = 0

    @property
    def config(self) -> TrainConfig:
        """Of what all have in common."""
        return self.trainees[0].config

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, to the same bits."""
        for trainee in self.trainees:
            own = _under(checkpoint.tensors, f"{trainee.name}/")
            trainee.go_to(own, checkpoint.state["trainees"][trainee.name])
        self.feed.go_to(checkpoint.state["feed"], _under(checkpoint.tensors, "feed/"))
        self.seconds, self.done = checkpoint.state["seconds"], checkpoint.step

    def run(self, *, show: bool | None) -> None:
        """Train to the end; Ctrl-C finishes the step in hand, saves, and is raised then."""
        steps, together = self.config.steps, self.together
        bar = Bar(total=steps, what="train", show=show if together.ranks.lead else False)
        start, before = time.perf_counter(), self.seconds
        last = (start, self.done)
        with _interrupts(once=together.alone) as interrupted, bar:
            bar.advance(self.done)
            while self.done < steps:
                measure = self.done % self.config.log_every == 0 or self.done == steps - 1
                rows = next(self.feed)
                measured = {t.name: t.step(rows, measure=measure) for t in self.trainees}
                self.done += 1
                self.seconds = before + time.perf_counter() - start
                if measure:
                    now = time.perf_counter()
                    speed = (self.done - last[1]) * self.config.batch / max(now - last[0], 1e-9)
                    last = (now, self.done)
                    self._tell(measured, speed)
                bar.advance(1, what=_told(measured, speed) if measure else None)
                stop = together.any(bool(interrupted))
                if (
                    self.done == steps
                    or stop
                    or (self.checkpoints and self.checkpoints.due(self.done))
                ):
                    self._save()
                if stop and self.done < steps:
                    if together.ranks.lead:
                        announce(self._stopped())
                    together.ranks.together()  # who ends early would have torchrun end the others
                    raise KeyboardInterrupt

    def _tell(self, measured: Mapping[str, Mapping[str, float]], speed: float) -> None:
        if self.together.ranks.lead:
            tokens = {"tokens": float(self.done * self.config.batch), "tokens_per_s": speed}
            self.log.write(self.done, {"": tokens, **measured})

    def _save(self) -> None:
        """A checkpoint, by the first rank."""
        if self.checkpoints is None or not self.together.ranks.lead:
            return
        tensors: dict[str, Tensor] = {}
        states = {}
        for trainee in self.trainees:
            own, states[trainee.name] = trainee.state()
            tensors |= {f"{trainee.name}/{n}": t for n, t in own.items()}
        position, held = self.feed.state()
        tensors |= {f"feed/{n}": t for n, t in held.items()}
        state = {"trainees": states, "feed": position, "seconds": self.seconds}
        self.log.sync()  # no checkpoint is ahead of its log
        self.checkpoints.save(self.done, tensors, state)

    def _stopped(self) -> str:
        where = f"stopped after step {self.done:,} of {self.config.steps:,}"
        if self.checkpoints is None:
            return f"{where}. Nothing is kept: give out= to go on from where a run was stopped."
        return f"{where}; the same call goes on from there."


def _told(measured: Mapping[str, Mapping[str, float]], speed: float) -> str:
    first = next(iter(measured.values()))
    more = f" (1 of {len(measured)})" if len(measured) > 1 else ""
    return (
        f"loss {first['loss']:.3g}, FVU {first['fvu']:.3f}, L0 {first['l0']:.1f}, "
        f"dead {first['dead']:.1%}, {speed:,.0f} tokens/s{more}"
    )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


@contextmanager
def _interrupts(*, once: bool) -> Iterator[list[int]]:
    """Ctrl-C is noted, so that no step is left half done; a second one is raised at once.

    Args:
        once: whether one Ctrl-C is one signal. Under torchrun each rank gets it from the terminal and
            from torchrun, which kills those that have not ended after half a minute.
    """
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen  # only the main thread is told of signals
        return

    def note(number: int, frame: Any) -> None:
        if seen and once:
            raise KeyboardInterrupt
        seen.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
