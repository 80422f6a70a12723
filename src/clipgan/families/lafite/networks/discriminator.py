"""LAFITE's discriminator (Zhou et al., arXiv 2111.13792, section 3.1).

StyleGAN2's residual discriminator gives a realness and a semantic feature whose inner product with
the text feature is added to the realness.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.errors import ConfigError
from clipgan.families.lafite.config import SemanticLogit
from clipgan.models.networks import Discriminator
from clipgan.models.stylegan2 import (
    NUM_REDUCED_RESOLUTIONS,
    DiscriminatorBlock,
    EqualizedConv,
    EqualizedLinear,
    choose_block_dtype,
    compute_block_channels,
    compute_minibatch_stddev,
)


class DiscriminatorOutput(NamedTuple):
    """What the discriminator says of images: realness (N,) and semantic features (N, text_dim)."""

    realness: Tensor
    semantic_features: Tensor


class LafiteDiscriminator(Discriminator):
    """Images -> realness and semantic features.

    ``compute_dtype`` and ``num_reduced_resolutions`` work as in the generator. One trunk
    serves both outputs.

    Args:
        minibatch_std_group: group size of the minibatch standard deviation.
        semantic_logit: ``per_sample``: the paper's equation; ``batch_sum``: the released code, see
            :meth:`compute_logits`.
        normalize_semantic: divide semantic features by their length in the logit (off in the paper
            and by default in its code).

    The defaults are the forms of bundles that were saved before these options existed.

    Raises:
        ConfigError: the resolution is no power of two from 8, a block has no channel, or
            ``semantic_logit`` is unknown.
    """

    def __init__(
        self,
        *,
        resolution_px: int,
        text_dim: int,
        channel_base: int,
        channel_max: int,
        minibatch_std_group: int,
        semantic_logit: SemanticLogit = "per_sample",
        normalize_semantic: bool = False,
    ) -> None:
        super().__init__()
        self.architecture: dict[str, Any] = {
            "resolution_px": resolution_px,
            "text_dim": text_dim,
            "channel_base": channel_base,
            "channel_max": channel_max,
            "minibatch_std_group": minibatch_std_group,
            "semantic_logit": semantic_logit,
            "normalize_semantic": normalize_semantic,
        }
        if semantic_logit not in get_args(SemanticLogit):
            raise ConfigError(f"semantic_logit = {semantic_logit!r}: use per_sample or batch_sum")
        self.compute_dtype = torch.float32
        self.num_reduced_resolutions = NUM_REDUCED_RESOLUTIONS
        self.resolution_px, self.minibatch_std_group = resolution_px, minibatch_std_group
        self.semantic_logit, self.normalize_semantic = semantic_logit, normalize_semantic
        channels = compute_block_channels(resolution_px, channel_base, channel_max)
        self.blocks = nn.ModuleDict(
            {
                str(side): DiscriminatorBlock(
                    channels[side], channels[side // 2], from_rgb=side == resolution_px
                )
                for side in reversed(list(channels)[1:])
            }
        )
        last = channels[4]
        self.conv = EqualizedConv(last + 1, last, 3)
        self.trunk = EqualizedLinear(last * 16, last, activate=True)
        self.realness = EqualizedLinear(last, 1)
        self.semantic = EqualizedLinear(last, text_dim)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """(N, 3, R, R) float32 in [-1, 1] -> float32 outputs.

        Raises:
            ConfigError: N is no multiple of the minibatch group.
        """
        group = min(self.minibatch_std_group, len(images))
        if len(images) % group:
            raise ConfigError(
                f"minibatch_std_group = {group} does not divide the batch of {len(images)}: "
                "change one of them"
            )
        features = images
        for side, block in self.blocks.items():
            dtype = choose_block_dtype(
                int(side), self.resolution_px, self.compute_dtype, self.num_reduced_resolutions
            )
            features = block(features.to(dtype, memory_format=torch.channels_last))
        features = features.float()
        spread = compute_minibatch_stddev(features, group)
        extra = spread[:, None, None, None].expand(-1, 1, *features.shape[2:])
        trunk = self.trunk(self.conv(torch.cat([features, extra], 1)).flatten(1))
        return DiscriminatorOutput(self.realness(trunk)[:, 0], self.semantic(trunk))

    def list_blocks(self) -> list[nn.Module]:
        """The residual blocks, the highest resolution first."""
        return list(self.blocks.values())

    def compute_logits(self, output: DiscriminatorOutput, text_features: Tensor) -> Tensor:
        """Realness plus the inner product with the text (LAFITE, equation 4).

        ``per_sample``: ``f_d(x_i) + <h_i, f_s(x_i)>``. ``batch_sum``: ``f_d(x_i)`` plus the sum of
        the inner products of the whole batch: every logit then depends on every sample, the
        semantic gradient is N times and its share of R1 N^2 times as strong.

        Args:
            text_features: (N, text_dim) float32, unit norm.

        Returns:
            (N,) float32.
        """
        semantic = output.semantic_features
        if self.normalize_semantic:
            semantic = F.normalize(semantic, dim=1)
        products = (semantic * text_features).sum(1)
        if self.semantic_logit == "batch_sum":
            return output.realness + products.sum()
        return output.realness + products
