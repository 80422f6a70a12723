"""Measurement of several generators under several protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clipgan.config import EvaluateConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.metrics.inputs import LatentAccess
from clipgan.evaluation.report.pictures import Pictures
from clipgan.evaluation.spaces.feature_spaces import TrainingClip
from clipgan.evaluation.study.benchmark import Benchmark, build_benchmark
from clipgan.evaluation.study.driver import Driver, ImageSource
from clipgan.evaluation.study.findings import StudyResults
from clipgan.evaluation.study.protocols import EvaluationProtocol, key_metric
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.evaluation.study.shard_study import ShardStudyBuilder
from clipgan.generation.styles import draw_latents
from clipgan.images import resize, to_uint8
from clipgan.metrics.comparison import REAL
from clipgan.metrics.values import MetricValue
from clipgan.models.bundle import GeneratorBundle
from clipgan.progress import progress_bar
from clipgan.stages.stored_features import FindConditions

CPU_BATCH = 8
"""Batch of the generator on the CPU, where an image of 64 px takes 37 ms; with 64 it takes 43."""


@dataclass(frozen=True)
class ModelUnderTest:
    """A generator and the CLIP it was trained against.

    Attributes:
        encode_texts: captions or sample ids -> features (N, D) of the CLIP, for text metrics.
        find_conditions: the same -> (N, D), as this generator takes them.
        enlarged_px: side to which its images are enlarged; None: the generator's own.
    """

    bundle: GeneratorBundle
    clip: TrainingClip
    encode_texts: Callable[[Sequence[str]], Tensor]
    find_conditions: FindConditions
    enlarged_px: int | None = None

    @property
    def side_px(self) -> int:
        """Side of the images that are measured."""
        return self.enlarged_px or self.bundle.info.resolution_px


class GeneratorUnderTest:
    """Generates images in batches; latent i of the seed makes image i.

    Args:
        bundle: its generator is moved to ``device``.
        find_conditions: captions or sample ids -> (N, D), as the generator takes them.
        batch_size: the largest batch.
        side_px: of the images; smaller ones are enlarged (bicubic).
    """

    def __init__(
        self,
        bundle: GeneratorBundle,
        find_conditions: FindConditions,
        *,
        seed: int,
        truncation: float,
        batch_size: int,
        side_px: int,
        device: torch.device,
    ) -> None:
        bundle.generator.to(device).eval()
        self._bundle = bundle
        self._find_conditions, self._device = find_conditions, device
        self._seed, self._truncation, self._side_px = seed, truncation, side_px
        self._batch_size = min(batch_size, CPU_BATCH) if device.type == "cpu" else batch_size

    @property
    def source(self) -> ImageSource:
        """The generator as :meth:`Driver.measure` takes it."""
        latents = LatentAccess(self._generate_float, self._find_conditions, self._bundle.latent_dim)
        return ImageSource(self.generate, latents)

    def generate(self, conditions: Sequence[str]) -> Iterator[Tensor]:
        """Generate batches of (n, 3, R, R) uint8, each image from a latent of its own."""
        latents = draw_latents(self._seed, len(conditions), self._bundle.latent_dim)
        return self._run(conditions, latents)

    def generate_grid(self, prompts: Sequence[str], columns: int) -> Tensor:
        """Generate (prompts, columns, 3, R, R) uint8; all images in a column share their latent."""
        latents = draw_latents(self._seed, columns, self._bundle.latent_dim)
        repeated = [prompt for prompt in prompts for _ in range(columns)]
        images = torch.cat(list(self._run(repeated, latents.repeat(len(prompts), 1))))
        return images.view(len(prompts), columns, *images.shape[1:])

    def _run(self, conditions: Sequence[str], latents: Tensor) -> Iterator[Tensor]:
        texts = self._find_conditions(conditions)
        size = self._batch_size
        for z, text in zip(torch.split(latents, size), torch.split(texts, size), strict=True):
            yield to_uint8(self._generate_float(z, text)).cpu()

    @torch.inference_mode()
    def _generate_float(self, latents: Tensor, texts: Tensor) -> Tensor:
        images = self._bundle.generate(
            latents.to(self._device), texts.to(self._device), truncation=self._truncation
        )
        return resize(images, self._side_px)


@dataclass
class Measurements:
    """Values of every model under every protocol, and pictures of the first protocol.

    Models are measured on the same captions, latents and groups, so that their values can be
    compared in pairs. Models with the same CLIP share one study. ``texts`` are the prompts of the
    pictures; there are none where images take the place of prompts.
    """

    config: EvaluateConfig
    images: Path
    models: Mapping[str, ModelUnderTest]
    device: torch.device
    cache: FeatureCache
    values: dict[str, dict[str, MetricValue]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    pictures: Pictures | None = None
    texts: tuple[str, ...] = ()

    def measure(self, protocol: EvaluationProtocol) -> None:
        """Measure every model, and real images in their place, under one more protocol.

        Raises:
            EvaluationError: the models' images differ in size, or see :class:`Driver`.
        """
        benchmark = build_benchmark(self.config, protocol, self.images, self._find_resolution())
        drivers: dict[int, Driver] = {}
        for model in self.models.values():
            if id(model.clip) not in drivers:
                drivers[id(model.clip)] = self._build_driver(model, benchmark)
        is_first = self.pictures is None
        prompts = _choose_prompts(self.config, benchmark)
        grids: dict[str, Tensor] = {}
        all_results: dict[str, StudyResults] = {}
        first = next(iter(drivers.values()))
        total = first.count_generated() * len(self.models)
        with progress_bar(f"evaluate {protocol.name}", total, "images") as bar:
            for name, model in self.models.items():
                driver = drivers[id(model.clip)]
                driver.advance = bar.advance
                generator = GeneratorUnderTest(
                    model.bundle,
                    model.find_conditions,
                    seed=protocol.seed,
                    truncation=protocol.truncation,
                    batch_size=self.config.batch_size,
                    side_px=model.side_px,
                    device=self.device,
                )
                results = driver.measure(generator.source)
                self._keep(name, protocol, results.values)
                if is_first:
                    all_results[name] = results
                    grids[name] = generator.generate_grid(prompts, self.config.grid_samples)
        if is_first:
            self.pictures = Pictures(
                prompts,
                grids,
                worst={name: results.worst for name, results in all_results.items()},
                nearest={name: results.nearest for name, results in all_results.items()},
            )
            if benchmark.choice.has_captions or benchmark.prompts:
                self.texts = tuple(prompts)
        if real := first.measure_real():
            self._keep(REAL, protocol, real)
        for driver in drivers.values():
            for metric, reason in driver.skipped.items():
                self.skipped[key_metric(protocol.name, metric)] = reason
            self.warnings += [w for w in driver.study.warnings if w not in self.warnings]

    def _build_driver(self, model: ModelUnderTest, benchmark: Benchmark) -> Driver:
        builder = ShardStudyBuilder(
            self.config,
            benchmark,
            clip=model.clip,
            encode_texts=model.encode_texts,
            device=self.device,
            cache=self.cache,
        )
        return Driver(builder.build())

    def _keep(
        self, section: str, protocol: EvaluationProtocol, values: Mapping[str, MetricValue]
    ) -> None:
        kept = self.values.setdefault(section, {})
        kept |= {key_metric(protocol.name, metric): value for metric, value in values.items()}

    def _find_resolution(self) -> int:
        sides = {name: model.side_px for name, model in self.models.items()}
        if len(set(sides.values())) > 1:
            listed = ", ".join(f"{name} {side} px" for name, side in sides.items())
            raise EvaluationError(
                f"models of different sizes cannot share a reference: {listed}; compare models of "
                "one size"
            )
        return next(iter(sides.values()))


def _choose_prompts(config: EvaluateConfig, benchmark: Benchmark) -> list[str]:
    """Choose different prompts: names of concepts, else prompts of the data, else conditions."""
    names = benchmark.gallery.prompts if benchmark.gallery else benchmark.prompts
    names = names or benchmark.choice.conditions
    return list(dict.fromkeys(names))[: config.grid_prompts]
