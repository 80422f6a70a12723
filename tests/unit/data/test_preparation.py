"""Every kind of image in a real folder has a defined outcome."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clipgan.config import IngestConfig
from clipgan.data.decoding import decode_image
from clipgan.data.preparation import encode_image, prepare_image
from clipgan.data.sources import RejectedFileError
from clipgan.errors import DataError
from tests.params import params_with
from tests.unit.data.pictures import encode, picture, png_header, sixteen_bit_rgb_png


@pytest.fixture
def config() -> IngestConfig:
    return params_with({"ingest.resolution_px": 32, "ingest.min_side_px": 16}).ingest


def test_a_square_image_of_the_right_size_keeps_its_pixels(config: IngestConfig) -> None:
    image = picture(32, 32)
    prepared = prepare_image(encode(image), config)
    assert prepared.alterations == {}
    assert np.array_equal(prepared.pixels, np.asarray(image))


def test_crop_is_centred_and_reduction_is_lanczos(config: IngestConfig) -> None:
    image = picture(100, 60)
    prepared = prepare_image(encode(image), config)
    expected = image.crop((20, 0, 80, 60)).resize((32, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(prepared.pixels, np.asarray(expected))
    assert (prepared.width, prepared.height) == (100, 60)
    assert prepared.alterations == {"cropped": ""}


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000"]
)
def test_formats(kind: str, config: IngestConfig) -> None:
    prepared = prepare_image(encode(picture(), kind), config)
    reference = prepare_image(encode(picture()), config).pixels.astype(float)
    assert np.abs(prepared.pixels - reference).mean() < 8
    assert set(prepared.alterations) <= {"palette"}


def test_cmyk(config: IngestConfig) -> None:
    prepared = prepare_image(encode(picture().convert("CMYK"), "JPEG"), config)
    assert prepared.alterations == {"cmyk": ""}
    reference = prepare_image(encode(picture()), config).pixels.astype(float)
    assert np.abs(prepared.pixels - reference).mean() < 8


def test_sixteen_bit_gray_is_scaled_not_clipped(config: IngestConfig) -> None:
    ramp = np.linspace(0, 0xFFFF, 32 * 32).reshape(32, 32).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        prepared = prepare_image(encode(Image.fromarray(ramp), kind), config)
        assert np.array_equal(prepared.pixels[..., 0], ramp >> 8)
        assert "sixteen_bit" in prepared.alterations


def test_sixteen_bit_rgb(config: IngestConfig) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (32, 32, 3)).astype(np.uint16)
    prepared = prepare_image(sixteen_bit_rgb_png(pixels), config)
    assert np.array_equal(prepared.pixels, pixels >> 8)
    assert prepared.alterations == {"sixteen_bit": ""}


def test_palette_and_grayscale(config: IngestConfig) -> None:
    assert prepare_image(encode(picture().quantize(16)), config).alterations == {"palette": ""}
    gray = prepare_image(encode(picture().convert("L")), config)
    assert gray.alterations == {"grayscale": ""}
    assert np.array_equal(gray.pixels[..., 0], gray.pixels[..., 2])
    assert prepare_image(encode(picture().convert("1")), config).alterations == {"grayscale": ""}


def test_transparency_is_composited_over_white(config: IngestConfig) -> None:
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    image.paste((0, 0, 255, 128), (0, 0, 32, 16))
    prepared = prepare_image(encode(image), config)
    assert prepared.alterations == {"alpha": ""}
    assert tuple(prepared.pixels[31, 0]) == (255, 255, 255)
    assert tuple(prepared.pixels[0, 0]) == (127, 127, 255)


def test_transparent_palette_entry(config: IngestConfig) -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([10, 20, 30] * 256)
    prepared = prepare_image(encode(image, transparency=0), config)
    assert set(prepared.alterations) == {"palette", "alpha"}
    assert (prepared.pixels == 255).all()


def test_an_opaque_alpha_channel_is_no_alteration(config: IngestConfig) -> None:
    assert prepare_image(encode(picture().convert("RGBA")), config).alterations == {}


def test_exif_rotation_is_applied(config: IngestConfig) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    prepared = prepare_image(encode(picture(32, 32), "PNG", exif=exif), config)
    expected = picture(32, 32).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(prepared.pixels, np.asarray(expected))
    assert prepared.alterations == {"exif_rotated": ""}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(kind: str, config: IngestConfig) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "green", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    prepared = prepare_image(data, config)
    assert "animated" in prepared.alterations
    assert prepared.pixels[..., 0].min() > 240


def test_small_images_are_enlarged_and_said_so_or_refused(config: IngestConfig) -> None:
    prepared = prepare_image(encode(picture(20, 20)), config)
    assert prepared.alterations == {"upscaled": ""}
    assert prepared.pixels.shape == (32, 32, 3)
    with pytest.raises(RejectedFileError, match=r"15 x 40, a side below ingest\.min_side_px = 16"):
        prepare_image(encode(picture(15, 40)), config)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_decoding(config: IngestConfig) -> None:
    with pytest.raises(RejectedFileError) as refused:
        prepare_image(png_header(11_000, 10_000), config)
    assert refused.value.reason == "decompression_bomb"
    with pytest.raises(RejectedFileError) as refused:  # beyond Pillow's own limit
        prepare_image(png_header(60_000, 60_000), config)
    assert refused.value.reason == "decompression_bomb"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_truncated_images_are_refused_wherever_they_end(kind: str, config: IngestConfig) -> None:
    data = encode(picture(), kind)
    for end in range(4, len(data) - 64, max(1, len(data) // 40)):
        try:
            prepare_image(data[:end], config)
        except RejectedFileError as refusal:
            assert refusal.reason in {"truncated", "damaged", "not_an_image"}
        else:
            pytest.fail(f"{kind} cut at {end} of {len(data)} bytes was taken")


def test_what_is_no_image(config: IngestConfig) -> None:
    for data in (b"", b"hello", b"BM is two letters of this text", bytes(1000)):
        with pytest.raises(RejectedFileError) as refused:
            prepare_image(data, config)
        assert refused.value.reason == "not_an_image"


def test_pixels_without_a_known_range_are_refused(config: IngestConfig) -> None:
    for pixels in (np.ones((32, 32), np.float32), np.full((32, 32), 2**20, np.int32)):
        with pytest.raises(RejectedFileError) as refused:
            prepare_image(encode(Image.fromarray(pixels), "TIFF"), config)
        assert refused.value.reason == "unsupported_pixels"


@pytest.mark.filterwarnings("ignore")  # Pillow remarks on the damage
def test_damaged_bytes_never_raise_anything_else(config: IngestConfig) -> None:
    random = np.random.default_rng(0)
    outcomes = set()
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        data = encode(picture(), kind)
        for _ in range(60):
            damaged = bytearray(data)
            for position in random.integers(0, min(len(data), 300), 4):
                damaged[position] = random.integers(256)
            try:
                prepare_image(bytes(damaged), config)
            except RejectedFileError as refusal:
                outcomes.add(refusal.reason)
    assert {"damaged", "truncated"} <= outcomes


def test_stored_images_decode_to_what_was_stored(config: IngestConfig) -> None:
    pixels = np.asarray(picture(32, 32))
    assert np.array_equal(decode_image(encode_image(pixels, config)), pixels)
    jpeg = params_with({"ingest.encoding": "jpeg"}).ingest
    decoded = decode_image(encode_image(pixels, jpeg))
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(float) - pixels).mean() < 2
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_image(encode_image(pixels, config)[:50])
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_image(encode_image(pixels, jpeg)[:20])
