"""The driver of all evaluations: it takes images and computes every metric that is possible.

It measures a trained generator, one of several, a snapshot of a training or a folder of files.
These differ in the :class:`~clipgan.evaluation.study.study.Study` and in the source of the images.
Each network sees each image once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

import clipgan.evaluation.metrics  # noqa: F401  registers every metric
from clipgan.evaluation.metrics.clip_score import compute_clip_scores
from clipgan.evaluation.metrics.inputs import (
    GeneratorInputs,
    ImageInputs,
    LatentAccess,
    SpaceInputs,
    TextInputs,
    TrainingInputs,
)
from clipgan.evaluation.metrics.metric import METRICS, Metric, Skip
from clipgan.evaluation.spaces.extraction import FeatureCollector, SpaceFeatures
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.evaluation.study.findings import StudyResults, pick_nearest, pick_worst
from clipgan.evaluation.study.image_store import ImageStore, open_image_store
from clipgan.evaluation.study.study import Study, TextSet
from clipgan.metrics.values import MetricValue

GENERATED = "generated images"


@dataclass(frozen=True)
class ImageSource:
    """Where the images come from.

    Attributes:
        generate: conditions -> batches of (n, 3, R, R) uint8, one image for each condition, image i
            from latent i; the size of files may differ between batches.
        latents: access to the generator's latents; None: the images are files.
    """

    generate: Callable[[Sequence[str]], Iterable[Tensor]]
    latents: LatentAccess | None = None


class Driver:
    """Measures generators, and real images in their place, in one study.

    Args:
        advance: called with the number of images of each batch that was generated.
    """

    def __init__(self, study: Study, advance: Callable[[int], None] = lambda _: None) -> None:
        self.study, self.advance = study, advance
        self._networks = self._find_networks()

    @property
    def skipped(self) -> dict[str, str]:
        """Metric -> one line that says why it is not measured; complete after a measurement."""
        return {**self.study.skipped, **self.study.recorder.skipped}

    def measure(self, source: ImageSource) -> StudyResults:
        """Generate the images of the study and compute every metric.

        Raises:
            EvaluationError: ``source`` made another number of images or another size, all its
                images are the same, or a feature is NaN.
        """
        study = self.study
        radii = study.protocol.blur_radii_px
        collectors = [self._collect(reference.space, radii) for reference in study.references]
        clip_collectors = [self._collect(texts.model.space) for texts in study.texts]
        own_collectors = [self._collect(space) for _, space in self._networks]
        with self._open_store(len(study.conditions)) as images:
            batches = source.generate(study.conditions)
            for batch in images.fill(batches) if images else batches:
                for collector in (*collectors, *clip_collectors, *own_collectors):
                    collector.add(batch)
                self.advance(len(batch))
            features = [collector.collect(GENERATED) for collector in collectors]
            nearest = self._compute_distances(features)
            scores = self._compute_texts([t.collect(GENERATED).plain for t in clip_collectors])
            for (metric, space), collector in zip(self._networks, own_collectors, strict=True):
                study.recorder.compute(
                    metric,
                    ImageInputs(
                        space=space,
                        grouping=study.group(),
                        features=collector.collect(GENERATED).plain,
                        captions=study.captions or (),
                    ),
                )
            self._measure_prompts(source)
            self._measure_latents(source.latents)
            values = study.recorder.take()
            if images is None:
                return StudyResults(values)
            return StudyResults(
                values,
                pick_worst(study.conditions, scores, images, study.config.worst_captions),
                pick_nearest(study, nearest, images),
            )

    def measure_real(self) -> dict[str, MetricValue]:
        """Measure real images in the generator's place, with their captions and in other styles."""
        for inputs in self.study.build_real():
            self.study.recorder.compute_all(inputs)
        return self.study.recorder.take()

    def count_generated(self) -> int:
        """Count the images that one generator will make, for the progress bar."""
        more = sum(len(prompts.prompts) for prompts in self.study.prompt_sets)
        return len(self.study.conditions) + more

    def _find_networks(self) -> list[tuple[Metric, FeatureSpace]]:
        """Load the networks of metrics that have their own; none where images have no captions."""
        study = self.study
        networks = []
        for metric in METRICS.values():
            if metric.find_network is None or study.captions is None:
                continue
            network = metric.find_network(study.captions, study.device)
            if isinstance(network, Skip):
                study.skipped[metric.name] = network.reason
            else:
                networks.append((metric, network))
        return networks

    def _compute_distances(self, features: Sequence[SpaceFeatures]) -> TrainingInputs | None:
        """Measure every space; return the search in the first space that has training images."""
        study, first = self.study, None
        for reference, generated in zip(study.references, features, strict=True):
            study.recorder.compute_all(
                SpaceInputs(
                    space=reference.space,
                    grouping=study.group(),
                    generated=generated,
                    reference=reference.features,
                    neighbourhood=study.protocol.neighbourhood,
                )
            )
            if reference.training is not None:
                search = TrainingInputs(
                    space=reference.space,
                    grouping=study.group(),
                    changes=reference.training_changes,
                    generated=generated,
                    training=reference.training,
                )
                study.recorder.compute_all(search)
                first = first or search
        return first

    def _compute_texts(self, features: Sequence[Tensor]) -> Tensor:
        """Measure every CLIP; return the scores of the last, which is independent if one is."""
        scores = torch.empty(0)
        for texts, images in zip(self.study.texts, features, strict=True):
            inputs = build_text_inputs(self.study, texts, images)
            self.study.recorder.compute_all(inputs)
            scores = compute_clip_scores(inputs.features, inputs.texts)
        return scores

    def _measure_prompts(self, source: ImageSource) -> None:
        for prompt_set in self.study.prompt_sets:
            collectors = [self._collect(space) for space in prompt_set.spaces]
            with self._open_store(len(prompt_set.prompts)) as images:
                batches = source.generate(prompt_set.prompts)
                for batch in images.fill(batches) if images else batches:
                    for collector in collectors:
                        collector.add(batch)
                    self.advance(len(batch))
            for inputs in prompt_set.build([t.collect(GENERATED).plain for t in collectors]):
                self.study.recorder.compute_all(inputs)

    def _measure_latents(self, latents: LatentAccess | None) -> None:
        study = self.study
        count = min(study.config.path_length_samples, len(study.conditions))
        if latents is None or not study.references or not count:
            return
        study.recorder.compute_all(
            GeneratorInputs(
                space=study.references[0].space,
                grouping=study.group(count),
                changes={"generated_count": 2 * count},
                latents=latents,
                captions=study.conditions[:count],
                epsilon=study.config.path_length_epsilon,
                seed=study.protocol.seed,
            )
        )

    def _collect(self, space: FeatureSpace, radii: Sequence[int] = ()) -> FeatureCollector:
        config = self.study.config
        return FeatureCollector(
            space, radii, batch_size=config.batch_size, device=self.study.device
        )

    @contextmanager
    def _open_store(self, count: int) -> Iterator[ImageStore | None]:
        if self.study.side_px is None:
            yield None
            return
        with open_image_store(count, self.study.side_px) as images:
            yield images


def build_text_inputs(study: Study, texts: TextSet, features: Tensor) -> TextInputs:
    """Combine a study's texts with (N, D) features of their images in the CLIP's space."""
    return TextInputs(
        space=texts.model.space,
        grouping=study.group(),
        suffix=texts.model.suffix,
        # FeatureSpace does not promise unit norm, although features of the training CLIP have it.
        features=torch.nn.functional.normalize(features, dim=1),
        texts=texts.texts,
        candidates=texts.candidates,
    )
