"""LAFITE's generator (Zhou et al., arXiv 2111.13792, section 3.2).

StyleGAN2 with text in every layer: the skip architecture takes a text feature through a small
network of its own into the modulation of each convolution and each RGB layer.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clipgan.errors import ConfigError
from clipgan.families.lafite.config import StyleInput
from clipgan.families.lafite.networks.text_modulation import Modulation, ModulationPlan
from clipgan.models.networks import Generator
from clipgan.models.resampling import ResampleFilter
from clipgan.models.stylegan2 import (
    NUM_REDUCED_RESOLUTIONS,
    EqualizedLinear,
    ModulatedConv,
    ToRgb,
    choose_block_dtype,
    compute_block_channels,
    normalize_second_moment,
)
from clipgan.random_draws import draw_normal

NoiseMode = Literal["random", "const", "none"]

LATENT_AVERAGE_DECAY = 0.995
LARGEST_SIDE_PX = 1024
SLOW_LEARNING = 0.01
"""Learning-rate multiplier of the mapping network, and of the text paths in the paper's code."""


class SynthesisBlock(nn.Module):
    """Layers of one side: (upsampling) convolution, convolution, RGB; each with its modulation."""

    def __init__(
        self, in_channels: int | None, out_channels: int, side: int, plan: ModulationPlan
    ) -> None:
        super().__init__()
        self.conv_up = self.conv_up_affine = None
        if in_channels is not None:
            self.conv_up = ModulatedConv(in_channels, out_channels, side, up=True)
            self.conv_up_affine = plan.build_modulation(side, in_channels)
        self.conv = ModulatedConv(out_channels, out_channels, side, up=False)
        self.conv_affine = plan.build_modulation(side, out_channels)
        self.to_rgb = ToRgb(out_channels)
        self.to_rgb_affine = plan.build_modulation(side, out_channels)

    def convolutions(self) -> list[tuple[ModulatedConv, Modulation]]:
        """The block's convolutions with their modulations, in order."""
        layers = [(self.conv, self.conv_affine)]
        if self.conv_up is not None and self.conv_up_affine is not None:
            layers.insert(0, (self.conv_up, self.conv_up_affine))
        return layers


class LafiteGenerator(Generator):
    """Latents and text features -> images.

    ``compute_dtype`` (float32; set it to bfloat16 or float16 to save time and memory) is the number
    format of the blocks of the ``num_reduced_resolutions`` highest resolutions. Mapping, text
    paths, modulation, demodulation and the sum of the RGB layers are float32 always. ``num_layers``
    is the number of style slots, 2 * log2(resolution_px) - 2.

    Args:
        resolution_px: side of the images, a power of two from 8.
        text_dim: width of the CLIP features.
        text_hidden_dim: width of each layer's text path; 512 in the paper's code.
        channel_base: channels of a block are ``min(channel_base // side, channel_max)``.
        text_gain: factor on the unit-norm text features. 1 is the paper's code, where the text
            enters sqrt(text_dim) times weaker than the latents and takes long to be heard.
        text_learning_rate_multiplier: of the text paths; 0.01 in the paper's code, where they stay
            nearly random projections for the first hundred thousand images.
        style_input: what the text is concatenated with: ``latent``: w, as in the paper's code;
            ``affine``: an affine map of w, as in the paper.
        text_max_px: text enters the blocks up to this side, those above see the latents alone.
        text_concat_max_px: text enters by concatenation up to this side, above it by scale and
            shift (see ``text_modulation``); 256 in the paper's code.

    The defaults are the forms of bundles that were saved before these options existed.

    Raises:
        ConfigError: the resolution is no power of two from 8, a block has no channel, or
            ``style_input`` is unknown.
    """

    latent_average: Tensor

    def __init__(
        self,
        *,
        resolution_px: int,
        text_dim: int,
        latent_dim: int,
        style_dim: int,
        text_hidden_dim: int,
        mapping_layers: int,
        channel_base: int,
        channel_max: int,
        text_gain: float = 1.0,
        text_learning_rate_multiplier: float = SLOW_LEARNING,
        style_input: StyleInput = "latent",
        text_max_px: int = LARGEST_SIDE_PX,
        text_concat_max_px: int = LARGEST_SIDE_PX,
    ) -> None:
        super().__init__()
        plan = ModulationPlan(
            text_dim=text_dim,
            style_dim=style_dim,
            text_hidden_dim=text_hidden_dim,
            text_learning_rate_multiplier=text_learning_rate_multiplier,
            style_input=style_input,
            text_max_px=text_max_px,
            text_concat_max_px=text_concat_max_px,
        )
        self.architecture: dict[str, Any] = {
            "resolution_px": resolution_px,
            "text_gain": text_gain,
            "latent_dim": latent_dim,
            "mapping_layers": mapping_layers,
            "channel_base": channel_base,
            "channel_max": channel_max,
            **asdict(plan),
        }
        self.compute_dtype = torch.float32
        self.num_reduced_resolutions = NUM_REDUCED_RESOLUTIONS
        self.resolution_px, self.text_dim, self.latent_dim = resolution_px, text_dim, latent_dim
        self.text_gain = text_gain
        channels = compute_block_channels(resolution_px, channel_base, channel_max)
        self.num_layers = 2 * len(channels)
        self.mapping_network = _build_mapping_network(latent_dim, style_dim, mapping_layers)
        self.register_buffer("latent_average", torch.zeros(style_dim))
        self.text_path = plan.build_text_path(list(channels))
        self.constant = nn.Parameter(torch.randn(channels[4], 4, 4))
        self.blocks = _build_blocks(channels, plan)
        self.filter = ResampleFilter()

    def mapping(self, latents: Tensor) -> Tensor:
        """(N, latent_dim) float32 -> styles (N, num_layers, style_dim), the same in every slot."""
        style: Tensor = self.mapping_network(normalize_second_moment(latents.float()))
        return style[:, None].repeat(1, self.num_layers, 1)

    @torch.no_grad()
    def update_latent_average(self, styles: Tensor) -> None:
        """Move the running average of the styles by one batch (N, num_layers, style_dim).

        Called with the output of :meth:`mapping`, before style mixing, once a step or in every
        phase of it (``train.lafite.latent_average``).
        """
        self.latent_average.lerp_(styles[:, 0].mean(0), 1.0 - LATENT_AVERAGE_DECAY)

    def truncate(self, styles: Tensor, truncation: float, num_slots: int | None = None) -> Tensor:
        """Pull styles towards their average: 1 leaves them, 0 gives the average.

        Args:
            num_slots: only the first so many slots; None: all.
        """
        if truncation == 1.0:
            return styles
        pulled = torch.lerp(self.latent_average.expand_as(styles), styles, truncation)
        if num_slots is None:
            return pulled
        return torch.cat([pulled[:, :num_slots], styles[:, num_slots:]], 1)

    def synthesis(
        self,
        styles: Tensor,
        text_features: Tensor,
        *,
        noise: NoiseMode,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        """Styles and text features -> images.

        Args:
            styles: (N, num_layers, style_dim) float32; slots may differ (style mixing).
            text_features: (N, text_dim) float32, unit norm.
            noise: ``random``: fresh for every sample and layer; ``const``: the stored noise;
                ``none``.
            rng: of the random noise, on the device of ``styles``.

        Returns:
            (N, 3, R, R) float32, about [-1, 1], not clamped.
        """
        texts = text_features.float() * self.text_gain
        codes = iter(() if self.text_path is None else self.text_path(texts).unbind(0))
        slot = 0
        features = self.constant.expand(len(styles), -1, -1, -1)
        images: Tensor | None = None
        for side, block in self._sized_blocks():
            features = features.to(
                choose_block_dtype(
                    side, self.resolution_px, self.compute_dtype, self.num_reduced_resolutions
                ),
                memory_format=torch.channels_last,
            )
            for layer, modulation in block.convolutions():
                factors = modulation.modulate(styles[:, slot], texts, codes)
                drawn = _draw_noise(layer, noise, len(styles), rng)
                features = layer(features, factors, drawn)
                slot += 1
            # The RGB layer shares the slot of the next block's first convolution.
            factors = block.to_rgb_affine.modulate(styles[:, slot], texts, codes)
            colors = block.to_rgb(features, factors)
            images = colors if images is None else self.filter.upsample(images) + colors
        assert images is not None
        return images.contiguous()

    def forward(
        self,
        latents: Tensor,
        text_features: Tensor,
        *,
        truncation: float = 1.0,
        noise: NoiseMode = "const",
    ) -> Tensor:
        """(N, latent_dim) and (N, text_dim) -> images (N, 3, R, R) float32, not clamped."""
        styles = self.truncate(self.mapping(latents), truncation)
        return self.synthesis(styles, text_features, noise=noise)

    def _sized_blocks(self) -> list[tuple[int, SynthesisBlock]]:
        return [
            (int(side), block)
            for side, block in self.blocks.items()
            if isinstance(block, SynthesisBlock)
        ]


def _build_blocks(channels: dict[int, int], plan: ModulationPlan) -> nn.ModuleDict:
    ins = [None, *channels.values()]
    return nn.ModuleDict(
        {
            str(side): SynthesisBlock(ins[index], channels[side], side, plan)
            for index, side in enumerate(channels)
        }
    )


def _build_mapping_network(latent_dim: int, style_dim: int, num_layers: int) -> nn.Sequential:
    widths = [latent_dim] + [style_dim] * num_layers
    return nn.Sequential(
        *(
            EqualizedLinear(a, b, learning_rate_multiplier=SLOW_LEARNING, activate=True)
            for a, b in pairwise(widths)
        )
    )


def _draw_noise(
    layer: ModulatedConv, mode: NoiseMode, samples: int, rng: torch.Generator | None
) -> Tensor | None:
    match mode:
        case "none":
            return None
        case "const":
            return layer.noise_constant
        case "random":
            side, device = layer.resolution_px, layer.noise_constant.device
            return draw_normal((samples, 1, side, side), rng, device=device)
    raise ConfigError(f"noise = {mode!r}: use random, const or none")
