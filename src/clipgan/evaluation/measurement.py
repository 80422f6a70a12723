"""All metrics of a generator under one protocol; each network looks at each image once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipgan.config import EvaluateConfig
from clipgan.evaluation.benchmark import Benchmark
from clipgan.evaluation.clip_metrics import (
    ClipJudge,
    EncodeTexts,
    TextImageModel,
    build_training_model,
    find_judge_clip,
)
from clipgan.evaluation.concept_judge import GALLERY_CAPTION_CHOICE, ConceptJudge
from clipgan.evaluation.extraction import FeatureCollector
from clipgan.evaluation.feature_spaces import FeatureSpace, TrainingClip
from clipgan.evaluation.findings import Findings, pick_nearest, pick_worst
from clipgan.evaluation.image_store import ImageStore, open_image_store
from clipgan.evaluation.memorisation import NearestTraining, find_nearest_training
from clipgan.evaluation.object_judge import ObjectJudge, find_object_judge
from clipgan.evaluation.path_length import GenerateFloat, compute_path_lengths
from clipgan.evaluation.prompt_judge import PromptJudge
from clipgan.evaluation.records import Recorder
from clipgan.evaluation.reference_cache import FeatureCache
from clipgan.evaluation.references import RealSide
from clipgan.evaluation.report.pictures import NearestPair
from clipgan.evaluation.space_metrics import Measured
from clipgan.metrics.grouping import Grouping
from clipgan.metrics.values import MetricValue

PATH_LENGTH_BATCH = 8
INDEPENDENT_SCORE = "clip_score_independent"


@dataclass(frozen=True)
class LatentAccess:
    """A generator from inside: text features of conditions, and images of any latents."""

    generate: GenerateFloat
    encode_texts: Callable[[Sequence[str]], Tensor]
    latent_dim: int


@dataclass(frozen=True)
class ImageSource:
    """A generator as the evaluator sees it.

    Attributes:
        generate: conditions (see ReferenceChoice) -> batches of (n, 3, R, R) uint8, as many images
            in all, image i from latent i.
        latents: None where it cannot be looked into.
    """

    generate: Callable[[Sequence[str]], Iterable[Tensor]]
    latents: LatentAccess | None = None


class Evaluator:
    """Measures generators, and real images in their place, on one benchmark.

    Everything about the real images is extracted, or found in the cache, when it is built.

    Args:
        clip: the CLIP the generators were trained against.
        encode_texts: conditions -> its features (N, D) float32, unit norm.
        cache: of features of real images.
        advance: counts the images generated.

    Attributes:
        skipped: metric -> one line why it cannot be measured here.
        warnings: what to know before reading the values.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        benchmark: Benchmark,
        *,
        clip: TrainingClip,
        encode_texts: EncodeTexts,
        device: torch.device,
        cache: FeatureCache,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.config, self.benchmark, self.device = config, benchmark, device
        self.advance = advance
        self._real = RealSide(config, benchmark, clip, cache, device)
        self.skipped = {**benchmark.skipped, **self._real.skipped}
        self.warnings = self._real.warnings
        sha256 = clip.fingerprint.get("weights_sha256", "")
        self._recorder = Recorder(benchmark, config.confidence, sha256)
        self._models = self._find_models(clip, encode_texts)
        self._clips = self._build_clips()
        self._prompts = self._build_prompts()
        self._concepts = self._build_concepts()
        self._objects = self._find_objects()
        self._training = self._find_training()
        self._grouping = self._group(benchmark.choice.condition_rows)

    def measure(self, source: ImageSource) -> Findings:
        """Generate for the benchmark's captions and concepts, and compute every metric.

        Raises:
            EvaluationError: ``source`` gave another number of images or another size, all its
                images are the same, or a feature is NaN.
        """
        choice = self.benchmark.choice
        judges = self._real.judges
        takers = [self._collect(judge.space, judge.protocol.blur_radii_px) for judge in judges]
        clip_takers = [self._collect(judge.model.space) for judge in self._clips]
        with open_image_store(len(choice.conditions), self.benchmark.resolution_px) as images:
            for batch in images.fill(source.generate(choice.conditions)):
                for taker in (*takers, *clip_takers):
                    taker.add(batch)
                for objects in self._objects:
                    objects.add(batch)
                self.advance(len(batch))
            features = [taker.collect("generated images") for taker in takers]
            values: dict[str, MetricValue] = {}
            for judge, found in zip(judges, features, strict=True):
                measured = judge.measure(found, self._grouping)
                values |= self._recorder.record(measured, judge.space)
            encoded = [taker.collect("generated images").plain for taker in clip_takers]
            clip_values, scores = self._measure_clips(encoded)
            values |= clip_values
            for objects in self._objects:
                values |= self._recorder.record(objects.measure(self._grouping), objects.space)
            nearest = self._search(features[0].plain) if self._training is not None else None
            values |= self._record_memorised(nearest)
            values |= self._measure_concepts(source)
            values |= self._measure_prompts(source)
            values |= self._measure_path_length(source.latents)
            return Findings(
                values,
                pick_worst(choice.conditions, scores, images, self.config.worst_captions),
                self._pick_nearest(nearest, images),
            )

    def measure_real(self) -> dict[str, MetricValue]:
        """The same for real images: what their own captions and another style reach."""
        choice, gallery = self.benchmark.choice, self.benchmark.gallery
        if not choice.has_captions:
            return {}
        encoded = [
            self._real.encode_captions(choice.condition_rows, judge.model.space)
            for judge in self._clips
        ]
        values, _ = self._measure_clips(encoded)
        for judge in self._concepts:
            for style, pairs in gallery.other_styles.items() if gallery else ():
                features = self._real.encode_captions([row for _, row in pairs], judge.space)
                found = judge.measure_ceiling(style, features, [place for place, _ in pairs])
                values |= self._record_concepts(found, judge.space, len(pairs))
        return values

    def count_generated(self) -> int:
        """Images one generator will make, for the progress bar."""
        concepts = sum(len(judge.prompts) for judge in self._concepts)
        prompts = 0 if self._prompts is None else len(self._prompts.prompts)
        return len(self.benchmark.choice.conditions) + concepts + prompts

    def _find_models(self, clip: TrainingClip, encode_texts: EncodeTexts) -> list[TextImageModel]:
        """The CLIPs that judge texts; none where there are neither captions nor prompts."""
        if not (self.benchmark.choice.has_captions or self.benchmark.prompts):
            return []
        models = [build_training_model(clip, encode_texts)]
        found = find_judge_clip(
            self.config.judge_clip_model, self.config.judge_clip_weights, clip, self.device
        )
        if isinstance(found, str):
            self.skipped[INDEPENDENT_SCORE] = found
        else:
            models.append(found)
        return models

    def _build_clips(self) -> list[ClipJudge]:
        choice, candidates = self.benchmark.choice, self.benchmark.candidates
        if not choice.has_captions:
            return []
        return [ClipJudge(model, choice.conditions, candidates) for model in self._models]

    def _build_prompts(self) -> PromptJudge | None:
        if not self.benchmark.prompts:
            return None
        return PromptJudge(
            self.benchmark.prompts,
            samples_per_prompt=self.config.samples_per_concept,
            num_groups=self.config.interval_groups,
            seed=self.benchmark.protocol.seed,
        )

    def _build_concepts(self) -> list[ConceptJudge]:
        gallery, space = self.benchmark.gallery, self._real.main_space
        if gallery is None or space is None:
            return []
        judge = ConceptJudge(
            gallery,
            self._real.encode_captions(gallery.rows, space),
            space,
            samples_per_concept=self.config.samples_per_concept,
            num_groups=self.config.interval_groups,
            seed=self.benchmark.protocol.seed,
        )
        return [judge]

    def _find_objects(self) -> list[ObjectJudge]:
        if not self.benchmark.choice.has_captions:
            return []
        found = find_object_judge(self.benchmark.choice.conditions, self.device)
        if isinstance(found, str):
            self.skipped["soa"] = found
            return []
        return [found]

    def _find_training(self) -> Tensor | None:
        space = self._real.main_space
        if self.benchmark.training is None or space is None:
            return None
        return self._real.encode_training(space)

    def _search(self, features: Tensor) -> NearestTraining | None:
        assert self._training is not None
        return find_nearest_training(features, self._training)

    def _record_memorised(self, nearest: NearestTraining | None) -> dict[str, MetricValue]:
        space, training = self._real.main_space, self.benchmark.training
        if nearest is None or space is None or training is None:
            return {}
        measured = Measured(self._grouping.average(nearest.memorised), {})
        return self._recorder.record(
            {space.name_metric("memorised_share"): measured},
            space,
            reference_split=training.split,
            reference="all images of the split",
            reference_count=len(training.sample_ids),
        )

    def _pick_nearest(
        self, nearest: NearestTraining | None, images: ImageStore
    ) -> tuple[NearestPair, ...]:
        training = self.benchmark.training
        return pick_nearest(
            self.benchmark.choice.conditions,
            nearest,
            images,
            load_training=self._real.load_training,
            sample_ids=[] if training is None else training.sample_ids,
            count=self.config.nearest_pictures,
        )

    def _measure_clips(self, encoded: Sequence[Tensor]) -> tuple[dict[str, MetricValue], Tensor]:
        """Values of every CLIP, and the scores of the last: the independent one where there is."""
        values: dict[str, MetricValue] = {}
        scores = torch.empty(0)
        for judge, features in zip(self._clips, encoded, strict=True):
            measured, scores = judge.measure(features, self._grouping)
            values |= self._recorder.record(measured, judge.model.space)
        return values, scores

    def _measure_concepts(self, source: ImageSource) -> dict[str, MetricValue]:
        values: dict[str, MetricValue] = {}
        for judge in self._concepts:
            (features,) = self._generate_features(source, judge.prompts, [judge.space])
            found = judge.measure(features)
            values |= self._record_concepts(found, judge.space, len(judge.prompts))
        return values

    def _measure_prompts(self, source: ImageSource) -> dict[str, MetricValue]:
        """Text metrics of images made for prompts, where no image has a caption."""
        judge, main = self._prompts, self._real.main_space
        if judge is None:
            return {}
        spaces = [*(model.space for model in self._models), *([main] if main else [])]
        features = self._generate_features(source, judge.prompts, spaces)
        changes = {"generated_count": len(judge.prompts), "captions": judge.captions}
        values: dict[str, MetricValue] = {}
        # The main space is the last, if there is one.
        for model, found in zip(self._models, features, strict=False):
            measured = judge.measure_text(model, found)
            values |= self._recorder.record(measured, model.space, **changes)
        if main is not None:
            measured = judge.measure_diversity(main, features[-1])
            values |= self._recorder.record(measured, main, **changes)
        return values

    def _generate_features(
        self, source: ImageSource, prompts: Sequence[str], spaces: Sequence[FeatureSpace]
    ) -> list[Tensor]:
        """Features of an image of each prompt, in each space."""
        takers = [self._collect(space) for space in spaces]
        with open_image_store(len(prompts), self.benchmark.resolution_px) as images:
            for batch in images.fill(source.generate(prompts)):
                for taker in takers:
                    taker.add(batch)
                self.advance(len(batch))
        return [taker.collect("generated images").plain for taker in takers]

    def _record_concepts(
        self, found: dict[str, Measured], space: FeatureSpace, count: int
    ) -> dict[str, MetricValue]:
        gallery = self.benchmark.gallery
        return self._recorder.record(
            found,
            space,
            reference_count=len(gallery.rows) if gallery else 0,
            generated_count=count,
            captions=GALLERY_CAPTION_CHOICE,
        )

    def _measure_path_length(self, latents: LatentAccess | None) -> dict[str, MetricValue]:
        space, choice = self._real.main_space, self.benchmark.choice
        count = min(self.config.path_length_samples, len(choice.conditions))
        if latents is None or space is None or space.encode_float is None or not count:
            return {}
        lengths = compute_path_lengths(
            latents.generate,
            latents.encode_texts(choice.conditions[:count]),
            latent_dim=latents.latent_dim,
            encode=space.encode_float,
            epsilon=self.config.path_length_epsilon,
            seed=self.benchmark.protocol.seed,
            batch_size=PATH_LENGTH_BATCH,
        )
        settings = {"steps_per_latent": round(1 / self.config.path_length_epsilon)}
        grouping = self._group(choice.condition_rows[:count])
        measured = Measured(grouping.average(lengths), settings)
        name = space.name_metric("path_length")
        return self._recorder.record({name: measured}, space, generated_count=2 * count)

    def _collect(self, space: FeatureSpace, radii: Sequence[int] = ()) -> FeatureCollector:
        return FeatureCollector(space, radii, batch_size=self.config.batch_size, device=self.device)

    def _group(self, condition_rows: Sequence[int]) -> Grouping:
        return Grouping(
            len(condition_rows),
            self.config.interval_groups,
            self.benchmark.protocol.seed,
            sources=condition_rows,
        )
