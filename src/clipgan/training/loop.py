"""The training loop of all families: schedules, monitoring, checkpoints, roll-back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from clipgan.config import MonitoringConfig, Threads
from clipgan.data.batches import Batch
from clipgan.errors import TrainingDivergedError
from clipgan.progress import ProgressBar
from clipgan.random_draws import StepRandom
from clipgan.run_logger import RunLogger, tolerated
from clipgan.threads import settle_threads
from clipgan.training.checkpoint import Checkpoint, CheckpointStore
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.early_signs import Forecast
from clipgan.training.history import History, Samples
from clipgan.training.resumable import ResumableLoop
from clipgan.training.state import NonFiniteLossError, StepLosses, TrainingStep, fetch_losses

MAX_ROLLBACKS = 1
MOST_UNREAD_STEPS = 64
"""Most steps whose losses a GPU has computed and the host has not read."""
_STREAM = 0
"""The same for every process: all seed their streams alike and take their own rows."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long to train, on how many images at once, and from which seed."""

    total_images: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class LoopReport:
    """What the loop did, resumed parts included."""

    images_seen: int
    seconds: float
    rollbacks: int
    num_threads: int
    resumed_from: int | None
    history: list[dict[str, float]]
    latest: dict[str, float]


class TrainingLoop(ResumableLoop):
    """Drives a :class:`TrainingStep` from its newest checkpoint to ``total_images``.

    Every step's random numbers are a function of (seed, roll-backs so far, rank, images seen), and
    the batch a function of the images seen: a run that was killed anywhere and started again ends
    with the same bits as one that was not (on the CPU).
    """

    def __init__(
        self,
        step: TrainingStep,
        batch_at: Callable[[int], Batch],
        *,
        schedule: Schedule,
        monitoring: MonitoringConfig,
        checkpoints: CheckpointStore,
        save_samples: Callable[[int], Samples],
        run_logger: RunLogger,
        device: torch.device,
        processes: Processes = SINGLE,
        threads: Threads | None = None,
        evaluate: Callable[[int], None] | None = None,
        diagnose: Callable[[Sequence[Mapping[str, float]]], None] | None = None,
    ) -> None:
        """``save_samples(images_seen)`` writes a grid of samples, whose values join the history;
        ``evaluate(images_seen)`` measures the generator every ``evaluation_interval_images``;
        ``diagnose(rows)`` looks at the history after every grid.

        Of several ``processes`` the first alone logs and writes; all read the same checkpoints.

        ``threads`` of PyTorch on the CPU decide the order of sums. ``auto`` measures once, at the
        very start; every checkpoint holds the number, and a resumed training uses it. With other
        processes, on a GPU and where None, PyTorch's own number stays.
        """
        super().__init__(
            "train",
            schedule.total_images,
            "images",
            state=step,
            checkpoints=checkpoints,
            device=device,
            processes=processes,
        )
        self.step = step
        self.batch_at = batch_at
        self.schedule = schedule
        self.monitoring = monitoring
        self.save_samples = save_samples
        self.evaluate, self.diagnose = evaluate, diagnose
        self.run_logger = run_logger
        self.threads = threads
        self._threads_before: int | None = None
        self.random = StepRandom(device, rank=processes.rank, num_processes=processes.count)
        # Reading makes a step wait for a GPU; on the CPU it is free, and NaN is found at once.
        self.most_unread_steps = 1 if device.type == "cpu" else MOST_UNREAD_STEPS
        self._unread: list[tuple[int, StepLosses]] = []
        self.rollbacks = 0
        self.seconds = 0.0
        self.history = History()
        self._clock = time.monotonic()
        self._pace = (self._clock, 0)
        self._forecast = Forecast()

    @property
    def images_seen(self) -> int:
        """Images that the training has seen."""
        return self.position

    def run(self) -> LoopReport:
        """Train to the end.

        Raises:
            TrainingDivergedError: a loss became NaN or Inf again after the one roll-back.
            CheckpointError: no checkpoint can be read or written.
            KeyboardInterrupt, SystemExit: asked to stop; a checkpoint was written first.
        """
        threads_outside = torch.get_num_threads()
        try:
            return self._run()
        finally:
            torch.set_num_threads(threads_outside)

    def _run(self) -> LoopReport:
        resumed_from = self.resume()
        alone = self.device.type == "cpu" and self.processes.count == 1
        settle_threads(self.threads, self._threads_before, may_measure=alone)
        self._clock = time.monotonic()
        self._pace = (self._clock, self.images_seen)
        self.drive()
        return LoopReport(
            images_seen=self.images_seen,
            seconds=self.seconds,
            rollbacks=self.rollbacks,
            num_threads=torch.get_num_threads(),
            resumed_from=resumed_from,
            history=self.history.rows,
            latest=self.history.latest,
        )

    def begin(self) -> None:
        """Save the checkpoint of a fresh training, which a roll-back of its first steps needs."""
        self.save_checkpoint()
        # Resumed trainings too: the process may have ended between the checkpoint and the samples.
        self._look()

    def restore(self, checkpoint: Checkpoint) -> None:
        """See :meth:`ResumableLoop.restore`."""
        super().restore(checkpoint)
        self._compare_processes(checkpoint.progress["processes"])
        self._threads_before = checkpoint.progress["threads"]
        self.rollbacks = checkpoint.progress["rollbacks"]
        self.seconds = checkpoint.progress["seconds"]
        self.history = History.from_tree(checkpoint.progress["history"])
        self._unread = []
        self._pace = (time.monotonic(), self.images_seen)

    def _compare_processes(self, count_before: int) -> None:
        if count_before != self.processes.count:
            logger.warning(
                "%d processes went this far, now there are %d: the rest will differ by rounding, "
                "and by more where losses.gather_negatives is false",
                count_before,
                self.processes.count,
            )

    def advance(self, bar: ProgressBar) -> None:
        """See :meth:`ResumableLoop.advance`."""
        self.random.seed(self.schedule.seed, self.rollbacks, _STREAM, self.images_seen)
        losses = self.step.step(self.batch_at(self.images_seen), self.images_seen, self.random)
        self._unread.append((self.images_seen, losses))
        self.position += self.schedule.batch_size
        if not self._must_read():
            bar.advance(min(self.images_seen, bar.total) - bar.done)
            return
        if self._read_losses():
            bar.note(_describe_losses(losses))
            self._monitor()
        bar.advance(min(self.images_seen, bar.total) - bar.done)
        self._forecast.update(bar)

    def _must_read(self) -> bool:
        """Whether a log row, a checkpoint or pictures are due, none of which may hold NaN."""
        monitoring = self.monitoring
        intervals = (
            monitoring.log_interval_images,
            monitoring.sample_interval_images,
            monitoring.checkpoint_interval_images,
            monitoring.evaluation_interval_images,
        )
        due = any(self._crosses(interval) for interval in intervals if interval)
        return due or self.is_finished() or len(self._unread) >= self.most_unread_steps

    def _read_losses(self) -> bool:
        """Add the losses of the steps since the last call to the history.

        Returns:
            False where one of them was not finite and the training was rolled back.
        """
        unread, self._unread = self._unread, []
        fetch_losses([losses for _, losses in unread])
        for images_seen, losses in unread:
            try:
                self.history.add(losses.read())
            except NonFiniteLossError as error:
                self._roll_back(error, images_seen)
                return False
        return True

    def _monitor(self) -> None:
        finished = self.is_finished()
        if self._crosses(self.monitoring.log_interval_images) or (
            finished and self._window_is_open()
        ):
            self._close_window()
        due = self._crosses(self.monitoring.checkpoint_interval_images)
        # Before samples and evaluations, which may run out of memory.
        if due or finished or self._evaluation_is_due():
            self.save_checkpoint()
        self._look()

    def _look(self) -> None:
        """Draw and measure the generator where it is due; a failure does not end the training."""
        if self._crosses(self.monitoring.sample_interval_images) or self.is_finished():
            with tolerated(f"no samples after {self.images_seen:,} images"):
                self._log_samples()
        if self._evaluation_is_due():
            with tolerated(f"not evaluated after {self.images_seen:,} images"):
                self._evaluate()

    def _evaluation_is_due(self) -> bool:
        interval = self.monitoring.evaluation_interval_images
        return bool(interval and self.images_seen and self._crosses(interval))

    def _crosses(self, interval_images: int) -> bool:
        before = self.images_seen - self.schedule.batch_size
        return self.images_seen // interval_images > before // interval_images

    def _window_is_open(self) -> bool:
        last = self.history.rows[-1]["images_seen"] if self.history.rows else 0
        return bool(self.images_seen > last)

    def _close_window(self) -> None:
        losses = self.history.close_window(self.images_seen)
        metrics = {f"train/{name}": value for name, value in losses.items()}
        # Not part of the history: it differs from run to run.
        metrics["train/images_per_second"] = self._measure_pace()
        self.run_logger.log_metrics(metrics, self.images_seen)

    def _measure_pace(self) -> float:
        """Images a second since the last call, sample grids and checkpoints included."""
        (then, images_then), now = self._pace, time.monotonic()
        self._pace = (now, self.images_seen)
        return (self.images_seen - images_then) / max(now - then, 1e-9)

    def _log_samples(self) -> None:
        if self.processes.is_main:
            samples = self.save_samples(self.images_seen)
            self.run_logger.log_file(samples.path, "samples")
            if samples.values:
                self.history.note(self.images_seen, samples.values)
                metrics = {f"train/{name}": value for name, value in samples.values.items()}
                self.run_logger.log_metrics(metrics, self.images_seen)
            if self.diagnose is not None:
                self.diagnose(self.history.rows)
        self.processes.wait()

    def _evaluate(self) -> None:
        if self.evaluate is not None and self.processes.is_main:
            self.evaluate(self.images_seen)
        self.processes.wait()

    def describe_progress(self) -> dict[str, Any]:
        """See :meth:`ResumableLoop.describe_progress`."""
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        return {
            "seed": self.schedule.seed,
            "rollbacks": self.rollbacks,
            "seconds": self.seconds,
            "history": self.history.to_tree(),
            "processes": self.processes.count,
            "threads": torch.get_num_threads(),
        }

    def save_checkpoint(self) -> None:
        """See :meth:`ResumableLoop.save_checkpoint`; what was logged is sent with it."""
        super().save_checkpoint()
        self.run_logger.flush()

    def before_stop(self) -> None:
        """See :meth:`ResumableLoop.before_stop`."""
        self._read_losses()

    def _roll_back(self, error: NonFiniteLossError, images_seen: int) -> None:
        """Go back to the newest checkpoint with other random numbers, once."""
        where = f"{error.name} became {error.value} at {images_seen:,} images"
        checkpoint = self.checkpoints.load_newest() if self.rollbacks < MAX_ROLLBACKS else None
        if checkpoint is None:
            raise TrainingDivergedError(
                f"{where}, again after a roll-back: {self.step.advice}"
            ) from error
        self.restore(checkpoint)
        self.rollbacks += 1
        logger.warning(
            "%s: going back to %s images with other random numbers",
            where,
            f"{self.images_seen:,}",
        )


def _describe_losses(losses: StepLosses) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in list(losses.read().items())[:2])
