"""A generator by its address: built in, a bundle folder, a checkpoint, a registered version, a run.

Imported official weights are bundle folders.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from clipgan.clip.encoder import ClipEncoder
from clipgan.clip.feature_store import load_features
from clipgan.config import Params
from clipgan.data.shards import load_manifest
from clipgan.errors import CheckpointError, FeatureStoreError
from clipgan.evaluation.feature_spaces import TrainingClip
from clipgan.generation.sampler import load_matching_clip
from clipgan.models.built_in import BUILT_IN, find_built_in, list_built_in_names
from clipgan.models.bundle import INFO_FILE, BundleInfo, load_bundle
from clipgan.stages.generator_under_test import encode_conditions, find_stored_conditions
from clipgan.stages.measurements import ModelUnderTest
from clipgan.stages.stored_features import StoredFeatures
from clipgan.tracking.download import download_generator, find_version_of_run
from clipgan.training.checkpoint import is_checkpoint
from clipgan.training.checkpoint_export import export_checkpoint

MODEL_PREFIX, RUN_PREFIX = "models:/", "runs:/"


class ModelLoader:
    """Loads models of one project; those that share a CLIP share its encoder.

    Args:
        images, features: artifacts of the project; stored text features are used where they fit.
        tracking_uri: the MLflow store, for registered versions and runs.
    """

    def __init__(
        self,
        params: Params,
        *,
        images: Path,
        features: Path,
        tracking_uri: str,
        device: torch.device,
    ) -> None:
        self._params, self._images, self._features = params, images, features
        self._tracking_uri, self._device = tracking_uri, device
        self._clips: dict[str, tuple[ClipEncoder, TrainingClip]] = {}

    def load(self, address: str) -> ModelUnderTest:
        """The model behind an address.

        Raises:
            CheckpointError: no such folder, or what is in it cannot be loaded.
            RegistryError: no such model, version, alias or run.
            ClipError: the CLIP it was trained with cannot be loaded.
        """
        with self._open_folder(address) as (folder, clip_weights):
            bundle = load_bundle(folder, with_discriminator=False)
            weights = clip_weights or self._find_clip_weights(bundle.info)
            encoder, clip = self._load_clip(bundle.info.clip, str(weights))
        bundle.generator.attach_clip(encoder)
        stored = self._find_stored(bundle.info.clip, encoder)
        if stored is None:
            conditions = encode_conditions(bundle, encoder)
            return ModelUnderTest(bundle, clip, encoder.encode_texts, conditions)
        conditions = find_stored_conditions(bundle, stored, encoder)
        return ModelUnderTest(bundle, clip, stored.find, conditions)

    @contextmanager
    def _open_folder(self, address: str) -> Iterator[tuple[Path, Path | None]]:
        if (built_in := find_built_in(address)) is not None:
            yield built_in, None
            return
        if address.startswith(RUN_PREFIX):
            run_id = address.removeprefix(RUN_PREFIX)
            address = find_version_of_run(run_id, tracking_uri=self._tracking_uri)
        if address.startswith(MODEL_PREFIX):
            with TemporaryDirectory(prefix="clipgan-model-") as scratch:
                yield download_generator(
                    address, tracking_uri=self._tracking_uri, target=Path(scratch)
                )
            return
        folder = Path(address).expanduser()
        if is_checkpoint(folder):
            with TemporaryDirectory(prefix="clipgan-checkpoint-") as scratch:
                export_checkpoint(folder, Path(scratch))
                yield Path(scratch), None
            return
        if not (folder / INFO_FILE).is_file():
            raise CheckpointError(
                f"{address}: no generator bundle or checkpoint there; give "
                f"{', '.join(list_built_in_names())}, a bundle folder such as data/training, a "
                "checkpoint folder, models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID (`clipgan "
                "import-weights` makes bundles of official weights)"
            )
        yield folder, None

    def _find_clip_weights(self, info: BundleInfo) -> str:
        """What the bundle says; a checkpoint says nothing, and its CLIP is that of params.yaml."""
        named = info.provenance.get("clip_weights")
        if named is None and info.clip.get("model") == self._params.features.clip_model:
            named = self._params.features.clip_weights
        return str(named or BUILT_IN)

    def _load_clip(
        self, fingerprint: dict[str, str], weights: str
    ) -> tuple[ClipEncoder, TrainingClip]:
        key = fingerprint.get("weights_sha256", "")
        if key not in self._clips:
            # That of the evaluate stage: one judge, and one set of cached features, for both.
            precision = self._params.features.precision
            encoder = load_matching_clip(fingerprint, weights, self._device, precision)
            self._clips[key] = encoder, TrainingClip(encoder.encode_images, encoder.fingerprint)
        return self._clips[key]

    def _find_stored(
        self, fingerprint: dict[str, str], encoder: ClipEncoder
    ) -> StoredFeatures | None:
        """The project's features, where they are of this CLIP; what the evaluate stage uses."""
        wanted = {**fingerprint, "precision": self._params.features.precision}
        try:
            table = load_features(
                self._features,
                images_fingerprint=load_manifest(self._images).fingerprint,
                clip_fingerprint=wanted,
            )
        except FeatureStoreError as error:
            print(f"captions are encoded anew: {error}", flush=True)
            return None
        return StoredFeatures(table, self._params.evaluate.prompts, encoder.encode_texts)
