"""LAFITE's networks at the released size."""

from __future__ import annotations

import torch

from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator
from clipgan.families.lafite.networks.generator import LafiteGenerator


def build_released_size() -> tuple[LafiteGenerator, LafiteDiscriminator]:
    """256 px and ViT-B-32, shapes alone: every tensor is on the meta device."""
    with torch.device("meta"):
        generator = LafiteGenerator(
            resolution_px=256,
            text_dim=512,
            latent_dim=512,
            style_dim=512,
            text_hidden_dim=512,
            mapping_layers=8,
            channel_base=32768,
            channel_max=512,
        )
        discriminator = LafiteDiscriminator(
            resolution_px=256,
            text_dim=512,
            channel_base=32768,
            channel_max=512,
            minibatch_std_group=4,
        )
    return generator, discriminator
