"""Colours of any image mode -> sRGB, by the profile inside the file where it has one."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_MODE_OF_SPACE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Colour space of a profile -> the image mode whose numbers it explains."""
_OWN_MODE = {"1": "L", "L": "L", "LA": "L", "La": "L", "CMYK": "CMYK", "LAB": "LAB"}
"""Image mode -> that without alpha; the rest is RGB."""
_CHANGED = {
    **dict.fromkeys(("1", "L", "LA", "La"), "grayscale"),
    **dict.fromkeys(("P", "PA"), "palette"),
    **dict.fromkeys(("YCbCr", "LAB", "HSV"), "colour_space"),
    "CMYK": "cmyk",
}
_SAME_WITHIN = 2
"""Levels of 256: a profile that moves no colour further is sRGB up to rounding."""
_LONGEST_NAME = 60


def convert_to_rgb(image: Image.Image, alterations: dict[str, str]) -> Image.Image:
    """The colours, without alpha, as mode RGB in sRGB.

    A profile that is damaged, or explains other numbers than the image's, is left out and listed.

    Args:
        image: 8 bits a channel.
        alterations: what was done is added, ``{reason: detail}``.
    """
    if image.mode in _CHANGED:
        alterations[_CHANGED[image.mode]] = ""
    own = _OWN_MODE.get(image.mode, "RGB")
    # Straight to RGB, Pillow warns of palettes with transparency.
    whole = image.convert("RGBA") if own == "RGB" and image.has_transparency_data else image
    plain = whole.convert(own)
    profile = image.info.get("icc_profile")
    if not profile:
        return plain.convert("RGB")
    try:
        mode, name, transform = _load_transform(profile)
    except (OSError, ValueError, ImageCms.PyCMSError) as error:
        alterations["colour_profile_ignored"] = _make_printable(str(error))
        return plain.convert("RGB")
    if mode != own and (own, mode) != ("L", "RGB"):
        alterations["colour_profile_ignored"] = f"{name} is for {mode} images, this one is {own}"
        return plain.convert("RGB")
    if transform is None:
        return plain.convert("RGB")
    alterations["colour_profile"] = f"{name}, converted to sRGB"
    converted = transform.apply(plain.convert(mode))
    assert isinstance(converted, Image.Image)
    return converted


@lru_cache(maxsize=32)
def _load_transform(profile: bytes) -> tuple[str, str, ImageCms.ImageCmsTransform | None]:
    """Image mode, the profile's name, and the way to sRGB; None where it is sRGB already.

    Raises:
        OSError, ValueError, ImageCms.PyCMSError: it is damaged or of a space no image here has.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space not in _MODE_OF_SPACE:
        raise ValueError(f"its colour space {space} is not supported")
    mode = _MODE_OF_SPACE[space]
    name = _make_printable(ImageCms.getProfileDescription(source)) or f"a profile of {mode}"
    target = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, target, mode, "RGB")
    return mode, name, None if mode == "RGB" and _keeps_colours(transform) else transform


def _keeps_colours(transform: ImageCms.ImageCmsTransform) -> bool:
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    moved = np.asarray(transform.apply(Image.fromarray(cube)))
    return bool(np.abs(moved.astype(int) - cube).max() <= _SAME_WITHIN)


def _make_printable(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:_LONGEST_NAME]
