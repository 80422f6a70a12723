"""Any image file -> upright 8-bit sRGB pixels: one reader for ingestion and evaluation.

Reasons of refusal: ``not_an_image``, ``unsupported_format``, ``truncated``, ``damaged``,
``decompression_bomb``, ``unsupported_pixels``. Alterations: ``animated`` (the first frame is used),
``exif_rotated`` (applied), ``cmyk``, ``sixteen_bit`` (scaled), ``sixteen_bit_dark`` (scaled, and
nearly black), ``palette``, ``grayscale``, ``colour_space`` and ``colour_profile`` (converted to
8-bit sRGB), ``colour_profile_ignored``, ``alpha`` (composited over the background).
"""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageOps, PngImagePlugin, UnidentifiedImageError

from clipgan.config import IngestConfig
from clipgan.data.colour import convert_to_rgb
from clipgan.data.file_kinds import describe_unreadable
from clipgan.data.sources import RejectedFileError

if importlib.util.find_spec("pillow_heif"):  # the extra `heic`
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()
FORMATS = tuple(
    name
    for name in (
        *("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000"),
        "HEIF",
    )
    if name in Image.OPEN  # the last three depend on how Pillow was built and on the extra
)
"""Formats tried, by content. Others that Pillow knows run programs (EPS) or are no pictures."""

PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
"""Bytes a text in a PNG may unpack to, 64 MiB for 1: whole workflows are kept in there."""

DAMAGE = (
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
_DARK_LEVEL = 64
"""Of 256: a 16-bit image that stays below uses 14 bits or fewer."""


@dataclass(frozen=True)
class ReadImage:
    """``image`` has mode RGB; ``alterations`` are ``{reason: detail}``, the detail may be empty."""

    image: Image.Image
    alterations: dict[str, str]


def read_image(data: bytes, config: IngestConfig) -> ReadImage:
    """Decode the first frame, turn it upright, convert it to sRGB and put it over the background.

    The size is checked before anything is decoded, against ``max_megapixels`` and Pillow's own
    limit (``PIL.Image.MAX_IMAGE_PIXELS``).

    Raises:
        RejectedFileError: see the module's list.
    """
    alterations: dict[str, str] = {}
    image = _open_image(data)
    try:
        _check_size(image, config)
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            alterations["animated"] = ""
        sixteen_bit = ";16" in str(getattr(image, "tile", ""))
        image.load()
        if image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1):
            alterations["exif_rotated"] = ""
        upright = ImageOps.exif_transpose(image)
        return ReadImage(
            _flatten(upright, alterations, config.background, sixteen_bit=sixteen_bit), alterations
        )
    except DAMAGE as error:
        raise _damage(error) from None


def _open_image(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedFileError("decompression_bomb", str(error)) from None
    except UnidentifiedImageError:
        raise RejectedFileError(*describe_unreadable(data)) from None
    except DAMAGE as error:
        if data.startswith(b"BM"):  # two letters that many texts begin with
            raise RejectedFileError(*describe_unreadable(data)) from None
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


def _damage(error: Exception) -> RejectedFileError:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    reason = "truncated" if "truncated" in text.lower() else "damaged"
    return RejectedFileError(reason, text)


def _flatten(
    image: Image.Image, alterations: dict[str, str], background: str, *, sixteen_bit: bool
) -> Image.Image:
    """Any mode -> RGB over ``background``."""
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        image, sixteen_bit = _reduce_to_8_bits(image), True
    if image.mode == "F":
        raise RejectedFileError(
            "unsupported_pixels",
            "floating-point pixels without a known range: save it with 8 or 16 bits a channel",
        )
    # Composited in sRGB, as web browsers do it.
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    rgb = convert_to_rgb(image, alterations)
    if sixteen_bit:
        _note_sixteen_bits(rgb, alterations)
    if alpha is None or alpha.getextrema()[0] == 255:
        return rgb
    alterations["alpha"] = ""
    below = Image.new("RGBA", rgb.size, (*ImageColor.getrgb(background)[:3], 255))
    above = Image.merge("RGBA", (*rgb.split(), alpha))
    return Image.alpha_composite(below, above).convert("RGB")


def _reduce_to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise RejectedFileError(
            "unsupported_pixels",
            "32-bit integers beyond 0..65535: save it with 8 or 16 bits a channel",
        )
    # Pillow's own conversion clips at 255 instead of scaling.
    reduced = Image.fromarray((values >> 8).astype(np.uint8))
    reduced.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    return reduced


def _note_sixteen_bits(rgb: Image.Image, alterations: dict[str, str]) -> None:
    alterations["sixteen_bit"] = ""
    highest = int(np.asarray(rgb).max())
    if highest < _DARK_LEVEL:
        bits = 8 + highest.bit_length()
        alterations["sixteen_bit_dark"] = (
            f"its numbers fill {bits} of 16 bits, so it is stored nearly black; if it is no dark "
            f"picture, multiply its numbers by {1 << (16 - bits)} and save it again"
        )
