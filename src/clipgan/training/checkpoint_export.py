"""A checkpoint of a training as a generator bundle: a start for other trainings."""

from __future__ import annotations

from pathlib import Path

import torch

from clipgan.errors import CheckpointError, ConfigError
from clipgan.families.registry import find_family
from clipgan.models.bundle import BundleInfo, save_bundle
from clipgan.models.modality_gap import ModalityMeans
from clipgan.models.networks import Discriminator, Generator, NetworkSpec
from clipgan.training.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint
from clipgan.training.fine_tuning import Networks

_MEANS = "modality_means"


def build_metadata(
    networks: Networks[Generator, Discriminator],
    *,
    family: str,
    clip: dict[str, str],
    initial_images_seen: int,
    training: str,
    means: ModalityMeans | None,
) -> CheckpointMetadata:
    """What a checkpoint has to say of its networks, so that it can be used without its run.

    Args:
        family: whose networks they are.
        clip: fingerprint of the CLIP the networks are trained with.
        initial_images_seen: by the bundle that the training started from.
        training: fingerprint of the training.
        means: of CLIP features, where the modality gap is removed.
    """
    info = {
        "family": family,
        "clip": clip,
        "resolution_px": networks.generator.resolution_px,
        "initial_images_seen": initial_images_seen,
        "training": training,
        "generator": dict(networks.generator.architecture),
        "discriminator": dict(networks.discriminator.architecture),
    }
    constants = {} if means is None else {_MEANS: {"image": means.image, "text": means.text}}
    return CheckpointMetadata(info, constants)


def export_checkpoint(folder: Path, target: Path) -> BundleInfo:
    """Write the averaged generator and the discriminator of a checkpoint as a bundle (fp32).

    Raises:
        CheckpointError: the checkpoint is damaged, or of another version of the networks.
    """
    checkpoint = load_checkpoint(folder)
    try:
        return _save_as_bundle(checkpoint, target)
    except (KeyError, TypeError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder}: no networks of this program version ({reason}); start from a bundle"
        ) from error


def _save_as_bundle(checkpoint: Checkpoint, target: Path) -> BundleInfo:
    metadata, tensors = checkpoint.metadata, checkpoint.tensors
    info = BundleInfo(
        family=metadata["family"],
        clip=metadata["clip"],
        resolution_px=metadata["resolution_px"],
        images_seen=metadata["initial_images_seen"] + checkpoint.images_seen,
        provenance={"training": metadata["training"], "checkpoint": checkpoint.images_seen},
    )
    networks: NetworkSpec = find_family(info.family).load("networks")
    with torch.random.fork_rng(devices=[]):
        generator = networks.generator(**metadata["generator"])
        discriminator = networks.discriminator(**metadata["discriminator"])
    generator.load_state_dict(tensors["generator_ema"])
    discriminator.load_state_dict(tensors["discriminator"])
    means = ModalityMeans(**tensors[_MEANS]) if _MEANS in tensors else None
    return save_bundle(target, generator, discriminator, info, dtype="fp32", means=means)
