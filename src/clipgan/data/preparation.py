"""One source image -> a square RGB array, with the names of all alterations.

Adds to the reasons and alterations of :mod:`clipgan.data.image_reader` the reason ``too_small`` and
the alterations ``cropped``, ``padded`` or ``squashed`` (to the square) and ``upscaled``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from clipgan.config import IngestConfig
from clipgan.data.fitting import fit_to_square
from clipgan.data.image_reader import read_image
from clipgan.data.sources import RejectedFileError


@dataclass(frozen=True)
class PreparedImage:
    """``pixels`` is (R, R, 3) uint8 RGB; ``width`` and ``height`` are the source's, in pixels;
    ``alterations`` are ``{reason: detail}``."""

    pixels: NDArray[np.uint8]
    width: int
    height: int
    alterations: dict[str, str]


def prepare_image(data: bytes, config: IngestConfig) -> PreparedImage:
    """Read an image and make the square of ``resolution_px`` that ``fit`` asks for.

    Raises:
        RejectedFileError: see the module's list.
    """
    source = read_image(data, config)
    width, height = source.image.size
    if min(width, height) < config.min_side_px:
        raise RejectedFileError(
            "too_small",
            f"{width} x {height}, a side below ingest.min_side_px = {config.min_side_px}",
        )
    square = fit_to_square(source.image, config, source.alterations)
    return PreparedImage(np.asarray(square), width, height, source.alterations)


def encode_image(pixels: NDArray[np.uint8], config: IngestConfig) -> bytes:
    """(H, W, 3) uint8 RGB -> PNG or JPEG bytes as ``encoding`` says (JPEG without subsampling)."""
    if config.encoding == "jpeg":
        encoded: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels), quality=config.jpeg_quality, colorsubsampling="444"
        )
        return encoded
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
