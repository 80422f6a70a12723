"""Identifies a file that no decoder opens by its first bytes, and names the remedy."""

from __future__ import annotations

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_HINTS = (
    ((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"), "a JPEG XL image: save it as PNG or JPEG"),
    ((b"8BPS",), "a Photoshop document: export it as PNG or JPEG"),
    ((b"%PDF", b"%!PS"), "a PDF or PostScript page: export it as PNG"),
)
_HEIC_HINT = "an HEIC photo: `pip install pillow-heif` and run again, or save it as JPEG"
_SVG_HINT = "an SVG drawing, whose texts depend on this machine's fonts: export it as PNG"
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
_AVIF = (b"ftypavif", b"ftypavis")
_BITMAP_HEADERS = tuple(length.to_bytes(4, "little") for length in (12, 40, 52, 56, 64, 108, 124))
_SEARCHED_BYTES = 1024


def describe_unreadable(data: bytes) -> tuple[str, str]:
    """``(reason, detail)`` of a file that no decoder knows.

    The reason is ``truncated`` (begins like an image), ``unsupported_format`` (an image of a kind
    that is not read; the detail names the remedy) or ``not_an_image``.
    """
    if not data:
        return "not_an_image", "the file is empty"
    size = f"{len(data)} bytes"
    if _begins_like_a_known_image(data):
        return "truncated", f"{size}: begins like an image, its header is cut short or damaged"
    text = data[:_SEARCHED_BYTES].lower()
    if hint := _find_hint(data, text):
        return "unsupported_format", hint
    if text.lstrip().startswith((b"<!doctype html", b"<html")):
        return "not_an_image", f"{size}, a web page: its download went wrong"
    return "not_an_image", f"{size}, no known image format"


def _find_hint(data: bytes, text: bytes) -> str | None:
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return _HEIC_HINT
    if b"<svg" in text:
        return _SVG_HINT
    return next((hint for beginnings, hint in _HINTS if data.startswith(beginnings)), None)


def _begins_like_a_known_image(data: bytes) -> bool:
    # Sounds and films are RIFF files too.
    is_webp = data.startswith(b"RIFF") and data[8:12] in (b"WEBP", b"")
    # Two letters begin many texts: a bitmap has the length of its second header in here.
    is_bitmap = data.startswith(b"BM") and data[14:18] in _BITMAP_HEADERS
    return data.startswith(_MAGIC) or is_webp or is_bitmap or data[4:12] in _AVIF
