"""The loop with a step of one number: schedules, roll-back, interrupts, resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clipgan.config import MonitoringConfig, Threads
from clipgan.data.batches import Batch
from clipgan.errors import TrainingDivergedError
from clipgan.random_draws import StepRandom
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.history import Samples
from clipgan.training.loop import LoopReport, Schedule, TrainingLoop
from clipgan.training.state import (
    NonFiniteLossError,
    StateTensors,
    StepLosses,
    fetch_losses,
)

BATCH = 4
SCHEDULE = Schedule(total_images=40, batch_size=BATCH, seed=7)


class RandomWalk:
    """Moves one number by the batch and a random draw; diverges or is interrupted on demand."""

    advice = "walk slower"

    def __init__(self) -> None:
        self.position = torch.zeros(())
        self.visited: list[int] = []
        self.diverge_at: dict[int, int] = {}
        self.signal_at: int | None = None

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        self.visited.append(images_seen)
        if self.diverge_at.get(images_seen, 0) > 0:
            self.diverge_at[images_seen] -= 1
            return StepLosses(["generator_adversarial"], torch.tensor([float("nan")]))
        if self.signal_at == images_seen:
            os.kill(os.getpid(), signal.SIGINT)
        self.position = self.position + batch.images.sum() + torch.randn((), generator=random.rng)
        return StepLosses(["position"], self.position.view(1).clone())

    def capture_state(self) -> StateTensors:
        return {"walk": {"position": self.position}}

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.position = tensors["walk"]["position"]


class RecordingLogger:
    """Keeps what was flushed, as a tracking server would after a crash."""

    run_id: str | None = "run"
    run_key: str | None = "key"

    def __init__(self) -> None:
        self.buffered: list[tuple[int, dict[str, float]]] = []
        self.flushed: list[tuple[int, dict[str, float]]] = []
        self.files: list[str] = []

    def log_params(self, params: Mapping[str, object]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        self.buffered.append((images_seen, dict(metrics)))

    def log_file(self, path: Path, folder: str) -> None:
        self.files.append(f"{folder}/{path.name}")

    def flush(self) -> None:
        self.flushed += self.buffered
        self.buffered = []


def _batch_at(images_seen: int) -> Batch:
    images = torch.full((BATCH,), float(images_seen))
    return Batch(images=images, image_features=images, text_features=images)


def run_loop(
    folder: Path,
    step: RandomWalk,
    logger: RecordingLogger | None = None,
    evaluate: Callable[[int], None] | None = None,
    most_unread_steps: int = 1,
    threads: Threads | None = None,
    diagnose: Callable[[Any], None] | None = None,
    measured: bool = False,
    **monitoring: int,
) -> LoopReport:
    intervals: dict[str, Any] = {
        "log_interval_images": 8,
        "sample_interval_images": 16,
        "evaluation_interval_images": 0,
        "checkpoint_interval_images": 12,
        "keep_checkpoints": 2,
        "sample_prompts": ["a"],
        "samples_per_prompt": 1,
        **monitoring,
    }
    loop = TrainingLoop(
        step,
        _batch_at,
        schedule=SCHEDULE,
        monitoring=MonitoringConfig(**intervals),
        checkpoints=CheckpointStore(folder / "checkpoints", keep=2, fingerprint="f"),
        save_samples=lambda seen: Samples(
            folder / f"{seen}.png", {"looked": float(seen)} if measured else {}
        ),
        diagnose=diagnose,
        run_logger=logger or RecordingLogger(),
        device=torch.device("cpu"),
        evaluate=evaluate,
        threads=threads,
    )
    loop.most_unread_steps = most_unread_steps
    return loop.run()


def test_intervals_in_images(tmp_path: Path) -> None:
    logger = RecordingLogger()
    report = run_loop(tmp_path, RandomWalk(), logger)
    assert report.images_seen == 40
    assert [seen for seen, _ in logger.flushed] == [8, 16, 24, 32, 40]
    assert logger.files == [f"samples/{seen}.png" for seen in (0, 16, 32, 40)]
    assert [row["images_seen"] for row in report.history] == [8, 16, 24, 32, 40]
    assert logger.flushed[0][1]["train/position"] == report.history[0]["position"]


@pytest.mark.parametrize(("interval", "places"), [(0, []), (12, [12, 24, 36]), (16, [16, 32])])
def test_the_generator_is_evaluated_in_between(
    tmp_path: Path, interval: int, places: list[int]
) -> None:
    seen: list[int] = []
    run_loop(tmp_path, RandomWalk(), evaluate=seen.append, evaluation_interval_images=interval)
    assert seen == places


def test_last_short_window_is_logged(tmp_path: Path) -> None:
    report = run_loop(tmp_path, RandomWalk(), log_interval_images=32)
    assert [row["images_seen"] for row in report.history] == [32, 40]


@pytest.mark.parametrize("signal_at", [0, 4, 20, 36])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path, signal_at: int) -> None:
    whole = RandomWalk()
    whole_report = run_loop(tmp_path / "whole", whole)

    logger = RecordingLogger()
    stopped = RandomWalk()
    stopped.signal_at = signal_at
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path / "cut", stopped, logger)
    assert stopped.visited[-1] == signal_at, "the step in flight was not finished or another begun"
    resumed = RandomWalk()
    report = run_loop(tmp_path / "cut", resumed, logger)
    assert report.resumed_from == signal_at + BATCH
    assert stopped.visited + resumed.visited == whole.visited
    assert torch.equal(resumed.position, whole.position)
    assert report.history == whole_report.history
    points = [seen for seen, _ in logger.flushed]
    assert points == [8, 16, 24, 32, 40], "a point was lost or logged twice"


def test_sigterm_saves_and_exits_with_its_code(tmp_path: Path) -> None:
    class Terminated(RandomWalk):
        def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
            if images_seen == 16:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step(batch, images_seen, random)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run_loop(tmp_path, Terminated())
    assert stop.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert run_loop(tmp_path, RandomWalk()).resumed_from == 20


def test_finished_run_does_nothing_more(tmp_path: Path) -> None:
    first = run_loop(tmp_path, RandomWalk())
    again = RandomWalk()
    assert run_loop(tmp_path, again).history == first.history
    assert again.visited == []


def test_divergence_rolls_back_once_with_other_random_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    smooth, rough = RandomWalk(), RandomWalk()
    run_loop(tmp_path / "smooth", smooth)
    rough.diverge_at = {32: 1}
    report = run_loop(tmp_path / "rough", rough)
    assert report.rollbacks == 1
    assert report.images_seen == 40
    # Back from 32 to the checkpoint at 24.
    assert rough.visited == [*range(0, 36, 4), 24, 28, 32, 36]
    assert not torch.equal(rough.position, smooth.position)
    assert [row["images_seen"] for row in report.history] == [8, 16, 24, 32, 40]
    assert "generator_adversarial became nan at 32 images: going back to 24" in caplog.text


def test_rollback_before_the_first_interval_goes_to_the_start(tmp_path: Path) -> None:
    step = RandomWalk()
    step.diverge_at = {4: 1}
    assert run_loop(tmp_path, step).rollbacks == 1
    assert step.visited[:4] == [0, 4, 0, 4]


def test_second_divergence_names_loss_position_and_advice(tmp_path: Path) -> None:
    step = RandomWalk()
    step.diverge_at = {32: 2}
    with pytest.raises(
        TrainingDivergedError,
        match=r"generator_adversarial became nan at 32 images.*roll-back: walk slower",
    ):
        run_loop(tmp_path, step)


def test_a_rollback_survives_a_restart(tmp_path: Path) -> None:
    whole, cut = RandomWalk(), RandomWalk()
    whole.diverge_at, cut.diverge_at = {8: 1}, {8: 1}
    run_loop(tmp_path / "whole", whole)
    cut.signal_at = 28
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path / "cut", cut)
    resumed = RandomWalk()
    assert run_loop(tmp_path / "cut", resumed).rollbacks == 1
    assert torch.equal(resumed.position, whole.position)


def test_losses_that_wait_on_the_device_make_the_same_history(tmp_path: Path) -> None:
    reports = [
        run_loop(tmp_path / str(steps), RandomWalk(), most_unread_steps=steps)
        for steps in (1, 2, 64)
    ]
    assert reports[0].history == reports[1].history == reports[2].history


def test_nan_is_found_when_something_is_due_and_never_reaches_a_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a GPU, where the steps after it are made before anybody reads."""
    step = RandomWalk()
    step.diverge_at = {24: 1}
    intervals = {"log_interval_images": 40, "checkpoint_interval_images": 12}
    report = run_loop(tmp_path, step, most_unread_steps=64, sample_interval_images=40, **intervals)
    # At 36 a checkpoint was due: the steps at 24, 28 and 32 were read and given up.
    assert step.visited == [*range(0, 36, 4), *range(24, 40, 4)]
    assert "generator_adversarial became nan at 24 images: going back to 24" in caplog.text
    assert report.rollbacks == 1
    assert report.images_seen == 40


@pytest.mark.parametrize("steps", [1, 64])
def test_a_stop_saves_no_state_that_comes_after_a_nan(tmp_path: Path, steps: int) -> None:
    step = RandomWalk()
    step.diverge_at, step.signal_at = {16: 1}, 20
    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path, step, most_unread_steps=steps, log_interval_images=40)
    saved = CheckpointStore(tmp_path / "checkpoints", keep=2, fingerprint="f").load_newest()
    assert saved is not None
    assert saved.images_seen == (24 if steps == 1 else 12)
    report = run_loop(tmp_path, RandomWalk(), log_interval_images=40)
    assert report.images_seen == 40


def test_several_steps_are_read_in_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    transfers = []
    tolist = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda t: transfers.append(1) or tolist(t))
    steps = [
        StepLosses(["a"], torch.tensor([float(i)])) | StepLosses(["b"], torch.ones(1).double() / 3)
        for i in range(5)
    ]
    fetch_losses(steps)
    assert [step.read() for step in steps] == [{"a": float(i), "b": 1 / 3} for i in range(5)]
    assert len(transfers) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_an_error_unless_excused(value: float) -> None:
    values = torch.tensor([1.0, value])
    excused = StepLosses(["good", "bad"], values, excused=torch.tensor(True))
    assert excused.read() == {"good": 1.0}
    blamed = StepLosses(["good", "bad"], values, excused=torch.tensor(False))
    with pytest.raises(NonFiniteLossError, match=f"bad is {value}"):
        (excused | blamed).read()


class Killed(BaseException):
    """What SIGKILL does, in one process."""


def test_a_kill_between_a_checkpoint_and_the_look_costs_no_picture_and_no_measurement(
    tmp_path: Path,
) -> None:
    def die(_: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        run_loop(tmp_path, RandomWalk(), evaluate=die, evaluation_interval_images=16)
    logger, measured = RecordingLogger(), list[int]()
    report = run_loop(
        tmp_path, RandomWalk(), logger, evaluate=measured.append, evaluation_interval_images=16
    )
    assert report.resumed_from == 16
    assert measured == [16, 32]
    assert logger.files[0] == "samples/16.png"


def test_a_checkpoint_comes_before_what_is_logged(tmp_path: Path) -> None:
    class DyingLogger(RecordingLogger):
        def flush(self) -> None:
            super().flush()
            if self.flushed:
                raise Killed

    with pytest.raises(Killed):
        run_loop(tmp_path, RandomWalk(), DyingLogger())
    assert run_loop(tmp_path, RandomWalk()).resumed_from == 12


def test_pictures_that_cannot_be_made_end_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class RefusingLogger(RecordingLogger):
        def log_file(self, path: Path, folder: str) -> None:
            raise OSError(28, "No space left on device")

    assert run_loop(tmp_path, RandomWalk(), RefusingLogger()).images_seen == 40
    assert "no samples after 16 images" in caplog.text
