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
from clipgan.evaluation.metrics.inputs import LatentAccess
from clipgan.evaluation.spaces.feature_spaces import TrainingClip
from clipgan.evaluation.study.benchmark import Benchmark, build_benchmark
from clipgan.evaluation.study.driver import Driver, ImageSource
from clipgan.evaluation.study.protocols import find_protocol
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.evaluation.study.shard_study import ShardStudyBuilder
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
    "evaluate.feature_spaces": [],
    "evaluate.path_length_samples": 4,
    "evaluate.interval_groups": 4,
    "evaluate.nearest_pictures": 3,
    "evaluate.worst_captions": 2,
}


def config_with(**changes: Any) -> EvaluateConfig:
    return params_with(CHANGES | {f"evaluate.{k}": v for k, v in changes.items()}).evaluate


def build(images: Path, config: EvaluateConfig, protocol: str = "fd-offline") -> Benchmark:
    return build_benchmark(config, find_protocol(protocol, config), images, SIDE)


def driver_of(
    benchmark: Benchmark, config: EvaluateConfig, *, cache: Path | None = None, **changes: Any
) -> Driver:
    builder = ShardStudyBuilder(
        config,
        benchmark,
        clip=TrainingClip(encode_images, CLIP),
        encode_texts=encode_texts,
        device=torch.device("cpu"),
        cache=FeatureCache(cache),
    )
    return Driver(builder.build(), **changes)


def encode_texts(texts: Sequence[str]) -> Tensor:
    return encode_images(to_unit_range(draw_prompts(texts)))


def source_of(generate: Callable[[Sequence[str]], Tensor]) -> ImageSource:
    """A generator whose images come in batches of five."""
    return ImageSource(lambda prompts: iter(torch.split(generate(prompts), 5)))


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
def driver(images: Path) -> Driver:
    config = config_with()
    return driver_of(build(images, config), config)


PERFECT = source_of(draw_prompts)


def test_the_real_images_in_the_generators_place_score_best(driver: Driver) -> None:
    found = driver.measure(PERFECT)
    values = {name: value.value for name, value in found.values.items()}
    space = ("fd", "kid", "precision", "recall", "density", "coverage", "memorised_share")
    assert set(values) == {
        *(f"{metric}_efficientnet_lite0" for metric in (*space, "caption_diversity")),
        "clip_score",
        "r_precision",
        "concept_accuracy",
    }
    assert values["concept_accuracy"] == 1.0
    assert values["r_precision"] == 1.0
    assert values["clip_score"] == pytest.approx(1.0)
    assert values["precision_efficientnet_lite0"] == 1.0
    assert values["recall_efficientnet_lite0"] == 1.0
    assert values["coverage_efficientnet_lite0"] == 1.0
    assert values["fd_efficientnet_lite0"] == pytest.approx(0.0, abs=1e-2)
    # One drawing a caption: no diversity.
    assert values["caption_diversity_efficientnet_lite0"] == pytest.approx(0.0, abs=1e-6)
    # The other style has the same pixels here, so its ceiling is the full score.
    real = driver.measure_real()
    assert real["concept_accuracy_ceiling_bold"].value == 1.0
    assert real["caption_diversity_efficientnet_lite0"].value == pytest.approx(0.0, abs=1e-6)
    assert real["clip_score"].value == pytest.approx(values["clip_score"])


def test_worse_images_score_worse(driver: Driver) -> None:
    def shuffle(prompts: Sequence[str]) -> Tensor:
        noise = torch.randint(0, 64, (len(prompts), 3, SIDE, SIDE), dtype=torch.uint8)
        return draw_prompts([*prompts[1:], prompts[0]]) // 4 + noise

    good = driver.measure(PERFECT).values
    bad = driver.measure(source_of(shuffle)).values
    assert bad["fd_efficientnet_lite0"].value > good["fd_efficientnet_lite0"].value + 1
    assert bad["kid_efficientnet_lite0"].value > good["kid_efficientnet_lite0"].value
    assert bad["concept_accuracy"].value < 0.6
    assert bad["caption_diversity_efficientnet_lite0"].value > 1e-3


def test_every_value_has_an_interval_around_it(driver: Driver) -> None:
    for name, value in {**driver.measure(PERFECT).values, **driver.measure_real()}.items():
        assert value.interval is not None, name
        assert value.interval.low <= value.value <= value.interval.high
        assert value.interval.confidence == 0.95
        assert len(value.leave_out) >= 2


def test_protocols_name_the_feature_extractor(driver: Driver) -> None:
    values = driver.measure(PERFECT).values
    fd, r_precision = values["fd_efficientnet_lite0"].protocol, values["r_precision"].protocol
    assert fd.name == "fd-offline"
    assert (fd.independent, fd.clip) == (True, None)
    assert len(fd.extractor_sha256) == 64
    assert (fd.generated_count, fd.reference_count, fd.reference_split) == (16, 16, "train")
    assert "224 px" in fd.resize
    assert (r_precision.independent, r_precision.settings) == (False, {"candidates": 5})
    assert r_precision.clip == CLIP
    assert r_precision.extractor == "CLIP tiny"
    concepts = values["concept_accuracy"].protocol
    assert (concepts.generated_count, concepts.settings) == (12, {"concepts": 6})


def test_pictures_worth_looking_at_come_along(driver: Driver) -> None:
    found = driver.measure(PERFECT)
    assert [pair.distance for pair in found.nearest] == [0.0] * 3
    assert all(torch.equal(pair.generated, pair.training) for pair in found.nearest)
    assert len(found.worst) == 2
    assert found.worst[0].score <= found.worst[1].score
    drawn = draw_prompts([found.worst[0].caption])[0]
    assert torch.equal(found.worst[0].image, drawn)


def test_progress_counts_what_the_driver_announces(images: Path) -> None:
    config = config_with()
    seen: list[int] = []
    driver = driver_of(build(images, config), config, advance=seen.append)
    driver.measure(PERFECT)
    assert sum(seen) == driver.count_generated()


def test_a_second_evaluation_does_not_touch_the_real_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(nearest_pictures=3)
    benchmark = build(images, config)
    first = driver_of(benchmark, config, cache=tmp_path)
    found, real = first.measure(PERFECT), first.measure_real()
    monkeypatch.setattr("clipgan.data.decoding.decode_image", refuse_to_decode)
    second = driver_of(benchmark, config, cache=tmp_path)
    again = second.measure(PERFECT)
    assert again.values == found.values
    assert len(again.nearest) == 3
    for pair, before in zip(again.nearest, found.nearest, strict=True):
        assert torch.equal(pair.training, before.training)
    assert second.measure_real() == real
    with pytest.raises(AssertionError, match="decoded"):
        driver_of(benchmark, config, cache=None)


def refuse_to_decode(data: bytes) -> None:
    raise AssertionError("a real image was decoded")


def test_path_length_sees_the_latents_and_holds_the_captions(driver: Driver) -> None:
    texts_seen: list[Tensor] = []
    direction = torch.randn(8, 3 * SIDE * SIDE, generator=torch.Generator().manual_seed(0))

    def generate(latents: Tensor, texts: Tensor) -> Tensor:
        texts_seen.append(texts)
        return torch.tanh(latents @ direction).view(-1, 3, SIDE, SIDE)

    def stand_still(latents: Tensor, texts: Tensor) -> Tensor:
        return torch.tanh(direction[:1]).view(1, 3, SIDE, SIDE).expand(len(latents), -1, -1, -1)

    lengths = []
    for function in (generate, stand_still):
        access = LatentAccess(function, encode_texts, latent_dim=8)
        source = ImageSource(PERFECT.generate, access)
        lengths.append(driver.measure(source).values["path_length_efficientnet_lite0"])
    assert lengths[0].value > 0.0
    assert lengths[1].value == 0.0
    assert lengths[0].protocol.generated_count == 8
    expected = encode_texts(driver.study.conditions[:4])
    torch.testing.assert_close(texts_seen[0], torch.cat([expected, expected]))


@pytest.mark.parametrize(
    ("generate", "reason"),
    [
        (lambda prompts: draw_prompts(prompts)[:-1], r"made \(15, 3, 16, 16\).*\(16, 3, 16, 16\)"),
        (lambda prompts: draw_prompts([*prompts, "a"]), r"made \(17, 3, 16, 16\)"),
        (lambda prompts: draw_prompts(prompts)[..., :8], r"\(5, 3, 16, 8\)"),
        (lambda prompts: draw_prompts(prompts).float(), "torch.float32"),
        (lambda prompts: draw_prompts(prompts[:1] * len(prompts)), "all 16 images look the same"),
    ],
)
def test_damaged_output_of_a_generator_is_refused(
    driver: Driver, generate: Callable[[Sequence[str]], Tensor], reason: str
) -> None:
    with pytest.raises(EvaluationError, match=reason):
        driver.measure(source_of(generate))


def test_metrics_the_data_are_too_few_for_are_skipped_with_the_reason(images: Path) -> None:
    config = config_with(
        num_concepts=9,
        retrieval_candidates=9,
        neighbourhood=16,
        feature_spaces=["inception-tf", "timm:resnet18"],
    )
    driver = driver_of(build(images, config), config)
    values = driver.measure(PERFECT).values
    skipped = driver.skipped
    assert "num_concepts = 9" in skipped["concept_accuracy"]
    assert "retrieval_candidates = 9" in skipped["r_precision"]
    assert "neighbourhood = 16" in skipped["recall_efficientnet_lite0"]
    assert "https://" in skipped["fid"]
    assert "timm:resnet18:FILE" in skipped["fd_resnet18"]
    assert "judge_clip_model is none" in skipped["clip_score_independent"]
    assert set(values) == {
        "fd_efficientnet_lite0",
        "kid_efficientnet_lite0",
        "memorised_share_efficientnet_lite0",
        "clip_score",
    }


def test_reals_of_another_size_than_the_generators(images: Path) -> None:
    custom = {"name": "half", "based_on": "fd-offline", "reference_px": SIDE // 2}
    config = config_with(custom_protocols=[custom])
    benchmark = build_benchmark(config, find_protocol("half", config), images, SIDE)
    found = driver_of(benchmark, config).measure(PERFECT)
    fd = found.values["fd_efficientnet_lite0"]
    assert f"Lanczos to {SIDE // 2} px" in fd.protocol.resize
    assert fd.value > 1.0, "blurred reals are not the images that were drawn"
    assert found.nearest[0].training.shape == found.nearest[0].generated.shape


def test_few_images_for_the_dimensions_are_warned_about(images: Path) -> None:
    config = config_with()
    (warning,) = driver_of(build(images, config), config).study.warnings
    assert "16 images in 1,280 dimensions" in warning
    assert "kid_efficientnet_lite0" in warning


def test_ceiling_without_another_style_is_absent_with_the_reason(tmp_path: Path) -> None:
    plain = [Drawing(concept, [concept]) for concept in CONCEPTS]
    benchmark = build(build_images(tmp_path / "images", plain, SIDE), config_with())
    assert "second real image" in benchmark.skipped["concept_accuracy_ceiling"]
    assert "of 6 concepts 0 come in more" in benchmark.skipped["caption_diversity_real"]


def test_without_captions_the_distances_are_still_measured(tmp_path: Path) -> None:
    uncaptioned = [Drawing(concept, []) for concept in CONCEPTS]
    config = config_with()
    benchmark = build(build_images(tmp_path / "images", uncaptioned, SIDE), config)
    driver = driver_of(benchmark, config)
    # A condition is a sample id here: "0003" stands for the fourth image.
    draw_images = source_of(lambda ids: draw_prompts([CONCEPTS[int(number)] for number in ids]))
    found = driver.measure(draw_images)
    space = ("fd", "kid", "precision", "recall", "density", "coverage", "memorised_share")
    assert set(found.values) == {f"{metric}_efficientnet_lite0" for metric in space}
    assert found.worst == ()
    assert "image features" in found.values["fd_efficientnet_lite0"].protocol.captions
    assert {"clip_score", "r_precision", "concept_accuracy"} <= set(driver.skipped)
    assert driver.measure_real() == {}


def test_whole_and_mirrored_references_and_blurs(images: Path) -> None:
    custom = {
        "name": "mine",
        "based_on": "fid30k-train-lafite",
        "spaces": ["efficientnet-lite0"],
        "captions_split": "train",
        "num_generated": 12,
        "blur_radii_px": [1, 8],
    }
    config = config_with(custom_protocols=[custom])
    driver = driver_of(build(images, config, "mine"), config)
    values = driver.measure(PERFECT).values
    protocol = values["fd_efficientnet_lite0"].protocol
    assert (protocol.generated_count, protocol.reference_count) == (12, 2 * 16)
    assert protocol.name == "mine"
    assert "mirrored" in protocol.reference
    blurred = [values[f"fd_efficientnet_lite0_blur{radius}"] for radius in (1, 8)]
    assert [value.protocol.settings for value in blurred] == [
        {"blur_radius_px": 1},
        {"blur_radius_px": 8},
    ]
    assert "concept_accuracy" not in values
