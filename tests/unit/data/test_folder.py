from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from clipgan.data.image_reader import FORMATS
from clipgan.data.sources import RejectedFileError, SourceListing
from clipgan.data.sources.folder import list_folder, parse_captions
from clipgan.errors import DataError
from tests.unit.data.pictures import encode, picture

PNG = encode(picture())


def listing(folder: Path) -> SourceListing:
    return list_folder(folder, max_megapixels=1.0, caption_lines="all")


def reasons(found: SourceListing) -> dict[str, str]:
    return {finding.file: finding.reason for finding in found.rejected}


def test_files_are_listed_by_relative_path_whatever_their_ending(tmp_path: Path) -> None:
    for name in ("b/x.JPG", "a.webp", "b/y.jpeg", "noending", "b.tif"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PNG)
    keys = [sample.key for sample in listing(tmp_path).samples]
    assert keys == ["a.webp", "b.tif", "b/x.JPG", "b/y.jpeg", "noending"]
    assert listing(tmp_path).samples[0].read() == PNG


def test_captions_lie_beside_their_image(tmp_path: Path) -> None:
    (tmp_path / "bird.jpg").write_bytes(PNG)
    (tmp_path / "bird.txt").write_text("a bird\n  a small bird \na bird\n")
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "dog.txt").write_text("a dog")
    found = listing(tmp_path)
    assert [sample.captions for sample in found.samples] == [("a bird", "a small bird"), ()]
    assert [(p.file, p.reason) for p in found.caption_problems] == [
        ("dog.txt", "caption_without_image")
    ]


@pytest.mark.parametrize(
    ("data", "captions", "reason"),
    [
        (b"one\ntwo\n", ("one", "two"), None),
        (b"\xef\xbb\xbfone\r\ntwo", ("one", "two"), None),
        (b"", (), "empty_caption"),
        (b" \n\t\n", (), "empty_caption"),
        (b"one\n\ntwo", ("one", "two"), "empty_caption"),
        ("caf\u00e9".encode("latin-1"), (), "non_utf8_caption"),
        ("caf\u00e9".encode("utf-16"), (), "non_utf8_caption"),
        ("a red corner".encode("utf-16-le"), (), "nul_in_caption"),
        ("a red corner".encode("utf-16-be"), (), "nul_in_caption"),
        (b"a red\0corner\nanother\n", (), "nul_in_caption"),
        ("\u200b\ufeff\u200d\u2060\n\u2800\u3164\ufe0f".encode(), (), "empty_caption"),
        ("one\n\u200b\ntwo".encode(), ("one", "two"), "empty_caption"),
        ("\u2764\ufe0f\n\u4e00".encode(), ("\u2764\ufe0f", "\u4e00"), None),
    ],
)
def test_caption_files(data: bytes, captions: tuple[str, ...], reason: str | None) -> None:
    found, problems = parse_captions(data)
    assert found == captions
    assert [problem[0] for problem in problems] == ([reason] if reason else [])


def test_refused_caption_files_name_the_remedy() -> None:
    for data in ("a".encode("utf-16-le"), "a".encode("utf-16"), b"caf\xe9"):
        _, ((_, detail),) = parse_captions(data)
        assert detail.endswith("none of it is used: save it as UTF-8")


def test_names_are_compared_in_one_unicode_form_and_endings_in_any_case(tmp_path: Path) -> None:
    decomposed, composed = (
        unicodedata.normalize(form, "gr\u00f6\u00dfe") for form in ("NFD", "NFC")
    )
    assert decomposed != composed
    (tmp_path / f"{decomposed}.png").write_bytes(PNG)
    (tmp_path / f"{composed}.Txt").write_text("a size")
    (tmp_path / "b.JPG").write_bytes(PNG)
    (tmp_path / "b.TxT").write_text("a bird")
    found = listing(tmp_path)
    assert sorted(sample.captions for sample in found.samples) == [("a bird",), ("a size",)]
    assert found.caption_problems == ()


def test_of_two_caption_files_of_one_name_the_second_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.TXT").write_text("first by name")
    (tmp_path / "a.txt").write_text("second by name")
    found = listing(tmp_path)
    assert found.samples[0].captions == ("first by name",)
    assert [(p.file, p.reason, p.detail) for p in found.caption_problems] == [
        ("a.txt", "second_caption_file", "a.TXT has the same name and is used")
    ]


def test_the_first_line_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.txt").write_text("\none\ntwo\n")
    (sample,) = list_folder(tmp_path, max_megapixels=1.0, caption_lines="first").samples
    assert sample.captions == ("one",)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.png").write_bytes(PNG)
    (inside / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(inside)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "nowhere.png").symlink_to("missing.png")
    found = listing(tmp_path)
    assert [sample.key for sample in found.samples] == ["again/a.png", "inside/a.png"]
    assert reasons(found) == {
        "again/up": "symlink_loop",
        "inside/up": "symlink_loop",
        "self": "symlink_loop",
        "nowhere.png": "unreadable",
    }


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    os.mkfifo(tmp_path / "pipe.png")
    assert reasons(listing(tmp_path)) == {"pipe.png": "not_an_image"}


def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.png")).write_bytes(PNG)
    (sample,) = listing(tmp_path).samples
    assert sample.key == "caf\\xe9\\n.png"
    assert sample.read() == PNG


def test_files_no_image_of_the_limit_can_need_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"")
    os.truncate(path, 100_000_000)
    (sample,) = listing(tmp_path).samples
    with pytest.raises(RejectedFileError, match="decompression_bomb: 100,000,000 bytes"):
        sample.read()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folders_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    try:
        assert reasons(listing(tmp_path)) == {"closed": "unreadable"}
    finally:
        closed.chmod(0o700)


def test_the_identity_follows_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    before = listing(tmp_path).identity
    assert listing(tmp_path).identity == before
    # An extra that reads further formats makes files usable that were refused.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clipgan.data.sources.folder.FORMATS", (*FORMATS, "HEIF"))
        assert listing(tmp_path).identity != before
    (tmp_path / "a.txt").write_text("new caption")
    assert listing(tmp_path).identity != before


def test_the_identity_is_that_of_contents_and_names(tmp_path: Path) -> None:
    """Neither a date nor an inode: a copy, a checkout, a `touch` are the same data."""
    folder = tmp_path / "own"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "a.png").write_bytes(PNG)
    (folder / "b" / "a.txt").write_text("a caption")
    before = listing(folder).identity
    (folder / "b" / "a.png").touch()
    shutil.copytree(folder, tmp_path / "copy")
    assert listing(folder).identity == listing(tmp_path / "copy").identity == before
    status = (folder / "b" / "a.txt").stat()
    (folder / "b" / "a.txt").write_text("another c")
    os.utime(folder / "b" / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert listing(folder).identity != before, "equal size and time, another content"
    (tmp_path / "copy" / "nowhere").symlink_to("gone")
    assert listing(tmp_path / "copy").identity != before, "the report names the broken link"


def test_the_identity_reads_no_file_that_no_image_can_need(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"")
    os.truncate(tmp_path / "film.mp4", 10**12)
    assert listing(tmp_path).identity


def make_nothing(folder: Path) -> None:
    """The folder is not there."""


def make_empty(folder: Path) -> None:
    folder.mkdir()


def make_captions_only(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.txt").write_text("a")


def make_file(folder: Path) -> None:
    folder.write_bytes(PNG)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_nothing, "no such folder"),
        (make_empty, "no image files"),
        (make_captions_only, "no image files .1 caption files"),
        (make_file, "is a file, not a folder"),
    ],
)
def test_folders_without_images(make: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=f"ingest.folder = .*photos: {message}") as caught:
        listing(tmp_path / "photos")
    assert "\n" not in str(caught.value)
