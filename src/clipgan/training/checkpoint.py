"""Checkpoints that are whole or absent: one folder each, safetensors and JSON, never pickle.

A folder is written under a temporary name, every file is synced, then the folder is renamed. Its
``checkpoint.json`` holds the SHA-256 of every file: a damaged checkpoint is recognised, and the one
before it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from clipgan.artifacts import sync_folder
from clipgan.errors import CheckpointError
from clipgan.resume_state import REMOVED_SUFFIX, remove_folder
from clipgan.training.state import StateTensors

FORMAT_VERSION = 2
_MANIFEST_KEYS = {"fingerprint", "images_seen", "files", "progress", "subject"}
_PREFIX = "checkpoint-"
_MANIFEST = "checkpoint.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointMetadata:
    """What is trained: ``info``, JSON values, and ``constants``, tensors that never change.

    Written into every checkpoint, so that it can be used without its run.
    """

    info: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: the position of the training, its metadata and every tensor."""

    images_seen: int
    progress: dict[str, Any]
    tensors: StateTensors
    metadata: dict[str, Any]


class _DamagedError(Exception):
    """A checkpoint that cannot be used; the text says why."""


class CheckpointStore:
    """The checkpoints of one run, newest last."""

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        fingerprint: str,
        metadata: CheckpointMetadata | None = None,
    ) -> None:
        """``keep`` newest ones stay; ``fingerprint`` names the run they belong to."""
        self.folder = folder
        self.metadata = metadata or CheckpointMetadata()
        self.keep = keep
        self.fingerprint = fingerprint

    def list_folders(self) -> list[Path]:
        """Checkpoint folders, oldest first; unfinished ones are not among them."""
        return sorted(self.folder.glob(f"{_PREFIX}*"))

    def save(
        self,
        images_seen: int,
        progress: Mapping[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
    ) -> Path:
        """Write a checkpoint, then remove all but the newest.

        Raises:
            CheckpointError: the disk is full or cannot be written; earlier checkpoints are intact.
        """
        target = self.folder / f"{_PREFIX}{images_seen:012d}"
        temporary = self.folder / f".{target.name}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            files = {
                f"{name}.safetensors": _write(temporary / f"{name}.safetensors", _serialize(group))
                for name, group in {**self.metadata.constants, **tensors}.items()
            }
            manifest = {
                "format_version": FORMAT_VERSION,
                "fingerprint": self.fingerprint,
                "images_seen": images_seen,
                "files": files,
                "progress": dict(progress),
                "subject": dict(self.metadata.info),
            }
            text = json.dumps(manifest, allow_nan=False)
            _write(temporary / _MANIFEST, text.encode())
            sync_folder(temporary)
            self._remove(target)
            temporary.replace(target)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(self._describe_failure(images_seen, error)) from error
        self._prune()
        return target

    def load_newest(self) -> Checkpoint | None:
        """The newest readable checkpoint; None where none was ever written.

        A damaged one is named in a warning, and the one before it is tried.

        Raises:
            CheckpointError: there are checkpoints, and none can be read.
        """
        folders = self.list_folders()
        for folder in reversed(folders):
            try:
                return _read_checkpoint(folder, self.fingerprint)
            except _DamagedError as error:
                logger.warning("%s is damaged (%s): using the one before", folder, error)
        if folders:
            raise CheckpointError(
                f"{self.folder}: none of its {len(folders)} checkpoints can be read; "
                "delete this folder to start the training over"
            )
        return None

    def _prune(self) -> None:
        for folder in self.list_folders()[: -self.keep]:
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        if folder.exists():
            remove_folder(folder)
        for stale in self.folder.glob(f".{_PREFIX}*{REMOVED_SUFFIX}"):
            shutil.rmtree(stale, ignore_errors=True)

    def _describe_failure(self, images_seen: int, error: OSError) -> str:
        folders = self.list_folders()
        kept = f"{folders[-1].name} is intact" if folders else "there is no earlier one"
        return (
            f"{self.folder}: the checkpoint at {images_seen:,} images cannot be written "
            f"({error.strerror or error}); {kept}: free disk space and run the same command again"
        )


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint of any run.

    Raises:
        CheckpointError: it is damaged or of another format.
    """
    try:
        return _read_checkpoint(folder, None)
    except _DamagedError as error:
        raise CheckpointError(
            f"{folder} is damaged ({error}): use the checkpoint before it"
        ) from error


def _read_checkpoint(folder: Path, fingerprint: str | None) -> Checkpoint:
    """``fingerprint``: of the run it must belong to; None: any."""
    manifest = _read_manifest(folder)
    if fingerprint is not None and manifest["fingerprint"] != fingerprint:
        raise _DamagedError(f"{_MANIFEST}: made by other parameters, data or code")
    tensors: StateTensors = {}
    for name, digest in manifest["files"].items():
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise _DamagedError(f"{name}: {error.strerror}") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise _DamagedError(f"{name}: its SHA-256 is not the one recorded")
        try:
            tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(data)
        except SafetensorError as error:
            raise _DamagedError(f"{name}: {error}") from None
    return Checkpoint(manifest["images_seen"], manifest["progress"], tensors, manifest["subject"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise _DamagedError(f"{_MANIFEST}: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise _DamagedError(f"{_MANIFEST}: not of format version {FORMAT_VERSION}")
    missing = _MANIFEST_KEYS - manifest.keys()
    if missing:
        raise _DamagedError(f"{_MANIFEST}: has no {min(missing)}")
    return manifest


def _serialize(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save(
        {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    )


def _write(path: Path, data: bytes) -> str:
    """Write and sync a file; returns the SHA-256 of ``data``."""
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    return hashlib.sha256(data).hexdigest()
