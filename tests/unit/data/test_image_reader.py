"""What any image file becomes, and what is said of files that are none."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from clipgan.config import IngestConfig
from clipgan.data.image_reader import read_image
from clipgan.data.sources import RejectedFileError
from tests.params import params_with
from tests.unit.data.pictures import encode, picture, sixteen_bit_rgb_png

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def config() -> IngestConfig:
    return params_with().ingest


def swap_red_and_blue(profile: bytes) -> bytes:
    """The profile of a space whose red is blue: whoever ignores it shows the wrong colour."""
    data = bytearray(profile)
    (count,) = struct.unpack(">I", data[128:132])
    places = {bytes(data[o : o + 4]): o for o in range(132, 132 + 12 * count, 12)}
    red, blue = places[b"rXYZ"] + 4, places[b"bXYZ"] + 4
    data[red : red + 8], data[blue : blue + 8] = data[blue : blue + 8], data[red : red + 8]
    return bytes(data)


def read_array(data: bytes, config: IngestConfig) -> np.ndarray:
    return np.asarray(read_image(data, config).image)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_profile_is_followed_and_named(mode: str, config: IngestConfig) -> None:
    red = Image.new("RGB", (8, 8), (250, 20, 20)).convert(mode)
    found = read_image(encode(red, icc_profile=swap_red_and_blue(SRGB)), config)
    assert found.alterations == {"colour_profile": "sRGB built-in, converted to sRGB"}
    assert np.abs(np.asarray(found.image).astype(int) - (20, 20, 250)).max() <= 3


def test_srgb_leaves_every_pixel_alone(config: IngestConfig) -> None:
    found = read_image(encode(picture(), icc_profile=SRGB), config)
    assert found.alterations == {}
    assert np.array_equal(np.asarray(found.image), np.asarray(picture()))


def test_a_profile_of_other_numbers_is_left_out_and_listed(config: IngestConfig) -> None:
    data = encode(picture().convert("CMYK"), "JPEG", icc_profile=SRGB)
    found = read_image(data, config)
    detail = "sRGB built-in is for RGB images, this one is CMYK"
    assert found.alterations == {"cmyk": "", "colour_profile_ignored": detail}
    for profile in (b"no profile", SRGB[:200]):
        found = read_image(encode(picture(), icc_profile=profile), config)
        assert list(found.alterations) == ["colour_profile_ignored"]
        assert np.array_equal(np.asarray(found.image), np.asarray(picture()))


def test_grey_images_follow_profiles_of_grey_and_of_colour(config: IngestConfig) -> None:
    grey = picture().convert("L")
    found = read_image(encode(grey, icc_profile=SRGB), config)
    assert found.alterations == {"grayscale": ""}
    assert np.array_equal(np.asarray(found.image)[..., 0], np.asarray(grey))


def test_transparent_pixels_show_the_background() -> None:
    config = params_with({"ingest.background": "#102030"}).ingest
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    found = read_image(encode(image), config)
    assert found.alterations == {"alpha": ""}
    assert found.image.getpixel((3, 3)) == (0x10, 0x20, 0x30)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_megabytes_of_text_do_not_make_a_png_damaged(kind: bytes, config: IngestConfig) -> None:
    packed = zlib.compress(b'{"node": 1} ' * 420_000)
    body = b"workflow\0\0" + packed if kind == b"zTXt" else b"workflow\0\1\0\0\0" + packed
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    data = encode(picture())
    for place in (33, len(data) - 12):  # before the pixels and after them
        pixels = read_array(data[:place] + chunk + data[place:], config)
        assert np.array_equal(pixels, np.asarray(picture()))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_few_bits_in_a_sixteen_bit_file_are_told_with_the_factor(
    bits: int, config: IngestConfig
) -> None:
    grey = np.linspace(0, (1 << bits) - 1, 64).reshape(8, 8).astype(np.uint16)
    colour = np.repeat(grey[..., None], 3, axis=-1)
    for data in (encode(Image.fromarray(grey)), sixteen_bit_rgb_png(colour)):
        found = read_image(data, config)
        assert f"{bits} of 16 bits" in found.alterations["sixteen_bit_dark"]
        assert (
            f"multiply its numbers by {1 << (16 - bits)} " in found.alterations["sixteen_bit_dark"]
        )
        brightened = (int(np.asarray(found.image).max()) + 1) << (16 - bits)
        assert brightened == 256


def test_sixteen_bits_in_use_are_not_called_dark(config: IngestConfig) -> None:
    grey = np.linspace(0, 0xFFFF, 64).reshape(8, 8).astype(np.uint16)
    found = read_image(encode(Image.fromarray(grey)), config)
    assert "sixteen_bit_dark" not in found.alterations
    eight = picture().convert("L")
    widened = Image.fromarray(np.asarray(eight).astype(np.uint16) * 257)
    assert np.array_equal(read_array(encode(widened), config), read_array(encode(eight), config))


@pytest.mark.parametrize(
    ("data", "reason", "hint"),
    [
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(99), "unsupported_format", "pillow-heif"),
        (b"\0\0\0\x24ftypmif1\0\0\0\0mif1heic" + bytes(99), "unsupported_format", "pillow-heif"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(99), "unsupported_format", "JPEG XL.*save it as PNG"),
        (b"\xff\x0a" + bytes(99), "unsupported_format", "JPEG XL"),
        (b"<?xml version='1.0'?>\n<svg width='9'/>", "unsupported_format", "SVG.*export it as PNG"),
        (b"8BPS\0\1" + bytes(99), "unsupported_format", "Photoshop"),
        (b"%PDF-1.7\n", "unsupported_format", "PDF"),
        (b"<!DOCTYPE html><title>403</title>", "not_an_image", "its download went wrong"),
        (b"RIFF\x24\x08\0\0WAVEfmt " + bytes(99), "not_an_image", "no known image format"),
        (b"RIFF\x24\x08\0\0AVI LIST" + bytes(99), "not_an_image", "no known image format"),
        (b"BMW builds cars, and this is a text", "not_an_image", "no known image format"),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "truncated", "cut short"),
        (b"", "not_an_image", "the file is empty"),
    ],
)
def test_files_that_are_not_read_say_what_they_are(
    data: bytes, reason: str, hint: str, config: IngestConfig
) -> None:
    with pytest.raises(RejectedFileError, match=hint) as refused:
        read_image(data, config)
    assert refused.value.reason == reason


def test_heic_is_read_where_the_extra_is_installed(config: IngestConfig) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture(64, 64)).save(buffer, quality=95)
    pixels = read_array(buffer.getvalue(), config)
    assert np.abs(pixels.astype(int) - np.asarray(picture(64, 64))).mean() < 8
