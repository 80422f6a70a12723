"""The output folder of a training: generator bundle, reports, samples, initial bundle."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from clipgan.artifacts import built_folder, link_file, write_json
from clipgan.config import TrainConfig
from clipgan.errors import CheckpointError
from clipgan.models.bundle import INFO_FILE, BundleInfo, save_bundle
from clipgan.models.modality_gap import ModalityMeans
from clipgan.models.networks import Discriminator, Generator
from clipgan.training.fine_tuning import Networks
from clipgan.training.loop import LoopReport


@dataclass(frozen=True)
class TrainingReport:
    """What a training did; ``seconds`` leaves out set-up and counts resumed parts once."""

    family: str
    images_seen: int
    num_training_images: int
    seconds: float
    images_per_second: float
    peak_memory_mib: float
    device: str
    precision: str
    initial_weights: str
    initial_images_seen: int
    resumed_from: int | None
    rollbacks: int
    num_processes: int
    num_threads: int
    final_losses: dict[str, float]
    fingerprint: str


def build_report(
    config: TrainConfig,
    loop_report: LoopReport,
    num_training_images: int,
    *,
    initial_info: BundleInfo | None,
    device: torch.device,
    fingerprint: str,
    num_processes: int = 1,
) -> TrainingReport:
    """The report of a finished loop."""
    seconds = loop_report.seconds
    return TrainingReport(
        family=config.family,
        images_seen=loop_report.images_seen,
        num_training_images=num_training_images,
        seconds=round(seconds, 2),
        images_per_second=round(loop_report.images_seen / max(seconds, 1e-9), 2),
        peak_memory_mib=round(_measure_peak_memory_mib(device), 1),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        precision=config.precision,
        initial_weights=config.initial_weights,
        initial_images_seen=0 if initial_info is None else initial_info.images_seen,
        resumed_from=loop_report.resumed_from,
        rollbacks=loop_report.rollbacks,
        num_processes=num_processes,
        num_threads=loop_report.num_threads,
        final_losses=loop_report.latest,
        fingerprint=fingerprint,
    )


def _measure_peak_memory_mib(device: torch.device) -> float:
    """Peak memory of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def place_output(
    output: Path,
    networks: Networks[Generator, Discriminator],
    info: BundleInfo,
    report: TrainingReport,
    loop_report: LoopReport,
    *,
    means: ModalityMeans | None,
    folders: Sequence[Path],
    initial: Path | None,
    run: Mapping[str, str | None],
) -> None:
    """Build the whole output folder beside ``output``, then move it into place.

    Those ``folders`` that exist are linked into it under their names (files of them are replaced,
    never changed); copied where the file system has no hard links. ``run`` goes into
    mlflow.json: the MLflow run's ``run_id``, and the ``run_key`` by which a run without an id is
    found.

    Raises:
        CheckpointError: the disk is full; what was in ``output`` before is untouched.
    """
    generator, discriminator = networks.generator_ema, networks.discriminator
    try:
        with built_folder(output) as building:
            save_bundle(building, generator, discriminator, info, dtype="fp32", means=means)
            write_json(building / "mlflow.json", dict(run))
            write_json(building / "training.json", asdict(report))
            write_json(building / "history.json", loop_report.history)
            for folder in folders:
                if folder.is_dir():
                    shutil.copytree(folder, building / folder.name, copy_function=link_file)
            if initial is not None:
                _copy_bundle(initial, building / "initial")
    except OSError as error:
        raise CheckpointError(
            f"{output}: the finished training cannot be written ({error.strerror or error}): "
            "free disk space and run the same command again; nothing is trained twice"
        ) from error


def _copy_bundle(source: Path, target: Path) -> None:
    target.mkdir()
    for path in [source / INFO_FILE, *source.glob("*.safetensors")]:
        shutil.copy2(path, target)
