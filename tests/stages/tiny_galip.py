"""The tiny world for GALIP: a CLIP whose eye is a ViT of open_clip, small networks around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import Params
from clipgan.images import CLIP_MEAN, CLIP_STD, to_clip_input
from tests.galip_parts import TREE, build_tower
from tests.stages.tiny_training import TinyClip, tiny_params

CHANGES: dict[str, Any] = {
    "train.family": "galip",
    # The ViT's grid is 4 x 4: images of 8 px take two blocks.
    "train.galip": TREE,
}


class TinyVitClip(TinyClip):
    """A random ViT over 32 px, and hashed words, raw ones longer than one."""

    side_px = 32
    weights = "1" * 64
    text_length = 3.0
    mean, std = CLIP_MEAN, CLIP_STD

    def __init__(self) -> None:
        super().__init__()
        visual = build_tower(embed_dim=self.embed_dim).visual
        self.clip: Any = SimpleNamespace(visual=visual)
        self.visual = visual

    def encode_images(self, images: Tensor) -> Tensor:
        pixels = to_clip_input(images.float(), self.side_px, self.mean, self.std)
        return F.normalize(self.visual(pixels), dim=1)

    def encode_texts(self, captions: Any, *, normalize: bool = True) -> Tensor:
        return super().encode_texts(captions) * (1.0 if normalize else self.text_length)


def tiny_galip_params(changes: dict[str, Any] | None = None) -> Params:
    """:func:`tiny_params` for GALIP; changes below ``train.galip`` by dotted keys too."""
    return tiny_params({**CHANGES, **(changes or {})})


def draw_conditions(count: int, latent_dim: int) -> tuple[Tensor, Tensor]:
    """Latents and unit text features of the tiny CLIP's width."""
    draws = torch.Generator().manual_seed(0)
    texts = torch.randn(count, TinyClip.embed_dim, generator=draws)
    return torch.randn(count, latent_dim, generator=draws), F.normalize(texts, dim=1)
