"""Generated images as files that contain the settings they were made with, and nothing else.

The settings contain no time and no path, so the same request makes the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin
from torch import Tensor

FORMATS: Mapping[str, str] = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffix -> Pillow's name of the format."""
JPEG_QUALITY = 95
READABLE_KEY, JSON_KEY = "parameters", "clipgan"
"""PNG text chunks; viewers of generated images show ``parameters``."""


@dataclass(frozen=True)
class PictureSettings:
    """Everything that one image depends on.

    Attributes:
        image: number among the images of its prompt, from 0.
        mix: style mixes as ``SEED:FIRST-LAST``.
        model: the generator's name; ``model_sha256`` of its weights identifies it.
        clip: name of the CLIP that read the prompt.
        precision: of the generator, ``fp32`` or ``bf16``.
        clipgan: version of this package.
    """

    prompt: str
    seed: int
    image: int
    side_px: int
    truncation: float
    truncation_layers: int | None
    latent_truncation: float | None
    mix: tuple[str, ...]
    model: str
    model_sha256: str
    clip: str
    precision: str
    clipgan: str

    def to_json(self) -> str:
        """One line of ASCII, keys in the order of the attributes."""
        return json.dumps(asdict(self))

    def to_text(self) -> str:
        """The prompt, and a line of the names and values of all settings that are in use."""
        values: dict[str, Any] = {
            "Seed": self.seed,
            "Image": self.image,
            "Size": f"{self.side_px}x{self.side_px}",
            "Truncation": self.truncation,
            "Truncation layers": self.truncation_layers,
            "Latent truncation": self.latent_truncation,
            "Mix": " ".join(self.mix) or None,
            "Model": self.model,
            "Model hash": self.model_sha256[:12],
            "CLIP": self.clip,
            "Precision": None if self.precision == "fp32" else self.precision,
            "Version": f"clipgan {self.clipgan}",
        }
        named = (f"{name}: {value}" for name, value in values.items() if value is not None)
        return f"{self.prompt}\n{', '.join(named)}"


def encode_picture(image_uint8: Tensor, suffix: str, settings: PictureSettings | None) -> bytes:
    """(3, H, W) uint8 -> the bytes of a file of the format that ``suffix`` names.

    PNG and WebP keep every pixel; JPEG has quality 95 without colour subsampling. PNG contains the
    settings as the text chunks ``parameters`` (readable) and ``clipgan`` (JSON), the other formats
    as JSON in the EXIF field ImageDescription. A file without settings has no metadata.
    """
    pixels = image_uint8.permute(1, 2, 0).cpu().contiguous().numpy()
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    options: dict[str, Any]
    kind = FORMATS[suffix]
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        if settings is not None:
            chunks.add_text(READABLE_KEY, settings.to_text())
            chunks.add_text(JSON_KEY, settings.to_json())
        options = {"compress_level": 9, "pnginfo": chunks}
    else:
        exif = Image.Exif()
        if settings is not None:
            exif[ExifTags.Base.ImageDescription] = settings.to_json()
        jpeg = {"quality": JPEG_QUALITY, "subsampling": 0}
        options = {"exif": exif, **(jpeg if kind == "JPEG" else {"lossless": True})}
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()
