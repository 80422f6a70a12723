"""All metrics of a generator against one reference; each feature is extracted once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clipgan.config import EvaluateConfig
from clipgan.errors import EvaluationError
from clipgan.evaluation.benchmark import Benchmark
from clipgan.evaluation.concept_accuracy import compute_concept_accuracy, repeat_concepts
from clipgan.evaluation.distances import (
    compute_frechet_distance,
    compute_kernel_distance,
    compute_precision_recall,
)
from clipgan.evaluation.extractors import (
    JUDGE_LAYER,
    JUDGE_NAME,
    JUDGE_RESIZE,
    build_judge,
    extract_features,
)
from clipgan.evaluation.inception import (
    INCEPTION_EXTRACTOR,
    INCEPTION_LAYER,
    INCEPTION_RESIZE,
    compute_inception_fid,
)
from clipgan.evaluation.protocol import MetricValue, Protocol, build_value
from clipgan.evaluation.reference import CAPTION_CHOICE, NO_CAPTIONS_CHOICE
from clipgan.evaluation.retrieval import compute_clip_scores, compute_r_precision, index_captions
from clipgan.images import to_unit_range

SPACE = "efficientnet_lite0"
GALLERY_CAPTION_CHOICE = "first caption of the gallery image of each concept"

GenerateImages = Callable[[Sequence[str]], Tensor]
"""Conditions (see ReferenceChoice) -> (their number, 3, R, R) uint8, each from its own latent."""


class Evaluator:
    """Measures generators, and real images in their place, on one benchmark.

    The real images' features are extracted when it is built.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        benchmark: Benchmark,
        *,
        encode_images: Callable[[Tensor], Tensor],
        encode_texts: Callable[[Sequence[str]], Tensor],
        clip_fingerprint: dict[str, str],
        device: torch.device,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Args:
            encode_images, encode_texts: the training CLIP's, for CLIP score and R-precision: images
                (N, 3, H, W) in [-1, 1] or conditions -> (N, D) float32, unit norm.
            clip_fingerprint: of that CLIP.
            advance: counts images generated and images judged.
        """
        self.config, self.benchmark, self.device = config, benchmark, device
        self._clip_encode_images = encode_images
        self._clip_fingerprint = dict(clip_fingerprint)
        self._advance = advance
        self._judge = build_judge(device)
        self._reference = self._extract(benchmark.reference_images)
        self._gallery = self._extract(benchmark.gallery_images)
        self._conditions = encode_texts(benchmark.choice.conditions)
        texts, self._candidate_rows = index_captions(benchmark.candidates or [])
        self._candidates = encode_texts(texts) if texts else torch.empty((0, 0))

    def measure(self, generate: GenerateImages) -> dict[str, MetricValue]:
        """Generate for the benchmark's captions and concepts, and compute every metric.

        Raises:
            EvaluationError: ``generate`` gave another number of images or another size, all its
                images are the same, or a feature is NaN.
        """
        images = self._generate(generate, self.benchmark.choice.conditions)
        values = self._measure_distances(images)
        if self.benchmark.choice.has_captions:
            values |= self._measure_with_clip(images)
        gallery = self.benchmark.gallery
        if gallery is not None:
            per_concept = self.config.samples_per_concept
            prompts = [prompt for prompt in gallery.prompts for _ in range(per_concept)]
            features = self._extract(self._generate(generate, prompts))
            concepts = repeat_concepts(len(gallery.prompts), per_concept)
            value = self._judge_concepts("concept_accuracy", features, concepts)
            values[value.protocol.metric] = value
        return values

    def measure_real(self) -> dict[str, MetricValue]:
        """The same for real images: what their own captions and another style reach."""
        if not self.benchmark.choice.has_captions:
            return {}
        values = self._measure_with_clip(self.benchmark.condition_images)
        for style, (images, concepts) in self.benchmark.other_styles.items():
            name = f"concept_accuracy_ceiling_{style}"
            values[name] = self._judge_concepts(name, self._extract(images), concepts)
        return values

    def _generate(self, generate: GenerateImages, prompts: Sequence[str]) -> Tensor:
        images = generate(prompts)
        self._advance(len(images))
        side = self.benchmark.resolution_px
        expected = (len(prompts), 3, side, side)
        if tuple(images.shape) != expected or images.dtype != torch.uint8:
            raise EvaluationError(
                f"the generator gave {tuple(images.shape)} {images.dtype}, {expected} uint8 were "
                "asked for: evaluate needs every sample"
            )
        return images

    def _extract(self, images_uint8: Tensor) -> Tensor:
        if not len(images_uint8):
            return torch.empty((0, 0))
        return extract_features(
            images_uint8,
            self._judge,
            batch_size=self.config.batch_size,
            device=self.device,
            advance=self._advance,
        )

    def _measure_distances(self, images: Tensor) -> dict[str, MetricValue]:
        config, benchmark = self.config, self.benchmark
        features = self._extract(images)
        fd = compute_frechet_distance(features, self._reference)
        values = [build_value(fd, self._judge_protocol(f"fd_{SPACE}"))]
        if f"kid_{SPACE}" not in benchmark.skipped:
            kid = compute_kernel_distance(
                features,
                self._reference,
                subset_size=config.kid_subset_size,
                num_subsets=config.kid_subsets,
                seed=config.seed,
            )
            settings = {"subset_size": config.kid_subset_size, "subsets": config.kid_subsets}
            protocol = self._judge_protocol(f"kid_{SPACE}", settings)
            values.append(build_value(kid.mean, protocol, kid.standard_deviation))
        if f"precision_{SPACE}" not in benchmark.skipped:
            found = compute_precision_recall(
                features, self._reference, neighbourhood=config.neighbourhood
            )
            settings = {"neighbourhood": config.neighbourhood}
            for name in ("precision", "recall"):
                protocol = self._judge_protocol(f"{name}_{SPACE}", settings)
                values.append(build_value(getattr(found, name), protocol))
        if benchmark.inception is not None:
            values.append(self._measure_inception(images))
        return {value.protocol.metric: value for value in values}

    def _measure_inception(self, images: Tensor) -> MetricValue:
        weights = self.benchmark.inception
        assert weights is not None
        fid = compute_inception_fid(
            images,
            self.benchmark.reference_images,
            weights.path,
            batch_size=self.config.batch_size,
            device=self.device,
        )
        protocol = self._judge_protocol("fid").model_copy(
            update={
                "extractor": f"{INCEPTION_EXTRACTOR}/{INCEPTION_LAYER}",
                "extractor_sha256": weights.sha256,
                "resize": INCEPTION_RESIZE,
            }
        )
        return build_value(fid, protocol)

    def _measure_with_clip(self, images: Tensor) -> dict[str, MetricValue]:
        """CLIP score and R-precision, image i against caption i."""
        features = self._encode_images(images)
        scores = compute_clip_scores(features, self._conditions)
        values = [build_value(float(scores.double().mean()), self._clip_protocol("clip_score", {}))]
        if self.benchmark.candidates is not None:
            value = compute_r_precision(features, self._candidates, self._candidate_rows)
            settings = {"candidates": self.config.retrieval_candidates}
            values.append(build_value(value, self._clip_protocol("r_precision", settings)))
        return {value.protocol.metric: value for value in values}

    def _judge_concepts(self, name: str, features: Tensor, concepts: Tensor) -> MetricValue:
        accuracy = compute_concept_accuracy(features, concepts, self._gallery)
        protocol = self._judge_protocol(name, {"concepts": len(self._gallery)}).model_copy(
            update={
                "reference_count": len(self._gallery),
                "generated_count": len(features),
                "captions": GALLERY_CAPTION_CHOICE,
            }
        )
        return build_value(accuracy, protocol)

    def _encode_images(self, images_uint8: Tensor) -> Tensor:
        with torch.inference_mode():
            parts = [
                self._clip_encode_images(to_unit_range(batch.to(self.device))).float().cpu()
                for batch in torch.split(images_uint8, self.config.batch_size)
            ]
        return torch.cat(parts)

    def _judge_protocol(self, metric: str, settings: dict[str, int] | None = None) -> Protocol:
        index, has_captions = self.benchmark.index, self.benchmark.choice.has_captions
        return Protocol(
            metric=metric,
            extractor=f"{JUDGE_NAME}/{JUDGE_LAYER}",
            extractor_sha256=self._judge.weights_sha256,
            independent=True,
            reference_split=index.split,
            reference_count=len(self.benchmark.reference_images),
            reference_fingerprint=index.fingerprint,
            generated_count=self.config.num_generated,
            captions=CAPTION_CHOICE if has_captions else NO_CAPTIONS_CHOICE,
            seed=self.config.seed,
            resize=f"{self.benchmark.resize}, then {JUDGE_RESIZE}",
            truncation=self.config.truncation,
            settings=settings or {},
        )

    def _clip_protocol(self, metric: str, settings: dict[str, int]) -> Protocol:
        fingerprint = self._clip_fingerprint
        return self._judge_protocol(metric, settings).model_copy(
            update={
                "extractor": f"training CLIP {fingerprint.get('model', '')}".rstrip(),
                "extractor_sha256": fingerprint.get("weights_sha256", ""),
                "independent": False,
                "resize": f"{self.benchmark.resize}, then the CLIP's own",
                "clip": fingerprint,
            }
        )
