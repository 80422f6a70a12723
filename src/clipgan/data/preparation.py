"""One source image -> a square RGB array, with every alteration named and every refusal reasoned.

Reasons of refusal: ``not_an_image``, ``truncated``, ``damaged``, ``decompression_bomb``,
``too_small``, ``unsupported_pixels``. Alterations: ``animated`` (the first frame is used),
``exif_rotated`` (applied), ``cmyk``, ``sixteen_bit``, ``palette``, ``grayscale``, ``colour_space``
(converted to 8-bit RGB), ``alpha`` (composited over white), ``cropped`` (to the centred square),
``upscaled``.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from clipgan.config import IngestConfig
from clipgan.data.sources import RejectedFileError

Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
    if name in Image.OPEN  # AVIF and JPEG 2000 depend on how Pillow was built
)
"""Formats tried, by content. Others that Pillow knows run programs (EPS) or are no pictures."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise for damaged files (found by fuzzing)."""
_EXIF_ORIENTATION = 0x0112
_WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class PreparedImage:
    """``pixels`` is (R, R, 3) uint8 RGB; ``width`` and ``height`` are the source's, in pixels."""

    pixels: NDArray[np.uint8]
    width: int
    height: int
    alterations: tuple[str, ...]


def prepare_image(data: bytes, config: IngestConfig) -> PreparedImage:
    """Decode, convert to RGB over white, crop the centred square and resize with Lanczos.

    The size is checked before anything is decoded, against ``max_megapixels`` and Pillow's own
    limit (``PIL.Image.MAX_IMAGE_PIXELS``).

    Raises:
        RejectedFileError: see the module's list.
    """
    alterations: list[str] = []
    image = _open_image(data)
    try:
        _check_size(image, config)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            alterations.append("animated")
        sixteen_bit = ";16" in str(getattr(image, "tile", ""))
        image.load()
        if image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1):
            alterations.append("exif_rotated")
        rotated = ImageOps.exif_transpose(image)
    except _DAMAGE as error:
        raise _damage(error) from None
    width, height = rotated.size
    rgb = _to_rgb(rotated, alterations, sixteen_bit=sixteen_bit)
    square = _crop_square(rgb, alterations)
    side = config.resolution_px
    if square.width < side:
        alterations.append("upscaled")
    if square.width != side:
        square = square.resize((side, side), Image.Resampling.LANCZOS)
    return PreparedImage(np.asarray(square), width, height, tuple(alterations))


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


def _open_image(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedFileError("decompression_bomb", str(error)) from None
    except UnidentifiedImageError:
        if data.startswith(_MAGIC) or data[4:12] in (b"ftypavif", b"ftypavis"):
            raise RejectedFileError(
                "truncated",
                f"{len(data)} bytes: begins like an image, its header is cut short or damaged",
            ) from None
        what = f"{len(data)} bytes, no known image format" if data else "the file is empty"
        raise RejectedFileError("not_an_image", what) from None
    except _DAMAGE as error:
        raise _damage(error) from None


def _check_size(image: Image.Image, config: IngestConfig) -> None:
    width, height = image.size
    megapixels = width * height / 1e6
    if megapixels > config.max_megapixels:
        raise RejectedFileError(
            "decompression_bomb",
            f"{width} x {height} = {megapixels:.1f} megapixels, "
            f"more than ingest.max_megapixels = {config.max_megapixels:g}",
        )
    if min(width, height) < config.min_side_px:
        raise RejectedFileError(
            "too_small",
            f"{width} x {height}, a side below ingest.min_side_px = {config.min_side_px}",
        )


def _damage(error: Exception) -> RejectedFileError:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    reason = "truncated" if "truncated" in text.lower() else "damaged"
    return RejectedFileError(reason, text)


def _to_rgb(image: Image.Image, alterations: list[str], *, sixteen_bit: bool) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise RejectedFileError("unsupported_pixels", "32-bit integers beyond 0..65535")
        # Pillow's own conversion clips at 255 instead of scaling.
        image = Image.fromarray((values >> 8).astype(np.uint8))
        sixteen_bit = True
    if image.mode == "F":
        raise RejectedFileError("unsupported_pixels", "floating-point pixels without a known range")
    if sixteen_bit:
        alterations.append("sixteen_bit")
    name = {"1": "grayscale", "L": "grayscale", "LA": "grayscale", "La": "grayscale"} | {
        "P": "palette",
        "PA": "palette",
        "CMYK": "cmyk",
        "YCbCr": "colour_space",
        "LAB": "colour_space",
        "HSV": "colour_space",
    }
    if image.mode in name:
        alterations.append(name[image.mode])
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] == 255:
        return rgba.convert("RGB")
    alterations.append("alpha")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, _WHITE), rgba).convert("RGB")


def _crop_square(image: Image.Image, alterations: list[str]) -> Image.Image:
    width, height = image.size
    if width == height:
        return image
    alterations.append("cropped")
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))
