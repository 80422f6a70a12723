"""A study of files: a folder of images is compared with another, by distances alone."""

from __future__ import annotations

import torch

from clipgan.config import EvaluateConfig
from clipgan.evaluation.spaces.checks import check_features
from clipgan.evaluation.spaces.extraction import FeatureCollector, SpaceFeatures
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.evaluation.study.image_folder import ImageFolder
from clipgan.evaluation.study.protocols import EvaluationProtocol
from clipgan.evaluation.study.recorder import Recorder
from clipgan.evaluation.study.reference_cache import FeatureCache, Tensors, describe_features
from clipgan.evaluation.study.study import Reference, Study, find_spaces, warn_of_few_images
from clipgan.progress import progress_bar


def build_folder_study(
    config: EvaluateConfig,
    protocol: EvaluationProtocol,
    generated: ImageFolder,
    reference: ImageFolder,
    *,
    device: torch.device,
    cache: FeatureCache,
) -> Study:
    """Build the study; features of the reference are extracted, or read from the cache.

    The images of the reference are also those that a generator may have copied.

    Raises:
        EvaluationError: the reference has fewer than two images, NaN, or one image only.
    """
    spaces, skipped = find_spaces(protocol, device, None)
    references = []
    for space in spaces:
        features = _load_reference(config, protocol, space, reference, device=device, cache=cache)
        check_features(features.plain, "reference images")
        references.append(Reference(space, features, features.plain))
    fields = {
        "reference_split": "files",
        "reference": "all images of a folder",
        "reference_count": len(reference),
        "reference_fingerprint": reference.fingerprint,
        "generated_count": len(generated),
        "captions": "unknown: files",
        "seed": protocol.seed,
        "resize": "files as they are",
        "truncation": None,
        "name": protocol.name,
    }
    warnings = (warn_of_few_images(reference, len(generated)) for reference in references)
    return Study(
        config=config,
        protocol=protocol,
        device=device,
        recorder=Recorder(fields, config.confidence),
        conditions=generated.names,
        condition_rows=None,
        references=references,
        skipped=skipped,
        warnings=tuple(filter(None, warnings)),
    )


def _load_reference(
    config: EvaluateConfig,
    protocol: EvaluationProtocol,
    space: FeatureSpace,
    images: ImageFolder,
    *,
    device: torch.device,
    cache: FeatureCache,
) -> SpaceFeatures:
    radii = protocol.blur_radii_px
    key = describe_features(
        images_fingerprint=images.fingerprint,
        sample_ids=images.hashes,
        resolution_px=0,
        space=space,
        transform=f"{images.transform}, blurred {list(radii)}",
        device=device,
    )

    def compute() -> Tensors:
        collector = FeatureCollector(space, radii, batch_size=config.batch_size, device=device)
        with progress_bar(f"{images.folder.name} in {space.spec}", len(images), "images") as bar:
            for batch in images.iterate(config.batch_size):
                collector.add(batch)
                bar.advance(len(batch))
        features = collector.collect(str(images.folder))
        blurred = {f"blur{radius}": part for radius, part in features.blurred.items()}
        return {"plain": features.plain, **blurred}

    tensors = cache.fetch(key, compute)
    return SpaceFeatures(tensors["plain"], None, {r: tensors[f"blur{r}"] for r in radii})
