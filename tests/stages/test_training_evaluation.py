"""Evaluation in the middle of a training against evaluation of the checkpoints it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clipgan.artifacts import hash_file
from clipgan.config import Params
from clipgan.errors import EvaluationError
from clipgan.metrics.evaluations import load_evaluation
from clipgan.stages.train import train
from clipgan.stages.training_evaluation import TrainingEvaluation
from clipgan.training import loop
from clipgan.training.checkpoint_export import export_checkpoint
from clipgan.training.snapshot import Snapshot
from tests.stages import test_evaluate
from tests.stages.test_evaluate import RecordingLogger
from tests.stages.tiny_training import TinyClip, build_world, run_training, tiny_params

CHANGES: dict[str, Any] = test_evaluate.CHANGES | {
    "train.pseudo_text.kind": "centred_gaussian",
    "monitoring.evaluation_interval_images": 32,
    "monitoring.checkpoint_interval_images": 32,
}


def build_evaluation(root: Path, params: Params, logger: RecordingLogger) -> TrainingEvaluation:
    return TrainingEvaluation(
        params.evaluate,
        features_config=params.features,
        images=root / "images",
        features=root / "features",
        cache=root / "cache",
        run_logger=logger,
        clip=TinyClip(),  # type: ignore[arg-type]
    )


def run_evaluated(root: Path, params: Params, logger: RecordingLogger, output: str) -> None:
    train(
        params.train,
        monitoring=params.monitoring,
        features_config=params.features,
        images=root / "images",
        features=root / "features",
        output=root / output,
        work=root / "work" / "train",
        clip=TinyClip(),  # type: ignore[arg-type]
        evaluate=build_evaluation(root, params, logger),
    )


@pytest.fixture(scope="module")
def logger() -> RecordingLogger:
    return RecordingLogger()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, logger: RecordingLogger) -> Path:
    """A training that was evaluated after 32, 64 and 96 images, and its checkpoint after 64."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    params = tiny_params(CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.CheckpointStore, "save", keep_copies(root / "kept"))
        run_evaluated(root, params, logger, "training")
    return root


def keep_copies(folder: Path) -> Any:
    save = loop.CheckpointStore.save

    def save_and_copy(store: Any, images_seen: int, *arguments: Any) -> Path:
        path = save(store, images_seen, *arguments)
        shutil.copytree(path, folder / str(images_seen))
        return path

    return save_and_copy


@pytest.mark.parametrize("images_seen", [32, 64, 96])
def test_values_in_training_are_exactly_those_of_the_checkpoint(
    world: Path, logger: RecordingLogger, images_seen: int
) -> None:
    offline = world / f"offline-{images_seen}"
    export_checkpoint(world / "kept" / str(images_seen), offline)
    shutil.copyfile(world / "training" / "history.json", offline / "history.json")
    (world / "evaluated").mkdir(exist_ok=True)
    place = world / "evaluated" / str(images_seen)
    for name in ("images", "features"):
        target = place / name
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(world / name)
    (place / "training").symlink_to(offline)
    report = test_evaluate.run(place)
    folder = world / "training" / "evaluations" / f"images-{images_seen:08d}"
    during = load_evaluation(folder).values["trained"]
    assert during == load_evaluation(place / "evaluation").values["trained"]
    assert {name: value.value for name, value in during.items()} == report.values["trained"]
    logged = logger.metrics[images_seen]
    assert logged["evaluation/clip_score"] == during["clip_score"].value


def test_evaluating_changes_no_bit_of_the_training(world: Path) -> None:
    # What is finished would not be trained again.
    shutil.rmtree(world / "work" / "train")
    run_training(world, tiny_params(CHANGES), output="plain")
    assert not (world / "plain" / "evaluations").exists()
    for name in ("generator.safetensors", "discriminator.safetensors", "history.json"):
        assert hash_file(world / "plain" / name) == hash_file(world / "training" / name)


def test_curves_hold_the_points_of_one_protocol(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "clipgan.evaluation.report.writing.save_history_plot",
        lambda path, rows, points: drawn.append(points) or path.write_bytes(b"png"),
    )
    test_evaluate.run(world)
    assert [position for position, _ in drawn[0]["clip_score"]] == [32, 64, 96]
    test_evaluate.run(world, {"evaluate.seed": 1})
    assert [position for position, _ in drawn[1]["clip_score"]] == [96]


def test_a_generator_that_cannot_be_measured_leaves_nothing(world: Path, tmp_path: Path) -> None:
    class Collapsed(Snapshot):
        def save(self, folder: Path) -> None:
            test_evaluate.save_training(tmp_path, initial=False, collapsed=True)
            shutil.copytree(tmp_path / "training", folder, dirs_exist_ok=True)

    logger = RecordingLogger()
    evaluation = build_evaluation(world, tiny_params(CHANGES), logger)
    with pytest.raises(EvaluationError, match="collapsed"):
        evaluation(Collapsed(5, None, None, None, tmp_path / "found"))  # type: ignore[arg-type]
    assert logger.metrics == {}
    assert not (tmp_path / "found").exists()


def test_an_unknown_protocol_ends_it_before_it_starts(world: Path) -> None:
    params = tiny_params(CHANGES | {"evaluate.protocols": ["fid"]})
    with pytest.raises(EvaluationError, match="protocol 'fid' is unknown"):
        build_evaluation(world, params, RecordingLogger())


def test_history_is_that_of_the_losses_alone(world: Path) -> None:
    rows = json.loads((world / "training" / "history.json").read_text())
    assert not any("clip_score" in row for row in rows)
