"""The whole stage on real folders: every outcome."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipgan import schemas
from clipgan.data.ingest import Ingestion
from clipgan.data.ingest_report import IngestReport
from clipgan.data.shards import load_manifest
from clipgan.data.sources import SourceListing, SourceSample
from clipgan.data.sources.emoji.drawings import list_emoji
from clipgan.errors import DataError
from clipgan.resume_state import is_finished
from clipgan.stages.ingest import ingest
from clipgan.stages.scan import scan
from tests.params import params_with
from tests.stages.ingest_runs import fill_folder, load_rows, make_config, run, snapshot
from tests.unit.data.pictures import encode, picture, png_header


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "photos")


def make_messy_folder(folder: Path) -> Path:
    folder.mkdir()
    plain = encode(picture())
    exif = Image.Exif()
    exif[0x0112] = 8
    transparent = picture(seed=9).convert("RGBA")
    transparent.putalpha(100)
    frames = [picture(seed=seed).quantize(8) for seed in (20, 21)]
    files = {
        "plain.PNG": plain,
        "copy.png": plain,
        "photo.jpeg": encode(picture(seed=1), "JPEG"),
        "cmyk.jpg": encode(picture(seed=2).convert("CMYK"), "JPEG"),
        "deep.png": encode(Image.new("I;16", (40, 40), 40_000)),
        "palette.gif": encode(picture(seed=3).quantize(8), "GIF"),
        "alpha.webp": encode(transparent, "WEBP", lossless=True),
        "turned.jpg": encode(picture(50, 40, seed=4), "JPEG", exif=exif),
        "gray.bmp": encode(picture(seed=5).convert("L"), "BMP"),
        "moving.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "small.png": encode(picture(20, 20, seed=6)),
        "tiny.png": encode(picture(8, 40, seed=7)),
        "cut.jpg": encode(picture(seed=8), "JPEG")[:-200],
        "bomb.png": png_header(20_000, 20_000),
        "notes.md": b"# notes",
        "empty.png": b"",
        "plain.txt": b"a plain picture\n",
        "copy.txt": b"its copy\n",
        "photo.txt": b"",
        "cmyk.txt": "caf\u00e9".encode("latin-1"),
        "alone.txt": b"nothing to see",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "loop").symlink_to(folder)
    (folder / "gone.png").symlink_to("missing.png")
    return folder


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_every_file_of_a_messy_folder_has_its_outcome(tmp_path: Path) -> None:
    config = make_config(make_messy_folder(tmp_path / "mess"), validation_fraction=0.0)
    report = run(tmp_path, config)
    assert {found.file: found.reason for found in report.rejected} == {
        "plain.PNG": "duplicate",
        "tiny.png": "too_small",
        "cut.jpg": "truncated",
        "bomb.png": "decompression_bomb",
        "notes.md": "not_an_image",
        "empty.png": "not_an_image",
        "loop": "symlink_loop",
        "gone.png": "unreadable",
    }
    assert {(found.file, found.reason) for found in report.altered} == {
        ("cmyk.jpg", "cmyk"),
        ("deep.png", "sixteen_bit"),
        ("deep.png", "grayscale"),
        ("palette.gif", "palette"),
        ("alpha.webp", "alpha"),
        ("turned.jpg", "exif_rotated"),
        ("gray.bmp", "grayscale"),
        ("moving.gif", "animated"),
        ("moving.gif", "palette"),
        ("small.png", "upscaled"),
    }
    captions = {(f.file, f.reason) for f in report.caption_findings}
    assert {
        ("alone.txt", "caption_without_image"),
        ("photo.jpeg", "empty_caption"),
        ("cmyk.jpg", "non_utf8_caption"),
    } <= captions
    assert ("gray.bmp", "missing_caption") in captions
    assert (report.shapes.num_images, report.shapes.num_not_square) == (10, 1)
    assert report.num_images == 10
    rows = {row[schemas.SOURCE_KEY]: row for row in load_rows(tmp_path / "images")}
    assert rows["copy.png"][schemas.CAPTIONS] == ["its copy", "a plain picture"]
    assert (rows["turned.jpg"][schemas.WIDTH], rows["turned.jpg"][schemas.HEIGHT]) == (40, 50)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_report_is_written_in_both_forms(tmp_path: Path) -> None:
    report = run(tmp_path, make_config(make_messy_folder(tmp_path / "mess")))
    tree = json.loads((tmp_path / "images" / "ingest_report.json").read_text())
    assert tree["num_images"] == report.num_images
    assert tree["fingerprint"] == load_manifest(tmp_path / "images").fingerprint
    assert tree["rejected_by_reason"]["not_an_image"] == 2
    assert {"file": "notes.md", "reason": "not_an_image"}.items() <= tree["rejected"][-3].items()
    text = (tmp_path / "images" / "ingest_report.md").read_text()
    assert "## Rejected: truncated (1)" in text
    assert "- `notes.md`: 7 bytes, no known image format" in text


def test_rows_are_complete(tmp_path: Path, photos: Path) -> None:
    report = run(tmp_path, make_config(photos))
    rows = load_rows(tmp_path / "images")
    assert [row[schemas.SOURCE_KEY] for row in rows] == [f"{i:03d}.png" for i in range(30)]
    assert rows[7][schemas.CAPTIONS] == ["picture 7", "the same picture 7"]
    assert sorted(row[schemas.SAMPLE_ID] for row in rows) == [r[schemas.SAMPLE_ID] for r in rows]
    splits = [row[schemas.SPLIT] for row in rows]
    assert (splits.count("train"), splits.count("validation")) == (
        report.num_train,
        report.num_validation,
    )
    manifest = load_manifest(tmp_path / "images")
    assert len(manifest.shards) == report.num_shards > 4
    (state,) = (tmp_path / "work").iterdir()
    assert is_finished(state)


def test_captions_for_half_of_the_images(tmp_path: Path, photos: Path) -> None:
    for index in range(0, 30, 2):
        (photos / f"{index:03d}.txt").unlink()
    report = run(tmp_path, make_config(photos))
    assert (report.num_images, report.num_captions, report.num_without_captions) == (30, 30, 15)
    assert report.captions_by_reason == {"missing_caption": 15}


def test_no_captions_at_all_is_a_data_set_not_a_problem(tmp_path: Path, photos: Path) -> None:
    for path in photos.glob("*.txt"):
        path.unlink()
    report = run(tmp_path, make_config(photos))
    assert report.num_without_captions == 30
    assert report.caption_findings == ()


def test_the_split_follows_the_pixels_not_the_name(tmp_path: Path, photos: Path) -> None:
    config = make_config(photos, validation_fraction=0.5)
    run(tmp_path, config)
    before = {row[schemas.SHA256]: row[schemas.SPLIT] for row in load_rows(tmp_path / "images")}
    for index, path in enumerate(sorted(photos.glob("*.png"), reverse=True)):
        path.rename(photos / f"renamed{index}.png")
    run(tmp_path, config)
    after = {row[schemas.SHA256]: row[schemas.SPLIT] for row in load_rows(tmp_path / "images")}
    assert before == after
    assert len(set(before.values())) == 2


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, photos: Path) -> None:
    run(tmp_path, make_config(photos))
    first = snapshot(tmp_path / "images")
    run(tmp_path, make_config(photos))
    assert snapshot(tmp_path / "images") == first


def test_shards_hold_contents_and_neither_dates_nor_places(tmp_path: Path, photos: Path) -> None:
    run(tmp_path, make_config(photos))
    first = snapshot(tmp_path / "images")
    (photos / "000.png").touch()
    run(tmp_path, make_config(photos))
    assert snapshot(tmp_path / "images") == first
    elsewhere = tmp_path / "elsewhere" / "copy"
    shutil.copytree(photos, elsewhere, copy_function=shutil.copy)
    # Nor what this source and this encoding do not read.
    changes = {"emoji_styles": ["noto"], "jpeg_quality": 60}
    run(tmp_path, make_config(elsewhere, **changes))
    assert snapshot(tmp_path / "images") == first


def test_the_scan_writes_contents_alone(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipgan.data.content_hashes.SETTLED_SECONDS", 0.0)
    source, config = tmp_path / "source.json", make_config(photos)
    places = {"source": source, "raw": tmp_path, "remembered": tmp_path / "contents.json"}
    scan(config, **places)
    first = source.read_bytes()
    for path in photos.iterdir():
        path.touch()
    scan(config, **places)
    assert source.read_bytes() == first
    assert (tmp_path / "contents.json").exists()
    status = (photos / "000.txt").stat()
    text = (photos / "000.txt").read_bytes()
    (photos / "000.txt").write_bytes(text.replace(b"picture", b"Picture"))
    os.utime(photos / "000.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    scan(config, **places)
    assert source.read_bytes() != first, "equal size and date, another content"


def test_the_fingerprint_covers_what_a_reader_decodes(tmp_path: Path, photos: Path) -> None:
    """One source, three encodings: features and references of one must not serve another."""
    encodings: list[dict[str, Any]] = [
        {"encoding": "png"},
        {"encoding": "jpeg", "jpeg_quality": 95},
        {"encoding": "jpeg", "jpeg_quality": 50},
    ]
    fingerprints = [
        # One shard, so that nothing but the encoding differs.
        run(tmp_path, make_config(photos, shard_size_mb=1, **encoding)).fingerprint
        for encoding in encodings
    ]
    assert len(set(fingerprints)) == 3
    again = run(tmp_path, make_config(photos, shard_size_mb=1, **encodings[1]))
    assert again.fingerprint == fingerprints[1]


def write_garbage(folder: Path) -> None:
    for index in range(5):
        (folder / f"{index}.jpg").write_bytes(b"garbage %d" % index)


def write_corrupt(folder: Path) -> None:
    for index in range(5):
        data = encode(picture(seed=index), "JPEG")
        (folder / f"{index}.jpg").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("write", "reason"), [(write_garbage, "5 not_an_image"), (write_corrupt, "5 truncated")]
)
def test_nothing_usable_keeps_the_old_images_and_says_why(
    write: Any, reason: str, tmp_path: Path, photos: Path
) -> None:
    run(tmp_path, make_config(photos))
    before = snapshot(tmp_path / "images")
    folder = tmp_path / "useless"
    folder.mkdir()
    write(folder)
    with pytest.raises(DataError, match=f"useless: no usable image; {reason}; see ") as caught:
        run(tmp_path, make_config(folder))
    report = Path(str(caught.value).split("see ")[1])
    assert "## Rejected:" in report.read_text()
    assert report.with_suffix(".json").exists()
    assert snapshot(tmp_path / "images") == before


def test_everything_held_out_is_an_error(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(DataError, match=r"fell into the validation split: lower ingest.validation"):
        run(tmp_path, make_config(fill_folder(tmp_path / "one", 1), validation_fraction=0.999999))


# Listings that no folder gives


def make_sample(key: str, concept: str | None, seed: int, *captions: str) -> SourceSample:
    data = encode(picture(32, 32, seed=seed))
    return SourceSample(key, concept, "", captions, (), lambda: data)


def ingest_samples(tmp_path: Path, *samples: SourceSample) -> IngestReport:
    config = make_config(tmp_path, validation_fraction=0.0)
    listing = SourceListing("test", samples, identity=[s.key for s in samples])
    return Ingestion(config, listing, tmp_path / "work").run(tmp_path / "images")


def test_captions_of_duplicates_stay_within_their_concept(tmp_path: Path) -> None:
    report = ingest_samples(
        tmp_path,
        make_sample("a", "artist", 1, "man artist"),
        *[make_sample(f"filler{i}", "filler", 10 + i) for i in range(12)],
        make_sample("b", "artist", 1, "artist", "man artist"),
        make_sample("c", "firefighter", 1, "firefighter"),
    )
    rows = {row[schemas.SOURCE_KEY]: row for row in load_rows(tmp_path / "images")}
    assert rows["a"][schemas.CAPTIONS] == ["man artist", "artist"]
    assert [(found.file, found.detail) for found in report.rejected] == [
        ("b", "the same pixels as a, which takes its captions"),
        ("c", "the same pixels as a; its captions name another concept and are not used"),
    ]
    assert report.num_images == 13


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    def refuse() -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    closed = dataclasses.replace(make_sample("closed.png", None, 2), read=refuse)
    report = ingest_samples(tmp_path, make_sample("a", None, 1), closed)
    assert [(f.file, f.reason, f.detail) for f in report.rejected] == [
        ("closed.png", "unreadable", "Permission denied")
    ]


# The built-in data set


def test_openmoji_is_drawn_and_named(tmp_path: Path) -> None:
    listing = list_emoji(["openmoji"], 64, tmp_path, caption_style_fraction=0.0, seed=0)
    assert len(listing.samples) == 3953
    assert {rejection.reason for rejection in listing.rejected} == {"no_name"}
    apple = next(sample for sample in listing.samples if sample.key == "openmoji/1f34e")
    assert (apple.captions, apple.concept) == (("red apple", "apple"), "red apple")
    config = params_with().ingest
    chosen = dataclasses.replace(listing, samples=(*listing.samples[500:520], apple))
    report = Ingestion(config, chosen, tmp_path / "work").run(tmp_path / "images")
    assert report.num_images == 21
    assert report.altered == ()
    pixels = Image.open(io.BytesIO(load_rows(tmp_path / "images")[-1][schemas.IMAGE]))
    assert (pixels.mode, pixels.size) == ("RGB", (64, 64))
    assert pixels.getpixel((0, 0)) == (255, 255, 255)
    red, green, blue = pixels.getpixel((32, 40))  # type: ignore[misc]
    assert red > 150 > 100 > max(green, blue)


@pytest.mark.slow
def test_the_whole_built_in_data_set(tmp_path: Path) -> None:
    config = params_with().ingest
    report = ingest(
        config, images=tmp_path / "images", raw=tmp_path / "raw", work=tmp_path / "work"
    )
    assert report.num_images == 3731
    assert report.rejected_by_reason == {"no_name": 542, "duplicate": 222}
    assert report.altered == ()
    splits: dict[str, set[str]] = {}
    for row in load_rows(tmp_path / "images"):
        splits.setdefault(row[schemas.CONCEPT], set()).add(row[schemas.SPLIT])
    assert all(len(found) == 1 for found in splits.values())
    assert 0.07 < report.num_validation_concepts / report.num_concepts < 0.13
