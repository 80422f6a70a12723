"""Loading of models by address for an evaluation: bundle, CLIP and conditions."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Self

from clipgan.clip.encoder import ClipEncoder
from clipgan.clip.feature_store import load_features
from clipgan.config import Params
from clipgan.data.shards import load_manifest
from clipgan.devices import resolve_device
from clipgan.errors import FeatureStoreError
from clipgan.evaluation.spaces.feature_spaces import TrainingClip
from clipgan.generation.sampler import find_clip_weights, load_matching_clip
from clipgan.models.bundle import load_bundle
from clipgan.stages.measurements import ModelUnderTest
from clipgan.stages.model_addresses import opened_bundle
from clipgan.stages.stored_features import StoredFeatures, find_stored_conditions
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.workspace import Workspace


class ModelLoader:
    """Loads models of one project; models with the same CLIP share its encoder.

    Args:
        images, features: artifacts of the project; stored text features are used if they fit.
        tracking_uri: the MLflow store, for registered versions and runs.

    Attributes:
        device: ``evaluate.device``, on which the models are measured.
    """

    def __init__(self, params: Params, *, images: Path, features: Path, tracking_uri: str) -> None:
        self.device = resolve_device(params.evaluate.device)
        self._params, self._images, self._features = params, images, features
        self._tracking_uri = tracking_uri
        self._clips: dict[str, tuple[ClipEncoder, TrainingClip]] = {}

    @classmethod
    def of_project(cls, params: Params, workspace: Workspace) -> Self:
        """The loader of the project in ``workspace``."""
        return cls(
            params,
            images=workspace.images,
            features=workspace.features,
            tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
        )

    def load(self, address: str) -> ModelUnderTest:
        """Load the model of an address.

        Raises:
            CheckpointError: no such folder, or what is in it cannot be loaded.
            RegistryError: no such model, version, alias or run.
            ClipError: the CLIP it was trained with cannot be loaded.
        """
        with opened_bundle(address, tracking_uri=self._tracking_uri) as (folder, clip_weights):
            bundle = load_bundle(folder, with_discriminator=False)
            weights = clip_weights or find_clip_weights(bundle.info, self._params.features)
            encoder, clip = self._load_clip(bundle.info.clip, str(weights))
        bundle.generator.attach_clip(encoder)
        stored = self._find_stored(bundle.info.clip, encoder)
        if stored is None:
            encode = partial(bundle.encode_texts, encoder)
            return ModelUnderTest(bundle, clip, encoder.encode_texts, encode)
        conditions = find_stored_conditions(bundle, stored, encoder)
        return ModelUnderTest(bundle, clip, stored.find, conditions)

    def _load_clip(
        self, fingerprint: dict[str, str], weights: str
    ) -> tuple[ClipEncoder, TrainingClip]:
        key = fingerprint.get("weights_sha256", "")
        if key not in self._clips:
            # The same as in the evaluate stage, so that both use the same cached features.
            precision = self._params.features.precision
            encoder = load_matching_clip(fingerprint, weights, self.device, precision)
            self._clips[key] = encoder, TrainingClip(encoder.encode_images, encoder.fingerprint)
        return self._clips[key]

    def _find_stored(
        self, fingerprint: dict[str, str], encoder: ClipEncoder
    ) -> StoredFeatures | None:
        """Load the project's features, as stage evaluate does; None: they are of another CLIP."""
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
