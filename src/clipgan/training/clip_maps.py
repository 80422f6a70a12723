"""Maps of the frozen CLIP at growing depth, read off while it encodes images.

One pass gives both what the heads of a projected discriminator look at and the embedding of the
contrastive term. A warm-up by drifting compares images in the maps alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from clipgan.clip.encoder import ClipEncoder
from clipgan.clip.hybrid import HybridStem
from clipgan.errors import ClipError

SUGGESTED = "clipgan-vit-h32-96, ViT-B-32, ViT-B-16 or ViT-L-14"


class MapsSetting(NamedTuple):
    """The key that says how many depths are read, and what to set where a CLIP has none."""

    key: str
    instead: str


PROJECTED_HEADS = MapsSetting("train.lafite.discriminator.projected.heads", "kind: stylegan2")
DRIFTING_DEPTHS = MapsSetting("train.drifting.depths", "warm_up_loss: reconstruction")


class ClipView(NamedTuple):
    """``maps`` (N, C_k, H_k, W_k) of growing depth, ``features`` (N, D) float32 unit vectors."""

    maps: list[Tensor]
    features: Tensor


class ClipMaps:
    """The image trunk of a CLIP, frozen, at a few of its depths.

    The built-in CLIP has the maps of its EfficientNet at strides 4, 8, 16 and 32, an open_clip
    ViT the patch tokens behind its blocks. Fewer depths than there are lie evenly, the deepest
    among them (blocks 3, 6, 9 and 12 of 12 for four).
    """

    def __init__(
        self,
        clip: ClipEncoder,
        count: int,
        encode_images: Callable[[Tensor], Tensor] | None = None,
        *,
        setting: MapsSetting = PROJECTED_HEADS,
    ) -> None:
        """
        Args:
            count: depths to read.
            encode_images: the encoder's own function, or one that goes on from it; None: that.
            setting: what an error names.

        Raises:
            ClipError: the trunk is neither of the two kinds, or has fewer depths.
        """
        visual, model = clip.clip.visual, clip.fingerprint["model"]
        depths = _list_depths(visual, model, setting)
        if count > len(depths):
            raise ClipError(
                f"{setting.key} = {count}, but the image trunk of "
                f"{model} has {len(depths)} depths: use at most that"
            )
        self._modules = [depths[(k + 1) * len(depths) // count - 1] for k in range(count)]
        self._encode_images = encode_images or clip.encode_images
        self._grid: tuple[int, int] = visual.grid_size
        self._side_px = clip.side_px
        self._device = next(visual.parameters()).device

    def encode(self, images: Tensor) -> ClipView:
        """Images (N, 3, H, W) in [-1, 1], any size; differentiable with respect to them."""
        outputs: list[Tensor] = []
        hooks = [
            module.register_forward_hook(lambda _, __, output: outputs.append(output))
            for module in self._modules
        ]
        try:
            features = self._encode_images(images)
        finally:
            for hook in hooks:
                hook.remove()
        return ClipView([self._arrange(output) for output in outputs], features)

    @torch.no_grad()
    def count_channels(self) -> list[int]:
        """C_k of each depth."""
        blank = torch.zeros(1, 3, self._side_px, self._side_px, device=self._device)
        return [maps.shape[1] for maps in self.encode(blank).maps]

    def _arrange(self, output: Tensor) -> Tensor:
        """Tokens (N, extra + patches, C) as maps; maps stay."""
        if output.ndim == 4:
            return output
        rows, columns = self._grid
        patches = output[:, -rows * columns :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], rows, columns)


def _list_depths(visual: Any, model: str, setting: MapsSetting) -> list[nn.Module]:
    if not isinstance(visual, VisionTransformer) or not visual.transformer.batch_first:
        raise ClipError(
            f"features.clip_model = {model!r} has a {type(visual).__name__} as image tower, and "
            f"{setting.key} counts depths of the built-in one or of open_clip's ViT: use "
            f"{SUGGESTED}, or {setting.instead}"
        )
    if isinstance(visual.conv1, HybridStem):
        return visual.conv1.trunk.list_depths()
    return list(visual.transformer.resblocks)
