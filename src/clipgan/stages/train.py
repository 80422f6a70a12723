"""Stage train: image shards and CLIP features -> a generator bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipgan.clip.encoder import ClipEncoder, load_clip
from clipgan.clip.feature_store import FeatureTable, load_features
from clipgan.config import FeaturesConfig, MonitoringConfig, Threads, TrainConfig
from clipgan.config.effective import select_training
from clipgan.data.shards import ImagesManifest, load_manifest
from clipgan.devices import resolve_device
from clipgan.families.registry import find_family
from clipgan.models.bundle import BundleInfo
from clipgan.resume_state import mark_finished
from clipgan.run_logger import NULL_LOGGER, RunLogger, UnfailingRunLogger
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.checkpoint_export import build_metadata
from clipgan.training.conditions import Conditions, build_conditions
from clipgan.training.discriminator_probe import DiscriminatorProbe
from clipgan.training.disk_space import check_disk_space
from clipgan.training.distributed import SINGLE, Processes, check_batch_fits
from clipgan.training.earlier_runs import announce_start, flatten
from clipgan.training.early_signs import note_blind_clip
from clipgan.training.family import TrainingSpec
from clipgan.training.fine_tuning import Networks, resolve_initial_folder
from clipgan.training.fingerprint import compute_training_fingerprint
from clipgan.training.inputs import (
    build_loader,
    check_inputs,
    count_undecoded_bytes,
    select_training_images,
)
from clipgan.training.loop import Schedule, TrainingLoop
from clipgan.training.output import TrainingReport, build_report, place_output
from clipgan.training.power_averages import SNAPSHOTS_FOLDER, PowerAverages
from clipgan.training.sample_grid import SampleGrid
from clipgan.training.snapshot import EVALUATIONS_FOLDER, Snapshot, evaluate_snapshots
from clipgan.training.warm_up import prepare_warm_up

SAMPLES_FOLDER = "samples"
"""Folder of the run logger's files."""
KEPT_FOLDERS = (SAMPLES_FOLDER, EVALUATIONS_FOLDER, SNAPSHOTS_FOLDER)
"""What goes from the resume folder into the output."""


def train(
    config: TrainConfig,
    *,
    monitoring: MonitoringConfig,
    features_config: FeaturesConfig,
    images: Path,
    features: Path,
    output: Path,
    work: Path,
    image_store: Path | None = None,
    initial_folder: Path | None = None,
    clip: ClipEncoder | None = None,
    logger: RunLogger = NULL_LOGGER,
    processes: Processes = SINGLE,
    threads: Threads | None = None,
    evaluate: Callable[[Snapshot], None] | None = None,
    diagnose: Callable[[Sequence[Mapping[str, float]]], None] | None = None,
) -> TrainingReport:
    """Train a generator, or continue a training that was interrupted.

    Args:
        config: section ``train``; together with data, features and code it decides the result's
            bits.
        monitoring: section ``monitoring``.
        features_config: names the CLIP, unless ``clip`` is given.
        images, features: artifacts of the stages before.
        output: folder to make or replace, with generator bundle, reports and samples.
        work: parent of the resumable state, which has a folder for each training that is kept at
            the end too, see :mod:`clipgan.resume_state`.
        image_store: decoded images, shared by trainings and kept; None: ``images`` beside ``work``.
        initial_folder: the bundle of ``train.initial_weights``, unless that names a bundle itself.
        clip: the encoder that made the features.
        logger: receives parameters, losses and sample grids.
        processes: all processes that train together; the first alone writes files and logs.
        threads: of PyTorch on the CPU, see :class:`~clipgan.training.loop.TrainingLoop`.
        evaluate: measures the generator every ``monitoring.evaluation_interval_images``.
        diagnose: looks at the history whenever samples are drawn.

    Raises:
        DataError, FeatureStoreError, ClipError, CheckpointError, ConfigError: inputs do not fit.
        TrainingDivergedError: a loss became NaN or Inf twice.
    """
    logger = UnfailingRunLogger(logger)
    device = _prepare_device(config.device)
    clip = clip or _load_clip(config, features_config, device)
    inputs = _load_inputs(config, features_config, images, features, clip)
    start = initial_folder or resolve_initial_folder(config.initial_weights, config.family)
    fingerprint = inputs.compute_training_fingerprint(config, features, start)
    networks, initial = _prepare_networks(config, clip, start, inputs.table, device=device)
    conditions = build_conditions(config, inputs.table, inputs.selected, clip, device)
    run_folder = work / fingerprint[:16]
    loop = _build_loop(
        config,
        monitoring,
        networks,
        conditions,
        images=images,
        image_store=image_store or work.parent / "images",
        run_folder=run_folder,
        fingerprint=fingerprint,
        logger=logger,
        device=device,
        processes=processes,
        threads=threads,
        initial=initial,
        evaluate=evaluate,
        diagnose=diagnose,
    ).run()
    report = build_report(
        config,
        loop,
        inputs.num_images,
        initial_info=initial,
        device=device,
        fingerprint=fingerprint,
        num_processes=processes.count,
    )
    if processes.is_main:
        place_output(
            output,
            networks,
            _describe_bundle(config, features_config, inputs, report),
            report,
            loop,
            means=conditions.means,
            folders=[run_folder / name for name in KEPT_FOLDERS],
            initial=start,
            run={"run_id": logger.run_id, "run_key": logger.run_key},
        )
        _finish(run_folder, output, logger, report)
    return report


def _load_family(config: TrainConfig) -> TrainingSpec:
    family: TrainingSpec = find_family(config.family).load("training")
    return family


def _prepare_networks(
    config: TrainConfig,
    clip: ClipEncoder,
    start: Path | None,
    table: FeatureTable,
    *,
    device: torch.device,
) -> tuple[Networks[Any, Any], BundleInfo | None]:
    """Build the networks on their device, and read what the bundle to start from says."""
    family = _load_family(config)
    networks, initial = family.build_networks(config, clip), None
    if start is not None:
        initial = family.load_initial_weights(config, networks, start, table.clip)
    networks.move_to(device)
    return networks, initial


@dataclass(frozen=True)
class _Inputs:
    manifest: ImagesManifest
    table: FeatureTable
    selected: NDArray[np.int64]

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def num_images(self) -> int:
        return len(self.selected)

    def compute_training_fingerprint(
        self, config: TrainConfig, features: Path, start: Path | None
    ) -> str:
        return compute_training_fingerprint(
            config, images_fingerprint=self.fingerprint, features_dir=features, initial_folder=start
        )


def _load_inputs(
    config: TrainConfig,
    features_config: FeaturesConfig,
    images: Path,
    features: Path,
    clip: ClipEncoder,
) -> _Inputs:
    manifest = load_manifest(images)
    table = load_features(
        features,
        images_fingerprint=manifest.fingerprint,
        # The encoder may run in another precision here than where the features were made.
        clip_fingerprint={**clip.fingerprint, "precision": features_config.precision},
    )
    selected = select_training_images(images, table)
    check_inputs(config, manifest, table, selected, clip.embed_dim)
    return _Inputs(manifest, table, selected)


def _build_loop(
    config: TrainConfig,
    monitoring: MonitoringConfig,
    networks: Networks[Any, Any],
    conditions: Conditions,
    *,
    images: Path,
    image_store: Path,
    run_folder: Path,
    fingerprint: str,
    logger: RunLogger,
    device: torch.device,
    processes: Processes,
    threads: Threads | None,
    initial: BundleInfo | None,
    evaluate: Callable[[Snapshot], None] | None,
    diagnose: Callable[[Sequence[Mapping[str, float]]], None] | None,
) -> TrainingLoop:
    """Put the parts of a training together."""
    check_batch_fits(config, processes)
    logger.log_params(parameters := flatten("train", select_training(config)))
    if processes.is_main:
        check_disk_space(
            networks,
            config,
            run_folder,
            keep_checkpoints=monitoring.keep_checkpoints,
            decoded_bytes=count_undecoded_bytes(config, images, conditions, image_store),
        )
        announce_start(run_folder, parameters | {"images": load_manifest(images).fingerprint})
        note_blind_clip(conditions.table, conditions.selected)
    step = _load_family(config).build_step(config, networks, conditions, processes)
    loader = build_loader(
        config, images, conditions, image_store=image_store, device=device, processes=processes
    )
    step.power_averages = _build_power_averages(step, run_folder)
    prepare_warm_up(step, config, loader, conditions, processes)
    samples, folder = run_folder / SAMPLES_FOLDER, run_folder / EVALUATIONS_FOLDER
    probe = DiscriminatorProbe(step, images, conditions, config.batch_size // processes.count)
    average = networks.generator_ema
    grid = SampleGrid(average, conditions, config, monitoring, samples, probe=probe.measure)
    return TrainingLoop(
        step,
        loader.batch_at,
        schedule=Schedule(config.total_images, config.batch_size, config.seed),
        monitoring=monitoring,
        checkpoints=CheckpointStore(
            run_folder / "checkpoints",
            keep=monitoring.keep_checkpoints,
            fingerprint=fingerprint,
            metadata=build_metadata(
                networks,
                family=config.family,
                clip=dict(conditions.table.clip),
                initial_images_seen=0 if initial is None else initial.images_seen,
                training=fingerprint,
                means=conditions.means,
            ),
        ),
        save_samples=grid.save,
        run_logger=logger,
        device=device,
        processes=processes,
        threads=threads,
        evaluate=evaluate_snapshots(
            evaluate, networks, conditions, family=config.family, initial=initial, folder=folder
        ),
        diagnose=diagnose,
    )


def _build_power_averages(step: AdversarialStep, run_folder: Path) -> PowerAverages | None:
    """For post-hoc EMA, where the training keeps snapshots; the first process alone writes them."""
    if not step.config.ema.snapshot_interval_images:
        return None
    folder = run_folder / SNAPSHOTS_FOLDER if step.processes.is_main else None
    return PowerAverages(step.generator, step.config, folder)


def _describe_bundle(
    config: TrainConfig, features_config: FeaturesConfig, inputs: _Inputs, report: TrainingReport
) -> BundleInfo:
    return BundleInfo(
        family=config.family,
        clip=dict(inputs.table.clip),
        resolution_px=config.resolution_px,
        images_seen=report.images_seen + report.initial_images_seen,
        provenance={
            "training": report.fingerprint,
            "images": inputs.fingerprint,
            "seed": config.seed,
            "initial_weights": config.initial_weights,
            "clip_weights": features_config.clip_weights,
        },
    )


def _finish(run_folder: Path, output: Path, logger: RunLogger, report: TrainingReport) -> None:
    totals = {"train/seconds": report.seconds, "train/peak_memory_mib": report.peak_memory_mib}
    logger.log_metrics(totals, report.images_seen)
    logger.flush()
    mark_finished(run_folder, output)


def _load_clip(
    config: TrainConfig, features_config: FeaturesConfig, device: torch.device
) -> ClipEncoder:
    on_gpu = device.type == "cuda"
    return load_clip(
        features_config.clip_model,
        features_config.clip_weights,
        # On the CPU it is the precision of the features, so that both have the same vectors.
        precision=config.precision if on_gpu else features_config.precision,
        device=device,
    )


def _prepare_device(name: str) -> torch.device:
    device = resolve_device(name)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return device
