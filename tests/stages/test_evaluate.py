"""The evaluate stage on the tiny world, with the real feature extractor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.artifacts import write_json
from clipgan.config import Params
from clipgan.errors import CheckpointError, EvaluationError, FeatureStoreError
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.metrics.comparison import compare_values
from clipgan.metrics.evaluations import load_evaluation
from clipgan.models.bundle import BundleInfo, save_bundle
from clipgan.run_logger import NULL_LOGGER, RunLogger
from clipgan.stages.evaluate import evaluate
from clipgan.stages.report import report as draw_report
from tests.stages.tiny_training import SIDE_PX, TinyClip, build_world, tiny_params

CHANGES: dict[str, Any] = {
    "evaluate.device": "cpu",
    "evaluate.num_generated": 18,
    "evaluate.batch_size": 8,
    "evaluate.retrieval_candidates": 5,
    "evaluate.num_concepts": 6,
    "evaluate.samples_per_concept": 2,
    "evaluate.feature_spaces": [],
    "evaluate.path_length_samples": 4,
    "evaluate.interval_groups": 6,
    "evaluate.nearest_pictures": 3,
    "evaluate.grid_prompts": 3,
    "evaluate.grid_samples": 4,
}
HISTORY = [{"images_seen": n, "generator_loss": 2.0 / n} for n in (16, 32, 48)]
IMAGES_SEEN, INITIAL_IMAGES_SEEN = 1048, 1000


class RecordingLogger(RunLogger):
    def __init__(self) -> None:
        self.metrics: dict[int, dict[str, float]] = {}
        self.files: list[str] = []

    def log_metrics(self, metrics: Mapping[str, float], images_seen: int) -> None:
        self.metrics[images_seen] = dict(metrics)

    def log_file(self, path: Path, folder: str) -> None:
        assert path.is_file()
        self.files.append(f"{folder}/{path.name}")


def build_generator(params: Params, seed: int, side_px: int = SIDE_PX) -> LafiteGenerator:
    torch.manual_seed(seed)
    config = params.train.lafite.generator
    return LafiteGenerator(
        resolution_px=side_px,
        text_dim=TinyClip.embed_dim,
        latent_dim=config.latent_dim,
        style_dim=config.style_dim,
        text_hidden_dim=config.text_hidden_dim,
        mapping_layers=config.mapping_layers,
        channel_base=config.channel_base,
        channel_max=config.channel_max,
    )


def save_training(root: Path, *, initial: bool = True, collapsed: bool = False) -> None:
    """What the train stage leaves in ``root/training``, with random generators."""
    params = tiny_params()
    generator = build_generator(params, 1)
    if collapsed:
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.zero_()
    for folder, network, images_seen in (
        (root / "training", generator, IMAGES_SEEN),
        (root / "training" / "initial", build_generator(params, 2), INITIAL_IMAGES_SEEN),
    ):
        if folder.name == "initial" and not initial:
            continue
        info = BundleInfo("lafite", TinyClip().fingerprint, SIDE_PX, images_seen)
        save_bundle(folder, network, None, info, dtype="fp32")
    write_json(root / "training" / "history.json", HISTORY)


@dataclass(frozen=True)
class Measured:
    """An evaluation with numbers alone: section -> metric -> number."""

    values: dict[str, dict[str, float]]
    skipped: Mapping[str, str]
    warnings: tuple[str, ...]
    images_seen: int


def run(
    root: Path,
    changes: dict[str, Any] | None = None,
    *,
    output: str = "evaluation",
    clip: TinyClip | None = None,
    logger: RunLogger = NULL_LOGGER,
) -> Measured:
    params = tiny_params(CHANGES | (changes or {}))
    evaluation = evaluate(
        params.evaluate,
        features_config=params.features,
        training=root / "training",
        images=root / "images",
        features=root / "features",
        output=root / output,
        cache=root / "work" / "evaluate",
        clip=clip or TinyClip(),  # type: ignore[arg-type]
        logger=logger,
    )
    draw_report(
        evaluation=root / output,
        training=root / "training",
        output=root / f"{output}-report",
        logger=logger,
    )
    assert evaluation.images_seen is not None
    return Measured(
        {s: {n: v.value for n, v in values.items()} for s, values in evaluation.values.items()},
        evaluation.skipped,
        evaluation.warnings,
        evaluation.images_seen,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    save_training(root)
    return root


@pytest.fixture(scope="module")
def logger() -> RecordingLogger:
    return RecordingLogger()


@pytest.fixture(scope="module")
def report(world: Path, logger: RecordingLogger) -> Measured:
    return run(world, logger=logger)


def test_every_file_is_made(world: Path, report: Measured) -> None:
    assert {path.name for path in (world / "evaluation").iterdir()} == {
        "metrics",
        "evaluation.json",
        "pictures.safetensors",
    }
    assert {path.name for path in (world / "evaluation-report").iterdir()} == {
        "report.md",
        "report.html",
        "samples.png",
        "before_after.png",
        "nearest.png",
        "history.png",
        "history.csv",
    }
    assert not list(world.glob(".evaluation*"))


def test_both_generators_and_real_images_are_measured(world: Path, report: Measured) -> None:
    kinds = ("fd", "kid", "precision", "recall", "density", "coverage")
    more = ("memorised_share", "path_length", "caption_diversity")
    measured = {f"{metric}_efficientnet_lite0" for metric in (*kinds, *more)}
    expected = measured | {"clip_score", "r_precision", "concept_accuracy"}
    assert set(report.values["trained"]) == set(report.values["initial"]) == expected
    assert set(report.values["real"]) == {"clip_score", "r_precision"}
    assert report.values["trained"] != report.values["initial"]
    one_image_a_concept = {"concept_accuracy_ceiling", "caption_diversity_real"}
    assert set(report.skipped) == {"clip_score_independent", "soa"} | one_image_a_concept
    assert report.images_seen == IMAGES_SEEN - INITIAL_IMAGES_SEEN


def test_metrics_file_values_and_report_agree(world: Path, report: Measured) -> None:
    for section, values in report.values.items():
        for name, value in values.items():
            path = world / "evaluation" / "metrics" / f"{name}.json"
            assert json.loads(path.read_text())[section] == value
    loaded = load_evaluation(world / "evaluation")
    for section, values in loaded.values.items():
        assert {name: value.value for name, value in values.items()} == report.values[section]
    protocol = loaded.values["trained"]["clip_score"].protocol
    assert protocol.clip == TinyClip().fingerprint
    assert protocol.generated_count == protocol.reference_count == 18


def test_run_gets_both_points_and_the_files(report: Measured, logger: RecordingLogger) -> None:
    assert set(logger.metrics) == {0, IMAGES_SEEN - INITIAL_IMAGES_SEEN}
    assert logger.metrics[0]["evaluation/clip_score"] == report.values["initial"]["clip_score"]
    assert "evaluation/samples.png" in logger.files
    assert "evaluation/report.md" in logger.files


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    world: Path, report: Measured
) -> None:
    again = run(world, output="again")
    assert again.values == report.values
    for name in ("/metrics/clip_score.json", "/pictures.safetensors", "-report/report.html"):
        first, second = (Path(f"{world}/{folder}{name}") for folder in ("evaluation", "again"))
        assert first.read_bytes() == second.read_bytes()
    other = run(world, {"evaluate.seed": 1, "evaluate.compare_initial": False}, output="other")
    assert "initial" not in other.values
    assert other.images_seen == report.images_seen
    assert other.values["trained"] != report.values["trained"]


def test_two_protocols_stand_side_by_side(world: Path, report: Measured) -> None:
    custom = {
        "name": "held-out",
        "based_on": "cub",
        "spaces": ["efficientnet-lite0"],
        "num_generated": 8,
    }
    changes = {
        "evaluate.protocols": ["fd-offline", "held-out"],
        "evaluate.custom_protocols": [custom],
        "evaluate.compare_initial": False,
    }
    both = run(world, changes, output="both")
    trained = both.values["trained"]
    offline = {name: value for name, value in trained.items() if "/" not in name}
    assert offline == report.values["trained"]
    assert "held-out/fd_efficientnet_lite0" in trained
    assert "held-out/concept_accuracy" not in trained
    loaded = load_evaluation(world / "both").values["trained"]
    other = loaded["held-out/fd_efficientnet_lite0"]
    assert (other.protocol.name, other.protocol.reference_split) == ("held-out", "validation")
    with pytest.raises(EvaluationError, match=r"reference_split: 'train' against 'validation'.*"):
        compare_values(loaded["fd_efficientnet_lite0"], other)


def test_a_protocol_that_asks_for_more_images_is_refused(world: Path) -> None:
    with pytest.raises(EvaluationError, match="fid30k-val asks for 30,000 captioned images"):
        run(world, {"evaluate.protocols": ["fid30k-val"]}, output="refused")
    assert not (world / "refused").exists()


def test_a_start_for_smaller_images_is_measured_at_the_size_trained(tmp_path: Path) -> None:
    side = 2 * SIDE_PX
    build_world(tmp_path, side_px=side)
    save_training(tmp_path)
    info = BundleInfo("lafite", TinyClip().fingerprint, side, IMAGES_SEEN)
    grown = build_generator(tiny_params(), 1, side)
    save_bundle(tmp_path / "training", grown, None, info, dtype="fp32")
    report = run(tmp_path)
    assert set(report.values["initial"]) == set(report.values["trained"])
    assert report.warnings[0] == (
        f"the generator before training makes images of {SIDE_PX} px: they are enlarged to "
        f"{side} px for every value and picture of it"
    )
    assert (tmp_path / "evaluation-report" / "before_after.png").exists()


def test_without_an_initial_generator_there_is_no_before(tmp_path: Path) -> None:
    build_world(tmp_path)
    save_training(tmp_path, initial=False)
    report = run(tmp_path)
    assert "initial" not in report.values
    assert report.images_seen == IMAGES_SEEN
    assert not (tmp_path / "evaluation-report" / "before_after.png").exists()


def test_images_without_captions_are_evaluated_by_their_features(tmp_path: Path) -> None:
    build_world(tmp_path, captioned=0)
    save_training(tmp_path, initial=False)
    report = run(tmp_path)
    assert set(report.values) == {"trained"}
    assert "fd_efficientnet_lite0" in report.values["trained"]
    reason = report.skipped["r_precision"]
    assert "has a caption: lay a file of captions beside each image" in reason
    assert reason.endswith("or name words that fit your images in evaluate.prompts")
    assert (tmp_path / "evaluation-report" / "samples.png").exists()
    assert load_evaluation(tmp_path / "evaluation").prompts == ()


def test_prompts_stand_for_the_captions_of_images_without_any(tmp_path: Path) -> None:
    build_world(tmp_path, captioned=0)
    save_training(tmp_path)
    report = run(tmp_path, {"evaluate.prompts": ["a dot", "a line", "a dot", "a blob"]})
    texts = {"clip_score", "r_precision", "caption_diversity_efficientnet_lite0"}
    assert texts <= set(report.values["trained"])
    assert texts <= set(report.values["initial"])
    assert {"clip_score_independent", "concept_accuracy"} <= set(report.skipped)
    evaluation = load_evaluation(tmp_path / "evaluation")
    assert evaluation.prompts == ("a dot", "a line", "a blob")
    value = evaluation.values["trained"]["r_precision"]
    assert value.protocol.captions.startswith("evaluate.prompts (")
    assert value.protocol.generated_count == 3 * 2
    assert value.protocol.settings == {"candidates": 3, "samples_per_caption": 2}
    again = run(tmp_path, {"evaluate.prompts": ["a line", "a dot", "a square"]}, output="other")
    assert again.values["trained"]["clip_score"] != report.values["trained"]["clip_score"]


def test_collapsed_generator_is_an_error_and_the_old_output_stays(tmp_path: Path) -> None:
    build_world(tmp_path)
    save_training(tmp_path, initial=False, collapsed=True)
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "old").touch()
    with pytest.raises(EvaluationError, match="collapsed"):
        run(tmp_path)
    assert [path.name for path in (tmp_path / "evaluation").iterdir()] == ["old"]


def test_another_clip_is_refused(world: Path) -> None:
    class OtherClip(TinyClip):
        weights = "1" * 64

    with pytest.raises(FeatureStoreError, match="weights_sha256"):
        run(world, output="refused", clip=OtherClip())
    assert not (world / "refused").exists()


def test_missing_and_damaged_inputs_are_named(tmp_path: Path) -> None:
    build_world(tmp_path)
    with pytest.raises(CheckpointError, match=r"bundle\.json"):
        run(tmp_path)
    save_training(tmp_path)
    weights = tmp_path / "training" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"generator\.safetensors"):
        run(tmp_path)


def test_small_split_skips_what_it_cannot_give(world: Path) -> None:
    changes = {"evaluate.reference_split": "validation", "evaluate.num_concepts": 2}
    report = run(world, changes, output="validation")
    assert "retrieval_candidates = 5" in report.skipped["r_precision"]
    assert "kid_efficientnet_lite0" in report.values["trained"], "KID needs two images"
