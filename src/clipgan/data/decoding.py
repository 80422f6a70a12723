"""Decoding of stored images: what ingestion wrote, nothing else."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from clipgan.errors import DataError

_JPEG_MAGIC = b"\xff\xd8"


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Stored PNG or JPEG bytes -> (H, W, 3) uint8 RGB.

    Raises:
        DataError: the bytes are no image that ingestion wrote.
    """
    try:
        if data.startswith(_JPEG_MAGIC):
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
            return pixels
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"a stored image of {len(data)} bytes cannot be decoded ({error}); "
            "run `clipgan stage ingest` again"
        ) from None
