"""GALIP's mate generator (Tao et al., arXiv 2301.12959, section 3.3).

A bridge predictor turns latents and text into features that CLIP's frozen vision transformer can
read in place of patch embeddings; what the transformer makes of them, steered by predicted prompt
tokens, is added to them and drawn by convolutional blocks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.errors import ConfigError
from clipgan.models.networks import Generator

if TYPE_CHECKING:  # open_clip takes seconds to import
    from clipgan.clip.encoder import ClipEncoder

LEAKY_SLOPE = 0.2
WIDEST = 8
"""Most channels of a block, in multiples of ``base_channels`` (arXiv 2008.05865)."""


class PromptedTower(Protocol):
    """What the generator asks of CLIP's vision transformer: see ``vit_features``."""

    model: str
    width: int
    grid_side: int
    depth: int

    def run_prompted(
        self, bridge_features: Tensor, prompts: Tensor, first_prompted_block: int
    ) -> Tensor:
        """(N, W, g, g) and (N, P, W) -> (N, W, g, g) float32."""


class ConditionalAffine(nn.Module):
    """``x * scale + shift`` a channel, from networks on the condition; starts as the identity."""

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.scale = _build_affine_network(channels, condition_dim, start=1.0)
        self.shift = _build_affine_network(channels, condition_dim, start=0.0)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """(N, C, H, W) and (N, condition_dim) -> (N, C, H, W)."""
        scale, shift = self.scale(condition), self.shift(condition)
        changed: Tensor = features * scale[:, :, None, None] + shift[:, :, None, None]
        return changed


class FusionBlock(nn.Module):
    """Two conditional affines, each with a leaky ReLU (the DFBlock of arXiv 2008.05865)."""

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.first = ConditionalAffine(channels, condition_dim)
        self.second = ConditionalAffine(channels, condition_dim)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """(N, C, H, W) and (N, condition_dim) -> (N, C, H, W)."""
        features = F.leaky_relu(self.first(features, condition), LEAKY_SLOPE)
        return F.leaky_relu(self.second(features, condition), LEAKY_SLOPE)


class BridgeBlock(nn.Module):
    """Residual block of the bridge predictor, half as wide inside."""

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        middle = channels // 2
        self.conv_in = nn.Conv2d(channels, middle, 3, padding=1)
        self.fuse_in = FusionBlock(middle, condition_dim)
        self.conv_out = nn.Conv2d(middle, channels, 3, padding=1)
        self.fuse_out = FusionBlock(channels, condition_dim)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """(N, C, g, g) and (N, condition_dim) -> (N, C, g, g)."""
        hidden = self.fuse_in(self.conv_in(features), condition)
        changed: Tensor = features + self.fuse_out(self.conv_out(hidden), condition)
        return changed


class GeneratorBlock(nn.Module):
    """Nearest resizing to ``side_px``, then a residual block whose convolutions see the text."""

    def __init__(
        self, in_channels: int, out_channels: int, side_px: int, condition_dim: int
    ) -> None:
        super().__init__()
        self.side_px = side_px
        self.fuse_in = FusionBlock(in_channels, condition_dim)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.fuse_out = FusionBlock(out_channels, condition_dim)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """(N, in, H, W) and (N, condition_dim) -> (N, out, side_px, side_px)."""
        # What sees one pixel at a time may come before nearest resizing, on fewer pixels.
        hidden = self._resize(self.fuse_in(features, condition))
        drawn: Tensor = self.conv_out(self.fuse_out(self.conv_in(hidden), condition))
        return drawn + self._resize(self.shortcut(features))

    def _resize(self, features: Tensor) -> Tensor:
        return F.interpolate(features, size=(self.side_px, self.side_px), mode="nearest")


class GalipGenerator(Generator):
    """Latents and text features -> images.

    CLIP's tower is not part of it: :meth:`attach_tower` lends it before the first call, and
    ``state_dict``, ``parameters`` and copies leave it out. Weights are float32; run it under
    ``torch.autocast`` for less.

    Args:
        resolution_px: side of the images, at least that of the first block (see
            :func:`compute_block_sides`).
        text_dim: width of the CLIP features.
        base_channels: of the last block; earlier ones have up to eight times as many.
        bridge_channels: of the bridge predictor, even; 64 in the paper.
        bridge_blocks: of the bridge predictor; 4 in the paper.
        prompt_tokens: one for each block from ``first_prompted_block`` on; 0: none.
        bridge_weight: of the bridge features in the sum that is drawn; 1 in the paper.
        vit_weight: of the transformer's output in it; 0.1 in the paper. 0: the transformer is not
            run, and there must be no prompt tokens.
        text_gain: factor on the text features. The paper's code takes CLIP's features as they come,
            several times longer than one; unit features with gain 1 are heard less than latents.
        text_norm: ``unit`` where it was trained on unit features, ``raw`` where on features as they
            come out of CLIP (the paper's weights). Callers encode texts accordingly.
        vit_width, vit_grid_side: of the tower that will be attached.
    """

    def __init__(
        self,
        *,
        resolution_px: int,
        text_dim: int,
        latent_dim: int,
        base_channels: int,
        bridge_channels: int,
        bridge_blocks: int,
        prompt_tokens: int,
        first_prompted_block: int,
        bridge_weight: float,
        vit_weight: float,
        text_gain: float,
        text_norm: Literal["unit", "raw"],
        vit_width: int,
        vit_grid_side: int,
    ) -> None:
        """
        Raises:
            ConfigError: the resolution is below that of the first block, or the weights leave
                nothing to draw or nothing to prompt.
        """
        super().__init__()
        self.architecture: dict[str, Any] = {
            "resolution_px": resolution_px,
            "text_dim": text_dim,
            "latent_dim": latent_dim,
            "base_channels": base_channels,
            "bridge_channels": bridge_channels,
            "bridge_blocks": bridge_blocks,
            "prompt_tokens": prompt_tokens,
            "first_prompted_block": first_prompted_block,
            "bridge_weight": bridge_weight,
            "vit_weight": vit_weight,
            "text_gain": text_gain,
            "text_norm": text_norm,
            "vit_width": vit_width,
            "vit_grid_side": vit_grid_side,
        }
        _check_weights(bridge_weight, vit_weight, prompt_tokens)
        self.resolution_px, self.text_dim, self.latent_dim = resolution_px, text_dim, latent_dim
        self.prompt_tokens, self.first_prompted_block = prompt_tokens, first_prompted_block
        self.bridge_weight, self.vit_weight = bridge_weight, vit_weight
        self.text_gain, self.text_norm = text_gain, text_norm
        self.takes_raw_texts = text_norm == "raw"
        self.vit_width, self.vit_grid_side = vit_width, vit_grid_side
        self.tower: PromptedTower | None = None
        condition_dim = latent_dim + text_dim
        self.latent_projection = nn.Linear(latent_dim, bridge_channels * vit_grid_side**2)
        self.prompt_predictor = (
            nn.Linear(condition_dim, prompt_tokens * vit_width) if prompt_tokens else None
        )
        self.bridge_blocks = nn.ModuleList(
            BridgeBlock(bridge_channels, condition_dim) for _ in range(bridge_blocks)
        )
        self.bridge_projection = nn.Conv2d(bridge_channels, vit_width, 5, padding=2)
        self.merge, self.blocks, self.to_rgb = _build_drawing(
            vit_width,
            compute_block_sides(vit_grid_side, resolution_px),
            base_channels,
            condition_dim,
        )

    def attach_tower(self, tower: PromptedTower) -> GalipGenerator:
        """Lend CLIP's vision transformer; it must be on the generator's device.

        Raises:
            ConfigError: the tower is of another size than the generator's weights ask for.
        """
        sizes = {
            "width": (tower.width, self.vit_width),
            "grid side": (tower.grid_side, self.vit_grid_side),
        }
        for name, (found, wanted) in sizes.items():
            if found != wanted:
                raise ConfigError(
                    f"the vision transformer of {tower.model} has {name} {found}, the generator "
                    f"was made for {wanted}: use the CLIP it was trained with"
                )
        last = self.first_prompted_block + self.prompt_tokens
        if self.prompt_tokens and last > tower.depth:
            raise ConfigError(
                f"prompt_tokens = {self.prompt_tokens} from first_prompted_block = "
                f"{self.first_prompted_block} on need {last} blocks, and {tower.model} has "
                f"{tower.depth}: use at most {max(0, tower.depth - self.first_prompted_block)}"
            )
        self.tower = tower
        return self

    def attach_clip(self, clip: ClipEncoder) -> None:
        """:meth:`attach_tower` with the vision tower of a CLIP; ClipError where that is no ViT."""
        from clipgan.families.galip.networks.vit_features import build_vit_tower

        self.attach_tower(build_vit_tower(clip))

    def forward(self, latents: Tensor, text_features: Tensor, *, truncation: float = 1.0) -> Tensor:
        """Images of latents and texts.

        Args:
            latents: (N, latent_dim) standard normal.
            text_features: (N, text_dim), unit norm or not as ``text_norm`` says.
            truncation: 1 alone: there are no styles.

        Returns:
            (N, 3, R, R) float32, about [-1, 1], not clamped.

        Raises:
            ConfigError: the text features are of another width, a truncation is asked for, or no
                tower was attached.
        """
        if truncation != 1.0:
            found = f"truncation = {truncation}: GALIP has no styles to truncate"
            raise ConfigError(f"{found}; use 1, or truncate its latents")
        if text_features.shape[1] != self.text_dim:
            raise ConfigError(
                f"text features are {text_features.shape[1]} wide, the generator was made for "
                f"{self.text_dim}: use features of the CLIP it was trained with"
            )
        latents = latents.float()
        condition = torch.cat([latents, text_features.float() * self.text_gain], dim=1)
        features = self.merge(self._see(self.predict_bridge(latents, condition), condition))
        for block in self.blocks:
            features = block(features, condition)
        images: Tensor = self.to_rgb(F.leaky_relu(features, LEAKY_SLOPE))
        return images.float()

    def predict_bridge(self, latents: Tensor, condition: Tensor) -> Tensor:
        """(N, latent_dim) and (N, latent_dim + text_dim) -> bridge features (N, W, g, g)."""
        grid = self.vit_grid_side
        features = self.latent_projection(latents).view(len(latents), -1, grid, grid)
        for block in self.bridge_blocks:
            features = block(features, condition)
        bridge: Tensor = self.bridge_projection(features)
        return bridge

    def predict_prompts(self, condition: Tensor) -> Tensor:
        """(N, latent_dim + text_dim) -> prompt tokens (N, P, W)."""
        if self.prompt_predictor is None:
            return condition.new_zeros(len(condition), 0, self.vit_width)
        prompts: Tensor = self.prompt_predictor(condition)
        return prompts.view(len(condition), self.prompt_tokens, self.vit_width)

    def _see(self, bridge: Tensor, condition: Tensor) -> Tensor:
        if not self.vit_weight:
            return self.bridge_weight * bridge
        if self.tower is None:
            raise ConfigError("the generator has no CLIP tower: call attach_tower first")
        prompts = self.predict_prompts(condition)
        seen = self.tower.run_prompted(bridge, prompts, self.first_prompted_block)
        return self.bridge_weight * bridge + self.vit_weight * seen


def compute_block_sides(grid_side: int, resolution_px: int) -> list[int]:
    """Output sides of the generator's blocks: powers of two from the tower's grid, at least 4, up
    to the resolution, which need not be one: a grid of 7 and 224 px give 8, 16, 32, 64, 128, 224.

    Raises:
        ConfigError: the images are smaller than the first block.
    """
    first = 4
    while first < grid_side:
        first *= 2
    if resolution_px < first:
        raise ConfigError(
            f"resolution_px = {resolution_px} is smaller than the first block of {first} px over "
            f"a grid of {grid_side} patches: use at least {first}"
        )
    sides = [first]
    while sides[-1] * 2 < resolution_px:
        sides.append(sides[-1] * 2)
    return sides if sides[-1] == resolution_px else [*sides, resolution_px]


def compute_galip_channels(num_blocks: int, base_channels: int) -> list[int]:
    """Channels before the first and after each block: halved towards the last, which has
    ``base_channels``, and never more than eight times as many."""
    multiples = [min(WIDEST, 2 ** (num_blocks - 1 - index)) for index in range(num_blocks)]
    return [base_channels * multiple for multiple in (WIDEST, *multiples)]


def _build_drawing(
    vit_width: int, sides: list[int], base_channels: int, condition_dim: int
) -> tuple[nn.Conv2d, nn.ModuleList, nn.Conv2d]:
    channels = compute_galip_channels(len(sides), base_channels)
    blocks = nn.ModuleList(
        GeneratorBlock(before, after, side, condition_dim)
        for (before, after), side in zip(pairwise(channels), sides, strict=True)
    )
    merge = nn.Conv2d(vit_width, channels[0], 5, padding=2)
    return merge, blocks, nn.Conv2d(channels[-1], 3, 3, padding=1)


def _build_affine_network(channels: int, condition_dim: int, *, start: float) -> nn.Sequential:
    last = nn.Linear(channels, channels)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, start)
    return nn.Sequential(nn.Linear(condition_dim, channels), nn.ReLU(), last)


def _check_weights(bridge_weight: float, vit_weight: float, prompt_tokens: int) -> None:
    if not bridge_weight and not vit_weight:
        raise ConfigError("bridge_weight = 0 and vit_weight = 0 leave nothing to draw: set one")
    if not vit_weight and prompt_tokens:
        raise ConfigError(
            f"vit_weight = 0 and prompt_tokens = {prompt_tokens}: without the transformer there is "
            "nothing to prompt; set prompt_tokens to 0"
        )
