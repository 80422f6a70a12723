"""The papers' networks at their official widths around a CLIP with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from clipgan.config import TrainConfig, load_profile
from clipgan.data.batches import Batch
from clipgan.devices import DTYPES
from clipgan.families.galip.networks.vit_features import VitTower
from clipgan.families.galip.training.start import build_galip_networks
from clipgan.families.galip.training.step import GalipStep
from clipgan.families.lafite.training import SPEC as LAFITE
from clipgan.images import CLIP_MEAN, CLIP_STD, to_clip_input
from clipgan.random_draws import StepRandom
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import SINGLE
from clipgan.training.state import StepLosses

ROOT = Path(__file__).parents[2]
OFFICIAL = ROOT / "profiles" / "lafite-official.yaml"
FAMILIES = ("lafite", "galip")


@dataclass(frozen=True)
class Sizes:
    """What is measured: sides in px, images at once, seconds a row at most, and whether widths are
    the papers'."""

    sides_px: tuple[int, ...]
    batch_size: int
    extraction_batch: int
    sampling_batch: int
    row_seconds: float
    official: bool


FULL = Sizes((64, 256), 32, 256, 64, 20.0, official=True)
TINY = Sizes((16,), 4, 4, 2, 0.4, official=False)


class RandomClip:
    """The vision tower of ViT-B-32 (or a tiny one) with random weights, frozen, on a device."""

    def __init__(self, sizes: Sizes, precision: str, device: torch.device) -> None:
        shape = (
            {"image_size": 224, "patch_size": 32, "width": 768, "layers": 12, "heads": 12}
            if sizes.official
            else {"image_size": 32, "patch_size": 8, "width": 64, "layers": 4, "heads": 1}
        )
        torch.manual_seed(0)
        visual = VisionTransformer(
            **shape, mlp_ratio=4.0, output_dim=512 if sizes.official else 16, pool_type="tok"
        )
        self.dtype = DTYPES[precision]
        visual.to(device, self.dtype)
        self.tower = VitTower(
            visual, side_px=int(shape["image_size"]), mean=CLIP_MEAN, std=CLIP_STD, model="random"
        )
        self.side_px, self.embed_dim = self.tower.side_px, self.tower.embed_dim
        # Where heads on its maps look for the trunk and its name.
        self.clip, self.fingerprint = SimpleNamespace(visual=visual), {"model": "random"}

    def encode_images(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, D) float32, unit norm."""
        pixels = to_clip_input(images.float(), self.side_px, CLIP_MEAN, CLIP_STD)
        return F.normalize(self.tower.visual(pixels.to(self.dtype)).float(), dim=1)


def build_config(
    family: str, side_px: int, precision: str, sizes: Sizes, profile: Path = OFFICIAL
) -> TrainConfig:
    """A profile with one family, size and precision; captions are not used.

    Section ``galip`` of ``lafite-official`` holds the paper's widths too.
    """
    config = load_profile(profile).train
    pseudo = config.pseudo_text.model_copy(update={"pseudo_text_probability": 1.0})
    changes: dict[str, Any] = {
        "family": family,
        "resolution_px": side_px,
        "precision": precision,
        "batch_size": sizes.batch_size,
        "pseudo_text": pseudo,
        "warm_up_images": 0,
    }
    if not sizes.official:
        narrow = {"channel_base": 128, "channel_max": 16}
        small = {"latent_dim": 16, "style_dim": 16, "text_hidden_dim": 16, "mapping_layers": 2}
        lafite, galip = config.lafite, config.galip
        changes["lafite"] = lafite.model_copy(
            update={
                "generator": lafite.generator.model_copy(update={**narrow, **small}),
                "discriminator": lafite.discriminator.model_copy(update=narrow),
            }
        )
        drawn = {"base_channels": 2, "bridge_channels": 4, "prompt_tokens": 2, "latent_dim": 8}
        seen = {"tapped_blocks": (0, 1, 3), "channels": 8, "head_channels": 4}
        changes["galip"] = galip.model_copy(
            update={
                "generator": galip.generator.model_copy(update=drawn),
                "discriminator": galip.discriminator.model_copy(update=seen),
            }
        )
    return config.model_copy(update=changes)


@dataclass
class Training:
    """A step with its batch; ``run()`` makes one update after the other."""

    step: AdversarialStep
    clip: RandomClip
    batch: Batch
    device: torch.device
    index: int = 0

    def __post_init__(self) -> None:
        self.random = StepRandom(self.device)

    def run(self) -> StepLosses:
        """One update with fresh random numbers; its losses stay on the device."""
        self.random.seed(0, self.index)
        losses = self.step.step(self.batch, self.index * len(self.batch.images), self.random)
        self.index += 1
        return losses


def build_training(
    family: str,
    side_px: int,
    precision: str,
    sizes: Sizes,
    device: torch.device,
    *,
    change: Callable[[RandomClip, Any], None] | None = None,
    profile: Path = OFFICIAL,
) -> Training:
    """Networks with random weights, their step and one random batch.

    Args:
        change: alters CLIP and networks before the step is built (compilation, memory format).
        profile: everything that is not an argument comes from it.
    """
    config = build_config(family, side_px, precision, sizes, profile)
    clip = RandomClip(sizes, precision if device.type == "cuda" else "fp32", device)
    networks: Any
    lafite_clip: Any = clip
    nothing: Any = None
    conditions = Conditions(lafite_clip, nothing, nothing, nothing, None, None)
    if family == "galip":
        networks = build_galip_networks(
            config.galip, clip.tower, resolution_px=side_px, seed=config.seed
        )
    else:
        networks = LAFITE.build_networks(config, lafite_clip)
    networks.move_to(device)
    if change is not None:
        change(clip, networks)
    step: AdversarialStep = (
        GalipStep(networks, clip.tower, config)
        if family == "galip"
        else LAFITE.build_step(config, networks, conditions, SINGLE)
    )
    count = config.batch_size
    features = F.normalize(torch.randn(count, clip.embed_dim, device=device), dim=1)
    images = torch.rand(count, 3, side_px, side_px, device=device) * 2 - 1
    return Training(step, clip, Batch(images, features, features), device)


def describe_versions() -> str:
    """Versions of the libraries that were measured."""
    return f"torch {torch.__version__}, open_clip {open_clip.__version__}"
