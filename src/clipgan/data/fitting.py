"""Images of any shape -> squares: cropped, padded or squashed; counts of how much is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageColor

from clipgan.config import Fit, IngestConfig

ALTERATIONS: dict[Fit, str] = {"crop": "cropped", "pad": "padded", "squash": "squashed"}
"""Each fit's name among the alterations of an image that is not square."""


def fit_to_square(
    image: Image.Image, config: IngestConfig, alterations: dict[str, str]
) -> Image.Image:
    """RGB of any size -> ``resolution_px`` square, resized with Lanczos."""
    side = config.resolution_px
    if image.width != image.height:
        alterations[ALTERATIONS[config.fit]] = ""
    if config.fit == "crop":
        image = _crop_centre(image)
    width, height = side, side
    if config.fit == "pad":
        longer = max(image.size)
        width, height = (max(1, round(side * length / longer)) for length in image.size)
    if width > image.width or height > image.height:
        alterations["upscaled"] = ""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return image if image.size == (side, side) else _pad(image, side, config.background)


def _crop_centre(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _pad(image: Image.Image, side: int, background: str) -> Image.Image:
    square = Image.new("RGB", (side, side), ImageColor.getrgb(background)[:3])
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def measure_difference(width: int, height: int) -> float:
    """By how much the shorter side is shorter than the longer one, 0 (square) to 1."""
    return 1.0 - min(width, height) / max(width, height)


@dataclass(frozen=True)
class ShapeSummary:
    """How far the images were from square: the number of them at each degree."""

    fit: Fit
    num_images: int
    num_not_square: int
    num_beyond_tenth: int
    num_beyond_third: int

    def describe(self) -> str:
        """One sentence for people."""
        if not self.num_not_square:
            return "every image is square: none was changed in shape"
        many = f"{self.num_beyond_tenth:,} of {self.num_images:,} images"
        some = f"{self.num_beyond_third or 'none'} of them more than a third"
        if self.fit == "crop":
            keep = "" if not self.num_beyond_tenth else "; ingest.fit: pad keeps all of them"
            return f"{many} lost more than 10 % of their longer side to the crop, {some}{keep}"
        if self.fit == "pad":
            return f"{many} have bars over more than 10 % of the square, {some}; nothing was cut"
        return f"{many} were squashed by more than 10 % of their longer side, {some}"


def summarise_shapes(fit: Fit, sizes: Sequence[tuple[int, int]]) -> ShapeSummary:
    """Count the degrees over ``(width, height)`` of the images kept."""
    # In whole numbers: 3:2 photos lose exactly a third.
    sides = [(max(size), max(size) - min(size)) for size in sizes]
    return ShapeSummary(
        fit=fit,
        num_images=len(sizes),
        num_not_square=sum(lost > 0 for _, lost in sides),
        num_beyond_tenth=sum(10 * lost > longer for longer, lost in sides),
        num_beyond_third=sum(3 * lost > longer for longer, lost in sides),
    )
