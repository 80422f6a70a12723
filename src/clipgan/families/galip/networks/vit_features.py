"""CLIP's frozen vision transformer as GALIP uses it (Tao et al. 2023, arXiv 2301.12959).

Two uses of one tower, neither of which trains it: the discriminator reads the patch tokens after
some of its blocks (CLIP-FE, section 3.2), and the generator sends bridge features and prompt tokens
through it in place of an image (mate-G, section 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor

from clipgan.clip.encoder import ClipEncoder
from clipgan.errors import ClipError
from clipgan.images import normalize, to_clip_input

ClipInput = Literal["correct", "official"]
SUGGESTED_VITS: Final = "clipgan-vit-h32-96, ViT-B-32, ViT-B-16 or ViT-L-14"


class TowerOutput(NamedTuple):
    """Patch tokens (N, blocks, width, grid, grid) and embeddings (N, embed_dim), float32."""

    intermediates: Tensor
    embeddings: Tensor


class VitTower:
    """An open_clip ``VisionTransformer``, frozen, with what GALIP's networks ask of it.

    It is no ``nn.Module`` on purpose: a network that holds it neither lists its weights as its own
    nor saves, averages, moves or all-reduces them, and copies of the network share it.

    Attributes:
        visual: open_clip's module, in evaluation mode and without gradients.
        side_px: side of the square it sees.
        grid_side: patches along one side.
        width: of the tokens.
        depth: number of blocks.
        embed_dim: width of the projected embedding, that of the text features.
        model: its name, for messages.
    """

    def __init__(
        self,
        visual: Any,
        *,
        side_px: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        model: str,
    ) -> None:
        """``mean`` and ``std`` belong to RGB in [0, 1].

        Raises:
            ClipError: the tower is a convolutional or a foreign one, or its grid is no square.
        """
        if not isinstance(visual, VisionTransformer):
            raise ClipError(
                f"features.clip_model = {model!r} has a {type(visual).__name__} as vision tower, "
                f"and GALIP needs open_clip's ViT: use {SUGGESTED_VITS}, or LAFITE, which takes any"
            )
        rows, columns = visual.grid_size
        if rows != columns:
            raise ClipError(
                f"features.clip_model = {model!r} has {rows} x {columns} patches, and GALIP needs "
                f"a square: use {SUGGESTED_VITS}"
            )
        self.visual: Any = visual.eval().requires_grad_(False)
        self.model, self.side_px, self.mean, self.std = model, side_px, mean, std
        self.grid_side = int(rows)
        self.width = int(visual.class_embedding.shape[0])
        self.depth = len(visual.transformer.resblocks)
        self.embed_dim = int(visual.output_dim)

    def __deepcopy__(self, memo: dict[int, Any]) -> VitTower:
        return self

    def prepare(self, images: Tensor, clip_input: ClipInput) -> Tensor:
        """Images in [-1, 1] -> what the tower sees, (N, 3, side_px, side_px) float32.

        ``correct`` resizes bicubically with antialias and normalises with mean and deviation.
        ``official`` is what the paper's code does and its discriminators were trained with: nearest
        resizing and a range that is converted twice, so that values reach the normalisation in
        [0.5, 1].
        """
        images = images.float()
        if clip_input == "correct":
            return to_clip_input(images, self.side_px, self.mean, self.std)
        # As [-1, 1] were [0, 1]: normalize converts the range a second time.
        unit = F.interpolate(images * 0.5 + 0.5, size=(self.side_px, self.side_px), mode="nearest")
        return normalize(unit, self.mean, self.std)

    def encode_intermediates(self, pixels: Tensor, tapped_blocks: Sequence[int]) -> Tensor:
        """Patch tokens after the given blocks; later blocks are not run.

        Args:
            pixels: (N, 3, side_px, side_px), from :meth:`prepare`.
            tapped_blocks: zero-based, growing.

        Returns:
            (N, intermediates, width, grid_side, grid_side) float32, without the class token.
            Differentiable with respect to ``pixels``.
        """
        with _without_autocast(pixels):
            output = self.visual.forward_intermediates(
                pixels.to(self._dtype),
                indices=list(tapped_blocks),
                stop_early=True,
                intermediates_only=True,
            )
            intermediates = torch.stack(output["image_intermediates"], dim=1)
        return intermediates.float()

    def encode(self, pixels: Tensor, tapped_blocks: Sequence[int]) -> TowerOutput:
        """:meth:`encode_intermediates` and the projected embedding, not normalised, in one pass."""
        with _without_autocast(pixels):
            output = self.visual.forward_intermediates(
                pixels.to(self._dtype), indices=list(tapped_blocks)
            )
            intermediates = torch.stack(output["image_intermediates"], dim=1)
        return TowerOutput(intermediates.float(), output["image_features"].float())

    def run_prompted(
        self, bridge_features: Tensor, prompts: Tensor, first_prompted_block: int
    ) -> Tensor:
        """Bridge features in place of patch embeddings, through all blocks.

        Prompt ``i`` stands behind the other tokens in block ``first_prompted_block + i`` only.

        Args:
            bridge_features: (N, width, grid_side, grid_side).
            prompts: (N, P, width); P may be 0.

        Returns:
            (N, width, grid_side, grid_side) float32: the patch tokens after the last block, without
            the final normalisation. Differentiable with respect to both.
        """
        with _without_autocast(bridge_features):
            visual, count = self.visual, len(bridge_features)
            patches = bridge_features.to(self._dtype).flatten(2).transpose(1, 2)
            class_token = visual.class_embedding.expand(count, 1, -1)
            tokens = torch.cat([class_token, patches], dim=1) + visual.positional_embedding
            tokens = visual.ln_pre(tokens)
            prompts = prompts.to(self._dtype)
            for index, block in enumerate(visual.transformer.resblocks):
                place = index - first_prompted_block
                if 0 <= place < prompts.shape[1]:
                    prompted = torch.cat([tokens, prompts[:, place : place + 1]], dim=1)
                    tokens = block(prompted)[:, :-1]
                else:
                    tokens = block(tokens)
        maps: Tensor = tokens[:, 1:].transpose(1, 2).reshape(bridge_features.shape)
        return maps.float()

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.visual.class_embedding.dtype
        return dtype


def build_vit_tower(encoder: ClipEncoder) -> VitTower:
    """The vision tower of a loaded CLIP, in the encoder's precision.

    Raises:
        ClipError: it is no ViT of open_clip; names the alternatives.
    """
    return VitTower(
        encoder.clip.visual,
        side_px=encoder.side_px,
        mean=encoder.mean,
        std=encoder.std,
        model=encoder.fingerprint["model"],
    )


def _without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    # The tower is held in its own precision; autocast would cast its weights again at every call.
    return torch.autocast(tensor.device.type, enabled=False)
