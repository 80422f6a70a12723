"""From a model's address to a bundle on disk, which is downloaded or converted if necessary."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from clipgan.errors import CheckpointError
from clipgan.models.addresses import (
    BUNDLE_FILE,
    CHECKPOINT_FILE,
    describe_missing,
    find_folder,
    is_in_mlflow,
)
from clipgan.models.built_in import NO_WEIGHTS
from clipgan.training.distributed import SINGLE, Processes

START_FOLDER = "initial_weights"
_BUNDLE = "bundle"


@contextmanager
def opened_bundle(address: str, *, tracking_uri: str) -> Iterator[tuple[Path, Path | None]]:
    """Open the folder of an address's bundle, and the weights file of its CLIP.

    The file is None where the bundle itself names the weights. A bundle that was downloaded or
    converted exists during the block only.

    Args:
        address: one of :data:`clipgan.models.addresses.ADDRESS_FORMS`.
        tracking_uri: the MLflow store, for registered versions and runs.

    Raises:
        CheckpointError: no such folder, or a damaged checkpoint.
        RegistryError: no such model, version, alias or run.
    """
    if (bundle := _find_bundle(address)) is not None:
        yield bundle, None
        return
    with TemporaryDirectory(prefix="clipgan-model-") as scratch:
        clip_weights = _make_bundle(address, Path(scratch), tracking_uri)
        yield Path(scratch) / _BUNDLE, clip_weights


@contextmanager
def opened_start(
    initial_weights: str,
    *,
    work: Path,
    tracking_uri: str,
    family: str,
    processes: Processes = SINGLE,
) -> Iterator[Path | None]:
    """Do as :func:`opened_bundle` for ``train.initial_weights``; None for ``none``.

    The first process alone downloads or converts, into a folder of ``work`` that all processes can
    read. It does so each time, because an alias may name another version now. ``family`` is the
    family that will be trained.
    """
    if initial_weights == NO_WEIGHTS:
        yield None
        return
    if (bundle := _find_bundle(initial_weights, family)) is not None:
        yield bundle
        return
    scratch = work / START_FOLDER
    try:
        if processes.is_main:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            _make_bundle(initial_weights, scratch, tracking_uri)
        processes.wait()
        yield scratch / _BUNDLE
    finally:
        if processes.is_main:
            shutil.rmtree(scratch, ignore_errors=True)


def _find_bundle(address: str, family: str | None = None) -> Path | None:
    """Return the folder if it is a bundle already; None: a checkpoint, or in MLflow."""
    folder = find_folder(address, family)
    if folder is None or (folder / CHECKPOINT_FILE).is_file():
        return None
    if not (folder / BUNDLE_FILE).is_file():
        raise CheckpointError(describe_missing(address))
    return folder


def _make_bundle(address: str, scratch: Path, tracking_uri: str) -> Path | None:
    """Write ``scratch/bundle``; return the weights file of its CLIP where that is not built in."""
    if is_in_mlflow(address):
        from clipgan.tracking.download import download_generator

        bundle, clip_weights = download_generator(
            address, tracking_uri=tracking_uri, target=scratch
        )
        bundle.replace(scratch / _BUNDLE)
        return clip_weights
    from clipgan.training.checkpoint_export import export_checkpoint

    export_checkpoint(Path(address).expanduser(), scratch / _BUNDLE)
    return None
