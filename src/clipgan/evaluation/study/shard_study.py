"""A study of generators, which are compared with real images of the shards on their captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.artifacts import hash_json
from clipgan.config import EvaluateConfig
from clipgan.evaluation.metrics.inputs import CaptionInputs, Inputs, TextInputs
from clipgan.evaluation.metrics.r_precision import index_captions
from clipgan.evaluation.spaces.checks import check_features
from clipgan.evaluation.spaces.feature_spaces import (
    TRAINING_CLIP,
    FeatureSpace,
    TrainingClip,
    describe_clip,
)
from clipgan.evaluation.spaces.text_image import (
    EncodeTexts,
    TextImageModel,
    find_evaluation_clip,
)
from clipgan.evaluation.study.benchmark import Benchmark
from clipgan.evaluation.study.driver import build_text_inputs
from clipgan.evaluation.study.real_images import RealImages
from clipgan.evaluation.study.recorder import Recorder
from clipgan.evaluation.study.reference import CAPTION_CHOICE, NO_CAPTIONS_CHOICE, ReferenceIndex
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.evaluation.study.study import (
    PromptSet,
    Reference,
    Study,
    TextSet,
    find_spaces,
    warn_of_few_images,
)
from clipgan.metrics.grouping import Grouping

INDEPENDENT_SCORE = "clip_score_independent"
GALLERY_CAPTION_CHOICE = "first caption of the gallery image of each concept"
LOOKS_CHOICE = "no captions: real images of one concept, one a look"
REFERENCE_TEXTS = {
    "captioned": "random images of the split, those whose captions are used where they have some",
    "whole": "all images of the split",
}


class ShardStudyBuilder:
    """Extracts all features of the real images, or reads them from the cache, and builds a study.

    Args:
        clip: the CLIP that the generators were trained against.
        encode_texts: conditions -> its features (N, D) float32, unit norm.
        cache: of features of real images.

    Raises:
        EvaluationError: the reference has fewer than two images, NaN, or one image only.
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
    ) -> None:
        self._config, self._benchmark, self._device = config, benchmark, device
        self._clip, self._encode_texts, self._cache = clip, encode_texts, cache
        spaces, missing = find_spaces(benchmark.protocol, device, clip)
        self._skipped = {**benchmark.skipped, **missing}
        self._main = spaces[0] if spaces else None
        self._images = {
            index.split: self._open(index)
            for index in (benchmark.reference, benchmark.captions, benchmark.training)
            if index is not None
        }
        self._references = [self._refer(space) for space in spaces]
        self._models = self._find_models()
        self._gallery = self._encode_gallery()

    def build(self) -> Study:
        """Put the parts together."""
        benchmark, choice = self._benchmark, self._benchmark.choice
        texts = self._build_texts()
        warnings = (warn_of_few_images(r, len(choice.conditions)) for r in self._references)
        study = Study(
            config=self._config,
            protocol=benchmark.protocol,
            device=self._device,
            recorder=Recorder(
                _describe(benchmark),
                self._config.confidence,
                self._clip.fingerprint.get("weights_sha256", ""),
            ),
            conditions=choice.conditions,
            condition_rows=choice.condition_rows,
            references=self._references,
            texts=texts,
            captions=choice.conditions if choice.has_captions else None,
            prompt_sets=[*self._build_concepts(), *self._build_prompts()],
            build_real=lambda: self._build_real(study),
            side_px=benchmark.resolution_px,
            skipped=self._skipped,
            warnings=tuple(filter(None, warnings)),
        )
        if (training := benchmark.training) is not None:
            study.load_training = self._images[training.split].load
            study.sample_ids = training.sample_ids
        return study

    def _open(self, index: ReferenceIndex) -> RealImages:
        training = self._benchmark.training
        searched = training is not None and index.split == training.split and self._main
        return RealImages(
            index,
            self._benchmark.reference_px,
            self._cache,
            picture_px=self._benchmark.resolution_px,
            batch_size=self._config.batch_size,
            device=self._device,
            whole=[self._main.spec] if searched and self._main else (),
        )

    def _refer(self, space: FeatureSpace) -> Reference:
        benchmark, training = self._benchmark, self._benchmark.training
        features = self._images[benchmark.reference.split].encode_reference(
            benchmark.choice.image_rows,
            space,
            benchmark.protocol.blur_radii_px,
            mirrored=benchmark.protocol.is_mirrored,
        )
        check_features(features.plain, "reference images")
        if training is None or space is not self._main:
            return Reference(space, features)
        changes = {
            "reference_split": training.split,
            "reference": REFERENCE_TEXTS["whole"],
            "reference_count": len(training.sample_ids),
        }
        return Reference(space, features, self._images[training.split].encode_all(space), changes)

    def _find_models(self) -> list[TextImageModel]:
        """Load the evaluation CLIPs; none is needed where there are no captions and no prompts."""
        if not (self._benchmark.choice.has_captions or self._benchmark.prompts):
            return []
        space = describe_clip(TRAINING_CLIP, "clip", self._clip)
        models = [TextImageModel(space, self._encode_texts, suffix="")]
        config = self._config
        model = find_evaluation_clip(
            config.judge_clip_model, config.judge_clip_weights, self._clip, self._device
        )
        if isinstance(model, str):
            self._skipped[INDEPENDENT_SCORE] = model
        else:
            models.append(model)
        return models

    def _build_texts(self) -> list[TextSet]:
        choice, candidates = self._benchmark.choice, self._benchmark.candidates
        if not choice.has_captions:
            return []
        names, rows = index_captions(candidates or [])
        return [
            TextSet(
                model,
                model.encode_texts(choice.conditions).float().cpu(),
                (model.encode_texts(names).float().cpu(), rows) if names else None,
            )
            for model in self._models
        ]

    def _encode_captions(self, rows: Sequence[int], space: FeatureSpace) -> Tensor:
        return self._images[self._benchmark.captions.split].encode(rows, space)

    def _encode_gallery(self) -> Tensor | None:
        gallery = self._benchmark.gallery
        if gallery is None or self._main is None:
            return None
        return self._encode_captions(gallery.rows, self._main)

    def _group(self, count: int) -> Grouping:
        """Divide concepts or prompts into groups, because images of one are not independent."""
        return Grouping(count, self._config.interval_groups, self._benchmark.protocol.seed)

    def _describe_concepts(self, generated_count: int) -> dict[str, Any]:
        gallery = self._benchmark.gallery
        return {
            "reference_count": len(gallery.rows) if gallery else 0,
            "generated_count": generated_count,
            "captions": GALLERY_CAPTION_CHOICE,
        }

    def _build_concepts(self) -> list[PromptSet]:
        gallery, space, features = self._benchmark.gallery, self._main, self._gallery
        if gallery is None or space is None or features is None:
            return []
        samples = self._config.samples_per_concept
        prompts = [prompt for prompt in gallery.prompts for _ in range(samples)]

        def build(encoded: Sequence[Tensor]) -> list[Inputs]:
            inputs = CaptionInputs(
                space=space,
                grouping=self._group(len(features)),
                changes=self._describe_concepts(len(prompts)),
                features=encoded[0],
                samples_per_caption=samples,
                gallery=features,
                concepts=torch.arange(len(features)),
            )
            return [inputs]

        return [PromptSet(prompts, [space], build)]

    def _build_prompts(self) -> list[PromptSet]:
        """Build the set of prompts that replace captions where no image has one."""
        texts = list(self._benchmark.prompts)
        if not texts:
            return []
        samples, models, main = self._config.samples_per_concept, self._models, self._main
        prompts = [text for text in texts for _ in range(samples)]
        own = torch.arange(len(texts)).repeat_interleave(samples)
        others = [[row, *(n for n in range(len(texts)) if n != row)] for row in own.tolist()]
        common: dict[str, Any] = {
            "grouping": self._group(len(texts)),
            "changes": {
                "generated_count": len(prompts),
                "captions": f"evaluate.prompts ({hash_json(texts)[:12]})",
            },
            "samples_per_caption": samples,
        }

        def build(encoded: Sequence[Tensor]) -> list[Inputs]:
            inputs: list[Inputs] = []
            for model, features in zip(models, encoded, strict=False):  # the main space is last
                known = model.encode_texts(texts).float().cpu()
                candidates = (known, torch.tensor(others)) if len(texts) > 1 else None
                inputs.append(
                    TextInputs(
                        space=model.space,
                        suffix=model.suffix,
                        features=normalize(features, dim=1),
                        texts=known[own],
                        candidates=candidates,
                        **common,
                    )
                )
            if main is not None:
                inputs.append(CaptionInputs(space=main, features=encoded[-1], **common))
            return inputs

        spaces = [*(model.space for model in models), *([main] if main else [])]
        return [PromptSet(prompts, spaces, build)]

    def _build_real(self, study: Study) -> list[Inputs]:
        choice, gallery = self._benchmark.choice, self._benchmark.gallery
        inputs: list[Inputs] = [
            build_text_inputs(
                study, texts, self._encode_captions(choice.condition_rows, texts.model.space)
            )
            for texts in study.texts
        ]
        if gallery is None or self._main is None or self._gallery is None:
            return inputs
        for style, pairs in gallery.others.items():
            inputs.append(
                CaptionInputs(
                    space=self._main,
                    grouping=self._group(len(pairs)),
                    changes=self._describe_concepts(len(pairs)),
                    features=self._encode_captions([row for _, row in pairs], self._main),
                    samples_per_caption=1,
                    gallery=self._gallery,
                    concepts=torch.tensor([place for place, _ in pairs], dtype=torch.int64),
                    variant=f"_ceiling_{style}",
                )
            )
        if len(gallery.looks) > 1:
            inputs.append(self._build_looks(gallery.looks, self._main))
        return inputs

    def _build_looks(self, looks: Sequence[Sequence[int]], space: FeatureSpace) -> CaptionInputs:
        """Real images of one concept in several looks, in the place of images of one caption."""
        rows = [row for concept in looks for row in concept]
        return CaptionInputs(
            space=space,
            grouping=self._group(len(looks)),
            changes={"generated_count": len(rows), "captions": LOOKS_CHOICE},
            features=self._encode_captions(rows, space),
            samples_per_caption=len(looks[0]),
        )


def _describe(benchmark: Benchmark) -> dict[str, Any]:
    """Return what the protocols of all values of a benchmark share."""
    protocol, choice = benchmark.protocol, benchmark.choice
    captions = NO_CAPTIONS_CHOICE
    if choice.has_captions:
        captions = f"{CAPTION_CHOICE}, split {benchmark.captions.split}"
    mirrored = protocol.is_mirrored
    return {
        "reference_split": benchmark.reference.split,
        "reference": REFERENCE_TEXTS[protocol.reference] + (", mirrored too" * mirrored),
        "reference_count": len(choice.image_rows) * (1 + mirrored),
        "reference_fingerprint": benchmark.reference.fingerprint,
        "generated_count": len(choice.conditions),
        "captions": captions,
        "seed": protocol.seed,
        "resize": benchmark.resize,
        "truncation": protocol.truncation,
        "name": protocol.name,
    }
