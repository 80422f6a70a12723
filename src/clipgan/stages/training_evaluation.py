"""Evaluation during a training, with the values that evaluating the checkpoint would have.

The averaged generator is saved as a bundle and measured by the code of the evaluate stage, with
that stage's CLIP, device and precision. The training's random numbers are not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from clipgan.artifacts import built_folder
from clipgan.clip.encoder import ClipEncoder
from clipgan.config import EvaluateConfig, FeaturesConfig
from clipgan.evaluation.study.protocols import find_protocol
from clipgan.evaluation.study.reference_cache import FeatureCache
from clipgan.metrics.evaluations import TRAINED, Evaluation, load_evaluation, save_evaluation
from clipgan.metrics.values import flatten_metrics
from clipgan.models.bundle import load_bundle
from clipgan.run_logger import RunLogger
from clipgan.stages.evaluate import LOGGED_FOLDER, EvaluationInputs, load_evaluation_inputs
from clipgan.stages.measurements import Measurements
from clipgan.training.snapshot import Snapshot


class TrainingEvaluation:
    """Measures snapshots under the protocols of section ``evaluate``, for the train stage.

    Args:
        config: section ``evaluate``.
        features_config: names the CLIP, unless ``clip`` is given.
        images, features: artifacts of the stages before.
        cache: folder for features of real images.
        run_logger: receives the values at the snapshot's images seen.
        clip: the encoder the generator is trained with.

    Raises:
        EvaluationError: a protocol is unknown.
        DataError, FeatureStoreError, ClipError: inputs are damaged or do not fit.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        *,
        features_config: FeaturesConfig,
        images: Path,
        features: Path,
        cache: Path | None,
        run_logger: RunLogger,
        clip: ClipEncoder | None = None,
    ) -> None:
        self._config, self._images = config, images
        self._cache, self._run_logger = FeatureCache(cache), run_logger
        # Unknown protocols are refused before the training, not during it.
        self._protocols = [find_protocol(name, config) for name in config.protocols]
        self._inputs: EvaluationInputs = load_evaluation_inputs(
            config, features_config, images=images, features=features, clip=clip
        )

    def __call__(self, snapshot: Snapshot) -> None:
        """Measure, write ``images-<images_seen>/evaluation.json`` and log.

        A snapshot that was measured before an interruption is logged without measuring it again.

        Raises:
            EvaluationError: the generator cannot be measured, such as a collapsed one.
        """
        folder = snapshot.folder / f"images-{snapshot.images_seen:08d}"
        if folder.is_dir():
            evaluation = load_evaluation(folder)
        else:
            with _plain_precision():
                evaluation = self._measure(snapshot)
            with built_folder(folder) as building:
                save_evaluation(building, evaluation)
        numbers = flatten_metrics(evaluation.values[TRAINED], LOGGED_FOLDER)
        self._run_logger.log_metrics(numbers, snapshot.images_seen)

    def _measure(self, snapshot: Snapshot) -> Evaluation:
        with TemporaryDirectory(prefix="clipgan-snapshot-") as scratch:
            snapshot.save(Path(scratch))
            bundle = load_bundle(Path(scratch), with_discriminator=False)
        models = {TRAINED: self._inputs.describe_model(bundle)}
        measured = Measurements(
            self._config, self._images, models, self._inputs.device, self._cache
        )
        for protocol in self._protocols:
            measured.measure(protocol)
        return Evaluation(measured.values, measured.skipped, tuple(measured.warnings))


@contextmanager
def _plain_precision() -> Iterator[None]:
    """Restore the numerics of a new process; training uses TF32 and chooses kernels by speed."""
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.benchmark
    matmul.allow_tf32, convolutions.benchmark = False, False
    try:
        yield
    finally:
        matmul.allow_tf32, convolutions.benchmark = before
        # Return the GPU memory of the measurement to the training; without a GPU this does nothing.
        torch.cuda.empty_cache()
