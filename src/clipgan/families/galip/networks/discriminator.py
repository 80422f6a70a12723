"""GALIP's mate discriminator and its conditional head (Tao et al., arXiv 2301.12959, section 3.2).

It never sees pixels: its input are patch tokens that CLIP's frozen vision transformer gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipgan.errors import ConfigError
from clipgan.families.galip.networks.generator import LEAKY_SLOPE
from clipgan.models.networks import Discriminator

LARGEST_FIRST_KERNEL = 4


class MateBlock(nn.Module):
    """Features plus gated residual plus gated tokens of the next tapped block; both gates start at
    zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual_gain = nn.Parameter(torch.zeros(1))
        self.skip_gain = nn.Parameter(torch.zeros(1))
        self.residual = _build_residual(width, width)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """(N, W, g, g), twice -> (N, W, g, g)."""
        changed: Tensor = features + self.residual_gain * self.residual(features)
        return changed + self.skip_gain * tokens


class MateOutput(nn.Module):
    """The last block: another number of channels, no skip."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.residual_gain = nn.Parameter(torch.zeros(1))
        self.residual = _build_residual(width, channels)
        # No unused weights: where nothing needs to be adapted there is no convolution.
        self.shortcut = nn.Identity() if width == channels else nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, W, g, g) -> (N, channels, g, g)."""
        changed: Tensor = self.shortcut(features) + self.residual_gain * self.residual(features)
        return changed


class ConditionalHead(nn.Module):
    """Features and a sentence -> one logit, by two convolutions that use up the grid."""

    def __init__(self, channels: int, text_dim: int, hidden_channels: int, grid_side: int) -> None:
        super().__init__()
        # 4 and 4 on CLIP ViT-B/32's grid of 7, as in the paper's code.
        first = min(LARGEST_FIRST_KERNEL, (grid_side + 2) // 2)
        self.conv_in = nn.Conv2d(channels + text_dim, hidden_channels, first, bias=False)
        self.conv_out = nn.Conv2d(hidden_channels, 1, grid_side - first + 1, bias=False)

    def forward(self, features: Tensor, sentences: Tensor) -> Tensor:
        """(N, channels, g, g) and (N, text_dim) -> logits (N,) float32."""
        tiled = sentences[:, :, None, None].expand(-1, -1, *features.shape[2:])
        hidden = self.conv_in(torch.cat([features, tiled.to(features.dtype)], dim=1))
        logits: Tensor = self.conv_out(nn.functional.leaky_relu(hidden, LEAKY_SLOPE))
        return logits.flatten().float()


class GalipDiscriminator(Discriminator):
    """Tapped tokens -> features -> a logit for each sentence.

    Args:
        text_dim: width of the CLIP features.
        tapped_blocks: zero-based blocks of the tower whose tokens it reads; 1, 4, 8 of 12 in the
            paper.
        channels: of its features; 512 in the paper.
        head_channels: inside the conditional head; 128 in the paper.
        text_gain: factor on the text features, the generator's.
        clip_input: how images reach the tower (``VitTower.prepare``); weights are tied to it.
        vit_width, vit_grid_side: of the tower.
    """

    def __init__(
        self,
        *,
        text_dim: int,
        tapped_blocks: Sequence[int],
        channels: int,
        head_channels: int,
        text_gain: float,
        clip_input: Literal["correct", "official"],
        vit_width: int,
        vit_grid_side: int,
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "text_dim": text_dim,
            "tapped_blocks": list(tapped_blocks),
            "channels": channels,
            "head_channels": head_channels,
            "text_gain": text_gain,
            "clip_input": clip_input,
            "vit_width": vit_width,
            "vit_grid_side": vit_grid_side,
        }
        self.text_dim, self.text_gain, self.clip_input = text_dim, text_gain, clip_input
        self.tapped_blocks = tuple(tapped_blocks)
        self.blocks = nn.ModuleList(MateBlock(vit_width) for _ in self.tapped_blocks[1:])
        self.output = MateOutput(vit_width, channels)
        self.head = ConditionalHead(channels, text_dim, head_channels, vit_grid_side)

    def forward(self, intermediates: Tensor) -> Tensor:
        """(N, intermediates, W, g, g) float32 -> features (N, channels, g, g) that know no text."""
        features = intermediates[:, 0]
        for index, block in enumerate(self.blocks, start=1):
            features = block(features, intermediates[:, index])
        found: Tensor = self.output(features)
        return found

    def scale_texts(self, text_features: Tensor) -> Tensor:
        """Text features (N, text_dim) -> sentences for the head.

        Raises:
            ConfigError: they are of another width than the discriminator's.
        """
        if text_features.shape[1] != self.text_dim:
            raise ConfigError(
                f"text features are {text_features.shape[1]} wide, the discriminator was made for "
                f"{self.text_dim}: use features of the CLIP it was trained with"
            )
        return text_features.float() * self.text_gain

    def compute_logits(self, features: Tensor, sentences: Tensor) -> Tensor:
        """(N, channels, g, g) and (N, text_dim) of :meth:`scale_texts` -> (N,) float32."""
        logits: Tensor = self.head(features, sentences)
        return logits


def _build_residual(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.LeakyReLU(LEAKY_SLOPE),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.LeakyReLU(LEAKY_SLOPE),
    )
