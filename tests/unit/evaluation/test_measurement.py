from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.config import EvaluateConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.benchmark import Benchmark, build_benchmark
from clipgan.evaluation.measurement import Evaluator
from clipgan.evaluation.reference import load_reference_index
from clipgan.images import to_unit_range
from tests.params import params_with
from tests.unit.evaluation.tiny_images import Drawing, build_images, draw

SIDE = 16
CLIP = {"model": "tiny", "weights_sha256": "0" * 64}
CONCEPTS = [f"thing {n}" for n in range(8)]
CHANGES: dict[str, Any] = {
    "evaluate.device": "cpu",
    "evaluate.num_generated": 16,
    "evaluate.batch_size": 8,
    "evaluate.num_concepts": 6,
    "evaluate.samples_per_concept": 2,
    "evaluate.retrieval_candidates": 5,
    "evaluate.kid_subset_size": 8,
    "evaluate.kid_subsets": 3,
    "evaluate.inception": "off",
}


def config_with(**changes: Any) -> EvaluateConfig:
    return params_with(CHANGES | {f"evaluate.{k}": v for k, v in changes.items()}).evaluate


def build(images: Path, config: EvaluateConfig) -> Benchmark:
    return build_benchmark(config, load_reference_index(images, config.reference_split), SIDE)


def evaluator_of(benchmark: Benchmark, config: EvaluateConfig, **changes: Any) -> Evaluator:
    return Evaluator(
        config,
        benchmark,
        encode_images=encode_images,
        encode_texts=lambda texts: encode_images(to_unit_range(draw_prompts(texts))),
        clip_fingerprint=CLIP,
        device=torch.device("cpu"),
        **changes,
    )


def encode_images(images: Tensor) -> Tensor:
    """A CLIP that knows every drawing: texts are encoded through their own."""
    return normalize(images.flatten(1), dim=1)


def draw_prompts(prompts: Sequence[str]) -> Tensor:
    """A perfect generator: the drawing of the concept the prompt names."""
    return torch.stack([torch.from_numpy(draw(p, SIDE)).permute(2, 0, 1) for p in prompts])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawings = [Drawing(concept, [concept]) for concept in CONCEPTS]
    drawings += [Drawing(concept, [concept], style="bold") for concept in CONCEPTS]
    return build_images(tmp_path_factory.mktemp("data") / "images", drawings, SIDE)


@pytest.fixture(scope="module")
def evaluator(images: Path) -> Evaluator:
    config = config_with()
    return evaluator_of(build(images, config), config)


def test_the_real_images_in_the_generators_place_score_best(evaluator: Evaluator) -> None:
    values = {name: value.value for name, value in evaluator.measure(draw_prompts).items()}
    assert set(values) == {
        "fd_efficientnet_lite0",
        "kid_efficientnet_lite0",
        "precision_efficientnet_lite0",
        "recall_efficientnet_lite0",
        "clip_score",
        "r_precision",
        "concept_accuracy",
    }
    assert values["concept_accuracy"] == 1.0
    assert values["r_precision"] == 1.0
    assert values["clip_score"] == pytest.approx(1.0)
    assert values["precision_efficientnet_lite0"] == 1.0
    assert values["recall_efficientnet_lite0"] == 1.0
    assert values["fd_efficientnet_lite0"] == pytest.approx(0.0, abs=1e-2)
    # The other style has the same pixels here, so its ceiling is the full score.
    real = evaluator.measure_real()
    assert real["concept_accuracy_ceiling_bold"].value == 1.0
    assert real["clip_score"].value == pytest.approx(values["clip_score"])


def test_worse_images_score_worse(evaluator: Evaluator) -> None:
    def shuffle(prompts: Sequence[str]) -> Tensor:
        noise = torch.randint(0, 64, (len(prompts), 3, SIDE, SIDE), dtype=torch.uint8)
        return draw_prompts([*prompts[1:], prompts[0]]) // 4 + noise

    good, bad = evaluator.measure(draw_prompts), evaluator.measure(shuffle)
    assert bad["fd_efficientnet_lite0"].value > good["fd_efficientnet_lite0"].value + 1
    assert bad["kid_efficientnet_lite0"].value > good["kid_efficientnet_lite0"].value
    assert bad["concept_accuracy"].value < 0.6


def test_protocols_say_who_judged_what(evaluator: Evaluator) -> None:
    values = evaluator.measure(draw_prompts)
    fd, r_precision = values["fd_efficientnet_lite0"].protocol, values["r_precision"].protocol
    assert (fd.independent, fd.clip) == (True, None)
    assert len(fd.extractor_sha256) == 64
    assert (fd.generated_count, fd.reference_count, fd.reference_split) == (16, 16, "train")
    assert "224 px" in fd.resize
    assert (r_precision.independent, r_precision.settings) == (False, {"candidates": 5})
    assert r_precision.clip == CLIP
    assert r_precision.extractor == "training CLIP tiny"
    concepts = values["concept_accuracy"].protocol
    assert (concepts.generated_count, concepts.settings) == (12, {"concepts": 6})


def test_progress_counts_what_the_benchmark_announces(images: Path) -> None:
    config = config_with()
    seen: list[int] = []
    benchmark = build(images, config)
    evaluator = evaluator_of(benchmark, config, advance=seen.append)
    evaluator.measure(draw_prompts)
    evaluator.measure_real()
    assert sum(seen) == benchmark.count_images(config, 1)


@pytest.mark.parametrize(
    ("generate", "reason"),
    [
        (lambda prompts: draw_prompts(prompts)[:-1], r"gave \(15, 3, 16, 16\).*\(16, 3, 16, 16\)"),
        (lambda prompts: draw_prompts(prompts)[..., :8], r"\(16, 3, 16, 8\)"),
        (lambda prompts: draw_prompts(prompts).float(), "torch.float32"),
        (lambda prompts: draw_prompts(prompts[:1] * len(prompts)), "all 16 images look the same"),
    ],
)
def test_damaged_output_of_a_generator_is_refused(
    evaluator: Evaluator, generate: Callable[[Sequence[str]], Tensor], reason: str
) -> None:
    with pytest.raises(EvaluationError, match=reason):
        evaluator.measure(generate)


def test_metrics_the_data_are_too_few_for_are_skipped_with_the_reason(images: Path) -> None:
    config = config_with(
        num_concepts=9, retrieval_candidates=9, kid_subset_size=17, neighbourhood=16
    )
    benchmark = build(images, config)
    assert "num_concepts = 9" in benchmark.skipped["concept_accuracy"]
    assert "retrieval_candidates = 9" in benchmark.skipped["r_precision"]
    assert "kid_subset_size = 17" in benchmark.skipped["kid_efficientnet_lite0"]
    assert "neighbourhood = 16" in benchmark.skipped["recall_efficientnet_lite0"]
    assert benchmark.skipped["fid"] == "evaluate.inception is off"
    values = evaluator_of(benchmark, config).measure(draw_prompts)
    assert set(values) == {"fd_efficientnet_lite0", "clip_score"}


def test_few_images_for_the_dimensions_are_warned_about(images: Path) -> None:
    (warning,) = build(images, config_with()).warnings
    assert "16 images in 1,280 dimensions" in warning
    assert "kid_efficientnet_lite0" in warning


def test_ceiling_without_another_style_is_absent_with_the_reason(tmp_path: Path) -> None:
    plain = [Drawing(concept, [concept]) for concept in CONCEPTS]
    benchmark = build(build_images(tmp_path / "images", plain, SIDE), config_with())
    assert "'plain'" in benchmark.skipped["concept_accuracy_ceiling"]
    assert not benchmark.other_styles


def test_without_captions_the_distances_are_still_measured(tmp_path: Path) -> None:
    uncaptioned = [Drawing(concept, []) for concept in CONCEPTS]
    config = config_with(kid_subset_size=6)
    benchmark = build(build_images(tmp_path / "images", uncaptioned, SIDE), config)
    evaluator = evaluator_of(benchmark, config)
    values = evaluator.measure(draw_prompts)
    assert set(values) == {
        f"{metric}_efficientnet_lite0" for metric in ("fd", "kid", "precision", "recall")
    }
    assert "image features" in values["fd_efficientnet_lite0"].protocol.captions
    assert {"clip_score", "r_precision", "concept_accuracy"} <= set(benchmark.skipped)
    assert evaluator.measure_real() == {}
