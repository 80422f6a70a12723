"""Random views of icons for distillation: batched tensor operations, on the GPU where there is one.

The label of a view comes from the teacher, which sees the same pixels. So the changes may be
strong; they show the student many more pictures than the data set holds. All randomness comes from
the ``rng`` passed in.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION_DEGREES = 20.0
SCALE_RANGE = (0.55, 1.6)
"""Size of the icon in the view over its size in the image; above 1 it is cropped."""
ASPECT_RANGE = (0.8, 1.25)
MAX_SHEAR = 0.15
RECOLOURED_FRACTION = 0.5
BACKGROUND_FRACTION = 0.4
NOISY_FRACTION = 0.3
BLURRED_FRACTION = 0.3
MAX_NOISE = 0.08


def build_views(images_uint8: Tensor, rng: torch.Generator) -> Tensor:
    """One labelled view of each image.

    Args:
        images_uint8: (N, 3, S, S) uint8 icons on white.
        rng: on the images' device.

    Returns:
        (N, 3, S, S) float32 in [-1, 1]: flipped, turned, scaled, sheared and moved on white; then
        some recoloured, on a coloured ground, blurred or noisy.
    """
    ink = 1.0 - images_uint8.float() / 255.0  # white is 0, so that padding is white
    ink = _warp(ink, rng)
    pixels = _recolour(1.0 - ink, rng)
    pixels = _put_on_ground(pixels, rng)
    pixels = _blur(pixels, rng)
    return _add_noise(pixels, rng) * 2.0 - 1.0


def _uniform(like: Tensor, rng: torch.Generator, low: float, high: float) -> Tensor:
    values = torch.rand(len(like), generator=rng, device=like.device)
    return (low + (high - low) * values).view(-1, 1, 1, 1)


def _chance(like: Tensor, rng: torch.Generator, probability: float) -> Tensor:
    return (_uniform(like, rng, 0.0, 1.0) < probability).float()


def _warp(ink: Tensor, rng: torch.Generator) -> Tensor:
    """Affine map of every image; what comes from outside is 0."""

    def draw(low: float, high: float) -> Tensor:
        return _uniform(ink, rng, low, high).view(-1)

    angle = draw(-1.0, 1.0).pow(3) * math.radians(MAX_ROTATION_DEGREES)
    scale = torch.exp(draw(math.log(SCALE_RANGE[0]), math.log(SCALE_RANGE[1])))
    aspect = torch.exp(draw(math.log(ASPECT_RANGE[0]), math.log(ASPECT_RANGE[1])) / 2.0)
    shear = draw(-MAX_SHEAR, MAX_SHEAR)
    flip = torch.where(draw(0.0, 1.0) < 0.5, -1.0, 1.0)
    # The sampling grid maps view coordinates to image coordinates: sizes are inverted. A smaller
    # icon may stand anywhere; a larger one is moved by what overhangs.
    room = (1.0 - scale).abs()
    shift_x, shift_y = draw(-1.0, 1.0) * room, draw(-1.0, 1.0) * room
    cos, sin = torch.cos(angle), torch.sin(angle)
    inverse_x, inverse_y = flip / (scale * aspect), aspect / scale
    rows = torch.stack(
        [
            torch.stack([inverse_x * cos, inverse_x * (shear - sin)], dim=1),
            torch.stack([inverse_y * sin, inverse_y * cos], dim=1),
        ],
        dim=1,
    )
    offset = -(rows @ torch.stack([shift_x, shift_y], dim=1).unsqueeze(2))
    theta = torch.cat([rows, offset], dim=2)
    grid = F.affine_grid(theta, list(ink.shape), align_corners=False)
    return F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _recolour(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and a turn of the hue, pixels in [0, 1]."""
    chosen = _chance(pixels, rng, RECOLOURED_FRACTION)
    luma = pixels.mean(dim=1, keepdim=True)
    saturation = _uniform(pixels, rng, 0.3, 1.5)
    hue = _uniform(pixels, rng, -1.0, 1.0).pow(3) * math.pi
    # A turn about the grey axis keeps luma (here: the plain mean) and saturation.
    chroma = (pixels - luma) * saturation
    turned = chroma * torch.cos(hue) + torch.sin(hue) / math.sqrt(3.0) * (
        chroma.roll(1, dims=1) - chroma.roll(-1, dims=1)
    )
    contrast = _uniform(pixels, rng, 0.6, 1.3)
    brightness = _uniform(pixels, rng, -0.15, 0.15)
    changed = ((luma + turned - 0.5) * contrast + 0.5 + brightness).clamp(0.0, 1.0)
    return pixels + chosen * (changed - pixels)


def _put_on_ground(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Replace white by a colour, shaded linearly; white inside an icon turns too."""
    chosen = _chance(pixels, rng, BACKGROUND_FRACTION)
    count, device = len(pixels), pixels.device
    corners = torch.rand(count, 3, 2, 2, generator=rng, device=device)
    ground = F.interpolate(corners, size=pixels.shape[-2:], mode="bilinear", align_corners=True)
    flat = corners.mean(dim=(2, 3), keepdim=True)
    ground = torch.where(_chance(pixels, rng, 0.5) > 0, ground, flat)
    # Ink is opaque from a darkness of 1/8 on, so that the ground tints pale edges only.
    opacity = ((1.0 - pixels.amin(dim=1, keepdim=True)) * 8.0).clamp(0.0, 1.0)
    changed = pixels * opacity + ground * (1.0 - opacity)
    return pixels + chosen * (changed - pixels)


def _blur(pixels: Tensor, rng: torch.Generator) -> Tensor:
    chosen = _chance(pixels, rng, BLURRED_FRACTION)
    amount = _uniform(pixels, rng, 0.0, 1.0) * chosen
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=pixels.device) / 16.0
    weight = (kernel[:, None] * kernel[None, :]).expand(3, 1, 5, 5)
    padded = F.pad(pixels, (2, 2, 2, 2), mode="replicate")
    return pixels + amount * (F.conv2d(padded, weight, groups=3) - pixels)


def _add_noise(pixels: Tensor, rng: torch.Generator) -> Tensor:
    deviation = _uniform(pixels, rng, 0.0, MAX_NOISE)
    deviation = deviation * _chance(pixels, rng, NOISY_FRACTION)
    noise = torch.randn(pixels.shape, generator=rng, device=pixels.device)
    return (pixels + noise * deviation).clamp(0.0, 1.0)
