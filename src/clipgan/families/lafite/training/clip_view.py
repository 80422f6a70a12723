"""What CLIP looks at when it judges generated images."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from clipgan.families.lafite.config import ClipViewConfig
from clipgan.images import resize
from clipgan.random_draws import StepRandom

WHITE = 1.0


def draw_clip_views(
    images: Tensor, config: ClipViewConfig, clip_side_px: int, random: StepRandom
) -> list[Tensor]:
    """One or more views of the images; the contrastive term is averaged over them.

    - ``random_crop``: a square of a random side from ``min_side`` times the image's up to all of
      it, at a random place, the same for the whole batch;
    - ``full``: the image;
    - ``multi_crop``: ``crops`` such squares, drawn one after the other.

    With ``small_images: pad_white``, images smaller than CLIP's input are not cropped (and later
    enlarged) but put at a random place on a white square of CLIP's side, as the paper's code does.

    Args:
        images: (N, 3, R, R) in about [-1, 1].
        clip_side_px: side of CLIP's input; the encoder itself resizes what has another size.

    Returns:
        Views (N, 3, S, S), S at most R, or ``clip_side_px`` where padded or where ``antialias``
        is off and the view is therefore resized here (bicubic).
    """
    count = config.crops if config.kind == "multi_crop" else 1
    return [_draw_view(images, config, clip_side_px, random) for _ in range(count)]


def _draw_view(
    images: Tensor, config: ClipViewConfig, clip_side_px: int, random: StepRandom
) -> Tensor:
    if config.small_images == "pad_white" and images.shape[-1] < clip_side_px:
        return _pad_white(images, clip_side_px, random)
    view = images if config.kind == "full" else _crop(images, config.min_side, random)
    return view if config.antialias else resize(view, clip_side_px, antialias=False)


def _crop(images: Tensor, min_side: float, random: StepRandom) -> Tensor:
    side_px = images.shape[-1]
    side = random.draw_integer(math.ceil(side_px * min_side), side_px)
    top = random.draw_integer(0, side_px - side)
    left = random.draw_integer(0, side_px - side)
    return images[:, :, top : top + side, left : left + side]


def _pad_white(images: Tensor, clip_side_px: int, random: StepRandom) -> Tensor:
    free = clip_side_px - images.shape[-1]
    left = random.draw_integer(0, free)
    top = random.draw_integer(0, free)
    return F.pad(images, (left, free - left, top, free - top), value=WHITE)
