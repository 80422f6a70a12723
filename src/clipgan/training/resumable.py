"""The loop of every training: checkpoints, resuming, Ctrl-C and SIGTERM."""

from __future__ import annotations

import logging
import math
import signal
from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from clipgan.errors import TrainingDivergedError
from clipgan.progress import ProgressBar, progress_bar
from clipgan.training.checkpoint import Checkpoint, CheckpointStore
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.interrupts import StopRequest, defer_interrupts
from clipgan.training.state import Resumable

READ_INTERVAL_STEPS = 50

logger = logging.getLogger(__name__)


class ResumableLoop(ABC):
    """From the newest checkpoint to ``total``, in ``unit``; a subclass says what a step is.

    Of several ``processes`` the first alone writes; all read the same checkpoints.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        *,
        state: Resumable,
        checkpoints: CheckpointStore,
        device: torch.device,
        processes: Processes = SINGLE,
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.checkpoints, self.device, self.processes = checkpoints, device, processes
        self.position = 0
        self._state = state
        self._saved_at: int | None = None

    def resume(self) -> int | None:
        """Restore the newest checkpoint; returns its position, None where there is none."""
        checkpoint = self.checkpoints.load_newest()
        # No process may write before all processes have looked for checkpoints.
        self.processes.wait()
        if checkpoint is None:
            return None
        self.restore(checkpoint)
        logger.info("%s goes on from %s %s", self.title, f"{self.position:,}", self.unit)
        return self.position

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the position and state of a checkpoint."""
        self._state.restore_state(checkpoint.tensors)
        self.position = self._saved_at = checkpoint.images_seen

    def drive(self) -> None:
        """Make the steps that are left.

        Raises:
            KeyboardInterrupt, SystemExit: asked to stop; a checkpoint was written first.
        """
        done = min(self.position, self.total)
        with (
            progress_bar(
                self.title, self.total, self.unit, done=done, shown=self.processes.is_main
            ) as bar,
            defer_interrupts() as request,
        ):
            self.begin()
            while not self.is_finished():
                self.advance(bar)
                self._check_stop(request)

    def is_finished(self) -> bool:
        """Whether ``total`` is reached."""
        return self.position >= self.total

    def begin(self) -> None:  # noqa: B027 - most have nothing to do
        """Before the first step of this process."""

    @abstractmethod
    def advance(self, bar: ProgressBar) -> None:
        """Make one step: advance ``position`` and the bar, save a checkpoint where it is due."""

    def describe_progress(self) -> dict[str, Any]:
        """What a checkpoint holds besides tensors, JSON values."""
        return {}

    def before_stop(self) -> None:  # noqa: B027 - most have nothing to do
        """Before the checkpoint of a training that is asked to stop."""

    def save_checkpoint(self) -> None:
        """Write a checkpoint, unless there is one of this position."""
        if self._saved_at == self.position:
            return
        progress = self.describe_progress()
        if self.processes.is_main:
            self.checkpoints.save(self.position, progress, self._state.capture_state())
        # The others wait here and not in the next step's collectives, which have a time-out.
        self.processes.wait()
        self._saved_at = self.position

    def _check_stop(self, request: StopRequest) -> None:
        # A stop request of one process stops all at the same step, so that none waits for rows.
        number = self.processes.all_reduce_max(request.signal or 0, self.device)
        if not number:
            return
        request.signal = signal.Signals(number)
        self.before_stop()
        self.save_checkpoint()
        self.processes.wait()
        logger.warning(
            "stopped at %s %s; the same command goes on from here",
            f"{self.position:,}",
            self.unit,
        )
        request.raise_if_set()


class SmallTraining(Resumable, Protocol):
    """A training in one process that reports its losses on the terminal only."""

    def step(self, number: int) -> dict[str, Tensor]:
        """One update, a function of the weights and ``number``; returns losses by name, each ()."""


class StepLoop(ResumableLoop):
    """The whole training of a :class:`SmallTraining`."""

    def __init__(
        self,
        title: str,
        training: SmallTraining,
        *,
        total_steps: int,
        checkpoint_interval_steps: int,
        checkpoints: CheckpointStore,
        device: torch.device,
    ) -> None:
        super().__init__(
            title, total_steps, "steps", state=training, checkpoints=checkpoints, device=device
        )
        self._training, self._interval = training, checkpoint_interval_steps
        self._losses: dict[str, Tensor] = {}

    def run(self) -> int | None:
        """Train to the end; returns the step it resumed from, None for a fresh start.

        Raises:
            TrainingDivergedError: a loss became NaN or infinite.
            CheckpointError: no checkpoint can be read or written.
            KeyboardInterrupt, SystemExit: see :meth:`ResumableLoop.drive`.
        """
        resumed_from = self.resume()
        self.drive()
        return resumed_from

    def advance(self, bar: ProgressBar) -> None:
        """See :meth:`ResumableLoop.advance`."""
        self._losses = self._training.step(self.position)
        self.position += 1
        due = self.position % self._interval == 0 or self.is_finished()
        if due or self.position % READ_INTERVAL_STEPS == 0:
            self.before_stop()
            bar.note("  ".join(f"{name} {float(x):.3f}" for name, x in self._losses.items()))
        if due:
            self.save_checkpoint()
        bar.advance()

    def before_stop(self) -> None:
        """No checkpoint may hold what diverged."""
        for name, value in self._losses.items():
            if not math.isfinite(float(value)):
                raise TrainingDivergedError(
                    f"{self.title}: {name} became {float(value)} at step {self.position:,}: "
                    f"{self._training.advice}"
                )
