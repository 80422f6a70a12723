"""Imported networks -> a bundle whose provenance names the official file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipgan.artifacts import hash_file
from clipgan.errors import CheckpointError, ImportWeightsError
from clipgan.models.bundle import INFO_FILE, BundleInfo, load_bundle_info, save_bundle
from clipgan.models.networks import Discriminator, Generator


def save_imported_bundle(
    folder: Path,
    family: str,
    generator: Generator,
    discriminator: Discriminator | None,
    *,
    source: Path,
    images_seen: int,
    clip_fingerprint: Mapping[str, str],
    clip_weights: str,
    provenance: Mapping[str, Any],
) -> BundleInfo:
    """Write imported networks as a bundle in fp32.

    Args:
        source: the official file; its name and hash go into the provenance.
        images_seen: in the official training; 0 where the file does not say.
        clip_fingerprint, clip_weights: of the CLIP whose text features the generator takes.
        provenance: what else is known of the file.

    Raises:
        ImportWeightsError: ``folder`` holds a bundle of something else.
        CheckpointError: a weight is not finite.
    """
    digest = hash_file(source)
    _refuse_to_replace(folder, digest)
    info = BundleInfo(
        family=family,
        clip=dict(clip_fingerprint),
        resolution_px=generator.resolution_px,
        images_seen=images_seen,
        provenance={
            "imported_from": source.name,
            "source_sha256": digest,
            **provenance,
            "clip_weights": clip_weights,
        },
    )
    return save_bundle(folder, generator, discriminator, info, dtype="fp32")


def make_absolute(clip_weights: str) -> str:
    """A weights file as an absolute path, because a bundle is used from any folder; tags stay."""
    local = Path(clip_weights)
    return str(local.resolve()) if local.exists() else clip_weights


def _refuse_to_replace(folder: Path, digest: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise ImportWeightsError(f"--out {folder}: is a file; name a folder")
    if not (folder / INFO_FILE).exists():
        return
    try:
        known = load_bundle_info(folder).provenance.get("source_sha256")
    except CheckpointError as error:
        raise ImportWeightsError(f"--out {folder}: {error}; or name another folder") from None
    if known != digest:
        raise ImportWeightsError(f"--out {folder}: holds another generator; name a new folder")
