"""``train.initial_weights`` as the folder of a bundle, fetched or converted where need be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clipgan.models.built_in import REGISTRY_PREFIX
from clipgan.tracking.download import download_generator
from clipgan.training.checkpoint import is_checkpoint
from clipgan.training.checkpoint_export import export_checkpoint
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.fine_tuning import resolve_initial_folder

FOLDER = "initial_weights"


@contextmanager
def prepared_initial_weights(
    initial_weights: str,
    *,
    work: Path,
    tracking_uri: str,
    family: str,
    processes: Processes = SINGLE,
) -> Iterator[Path | None]:
    """The bundle's folder for the block; None for ``none``. ``family`` is what will be trained.

    A registered model is downloaded and a checkpoint converted into a folder of ``work``, by the
    first process alone; it is made anew each time, because an alias may have moved on.

    Raises:
        CheckpointError: no such folder or built-in generator, or a damaged checkpoint.
        RegistryError: no such model, version or alias.
    """
    write = _choose_preparation(initial_weights, tracking_uri)
    if write is None:
        yield resolve_initial_folder(initial_weights, family)
        return
    prepared = work / FOLDER
    if processes.is_lead:
        shutil.rmtree(prepared, ignore_errors=True)
        write(prepared)
    processes.wait()
    try:
        yield prepared
    finally:
        if processes.is_lead:
            shutil.rmtree(prepared, ignore_errors=True)


def _choose_preparation(initial_weights: str, tracking_uri: str) -> Callable[[Path], None] | None:
    """What writes the bundle into a folder; None where the name is a bundle's already."""
    if initial_weights.startswith(REGISTRY_PREFIX):
        return lambda target: _fetch_registered(initial_weights, tracking_uri, target)
    if is_checkpoint(Path(initial_weights)):
        return lambda target: _convert_checkpoint(Path(initial_weights), target)
    return None


def _fetch_registered(address: str, tracking_uri: str, target: Path) -> None:
    scratch = target.with_name(f".{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    bundle, _ = download_generator(address, tracking_uri=tracking_uri, target=scratch)
    bundle.replace(target)
    shutil.rmtree(scratch)


def _convert_checkpoint(folder: Path, target: Path) -> None:
    export_checkpoint(folder, target)
