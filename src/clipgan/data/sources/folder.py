"""Any folder tree of images, with or without captions beside them.

A file is an image by its content, whatever its ending. ``bird.txt`` beside ``bird.jpg`` holds its
captions, one a line, UTF-8; names are compared in Unicode's composed form, because some systems
store an accent as a letter of its own. Every image is a concept of its own.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from clipgan import artifacts
from clipgan.config import IngestConfig
from clipgan.data.content_hashes import hash_files
from clipgan.data.image_reader import FORMATS
from clipgan.data.sources import (
    FileFinding,
    KeptFiles,
    RejectedFileError,
    Source,
    SourceListing,
    SourceSample,
)
from clipgan.errors import DataError

_CAPTION_ENDING = ".txt"
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe0e\ufe0f")
"""Fillers and selectors that count as letters, marks or symbols and show nothing by themselves."""
_SAVE_AS_UTF8 = "none of it is used: save it as UTF-8"
_BYTES_PER_PIXEL = 8
"""RGBA of 16 bits: no image within the pixel limit needs a larger file."""
_HEADER_BYTES = 1 << 20


class FolderSource(Source):
    """A folder of images of one's own."""

    places: ClassVar[tuple[str, ...]] = ("folder",)
    folder: Annotated[str, Field(description="root of the image tree; used when source is folder")]
    caption_lines: Annotated[
        Literal["all", "first"], Field(description="of a caption file: every line is a caption")
    ]

    @model_validator(mode="after")
    def _folder_is_named(self) -> Self:
        if not self.folder:
            raise ValueError("source is folder: set ingest.folder to the folder of your images")
        return self

    def list_samples(self, ingest: IngestConfig, kept: KeptFiles) -> SourceListing:
        """See :func:`list_folder`."""
        return list_folder(
            Path(self.folder).expanduser(),
            max_megapixels=ingest.max_megapixels,
            caption_lines=self.caption_lines,
            remembered=kept.remembered,
        )


@dataclass
class _Walk:
    """Files found so far, and what could not be walked."""

    images: list[tuple[Path, os.stat_result]] = field(default_factory=list)
    captions: dict[Path, os.stat_result] = field(default_factory=dict)
    rejected: list[FileFinding] = field(default_factory=list)


def list_folder(
    folder: Path,
    *,
    max_megapixels: float,
    caption_lines: Literal["all", "first"],
    remembered: Path | None = None,
) -> SourceListing:
    """All files of the tree in the order of their relative paths; symbolic links are followed.

    A file too large for any image of ``max_megapixels`` is refused unread. ``caption_lines`` says
    which lines of a caption file count. The identity holds names and contents, never times or
    places; ``remembered`` saves reading unchanged files for it, see
    :func:`clipgan.data.content_hashes.hash_files`.

    Raises:
        DataError: the folder is missing, is no folder, cannot be read or has no files.
    """
    if not folder.is_dir():
        what = artifacts.describe_non_folder(folder)
        raise DataError(f"ingest.folder = {folder}: {what}; set it to the folder of your images")
    walk = _Walk()
    _walk_folder(folder, folder, walk, ancestors=frozenset())
    if not walk.images:
        detail = f"{len(walk.captions)} caption files, {len(walk.rejected)} unreadable entries"
        raise DataError(f"ingest.folder = {folder}: no image files ({detail})")
    walk.images.sort(key=lambda item: item[0].relative_to(folder).as_posix())
    max_bytes = int(max_megapixels * 1e6) * _BYTES_PER_PIXEL + _HEADER_BYTES
    by_name = _index_captions(walk.captions)
    used: set[Path] = set()
    samples = tuple(
        SourceSample(
            format_key(path, folder),
            None,
            "",
            *_load_captions(by_name.get(_name_key(path)), caption_lines, used),
            partial(_read_image, path, status.st_size, max_bytes),
        )
        for path, status in walk.images
    )
    orphans = tuple(
        FileFinding(format_key(path, folder), *_explain_unused(by_name[_name_key(path)], used))
        for path in sorted(set(walk.captions) - used)
    )
    return SourceListing(
        name="folder",
        samples=samples,
        identity=_identify(folder, walk, max_bytes, remembered),
        place=str(folder),
        rejected=tuple(walk.rejected),
        caption_problems=orphans,
    )


def _identify(folder: Path, walk: _Walk, max_bytes: int, remembered: Path | None) -> str:
    files = [*walk.images, *sorted(walk.captions.items())]
    read = [(path, status) for path, status in files if status.st_size <= max_bytes]
    hashes = dict(zip((path for path, _ in read), hash_files(read, remembered), strict=True))
    offered = [[format_key(path, folder), s.st_size, hashes.get(path)] for path, s in files]
    rejected = [[finding.file, finding.reason] for finding in walk.rejected]
    # FORMATS: with a plugin installed since, files that were refused before can be read.
    return artifacts.hash_json([FORMATS, offered, rejected])


def format_key(path: Path, folder: Path) -> str:
    """The path relative to ``folder`` in printable UTF-8: bytes that are no text and control
    characters are shown as escapes."""
    name = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def parse_captions(data: bytes) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Captions of a .txt file and the problems found: ``(captions, ((reason, detail), ...))``.

    One caption a line; repeated lines count once. A line without a visible character is blank. A
    file that is not UTF-8, or holds the character 0, has no caption.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return (), (("non_utf8_caption", f"byte {error.start} is not UTF-8; {_SAVE_AS_UTF8}"),)
    if "\0" in text:
        detail = f"the character 0 inside, as in UTF-16 without a mark; {_SAVE_AS_UTF8}"
        return (), (("nul_in_caption", detail),)
    lines = [line.strip() if _is_visible(line) else "" for line in text.splitlines()]
    captions = tuple(dict.fromkeys(line for line in lines if line))
    if not captions:
        return (), (("empty_caption", "the caption file has no text"),)
    blank = [str(number) for number, line in enumerate(lines, 1) if not line]
    if blank:
        return captions, (("empty_caption", f"blank line {', '.join(blank)}"),)
    return captions, ()


def _walk_folder(
    folder: Path, root: Path, walk: _Walk, ancestors: frozenset[tuple[int, int]]
) -> None:
    try:
        entries = sorted(folder.iterdir())
        own = folder.stat()
    except OSError as error:
        if folder == root:
            raise DataError(f"ingest.folder = {root}: {error.strerror}") from None
        walk.rejected.append(_unreadable(folder, root, error))
        return
    inside = ancestors | {(own.st_dev, own.st_ino)}
    for path, status in _stat_entries(entries, root, walk):
        if stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in inside:
                detail = "a link to a folder that contains it; not followed"
                walk.rejected.append(FileFinding(format_key(path, root), "symlink_loop", detail))
            else:
                _walk_folder(path, root, walk, inside)
        elif not stat.S_ISREG(status.st_mode):
            # Opening a pipe would block for ever.
            detail = "a pipe, socket or device"
            walk.rejected.append(FileFinding(format_key(path, root), "not_an_image", detail))
        elif path.suffix.lower() == _CAPTION_ENDING:
            walk.captions[path] = status
        else:
            walk.images.append((path, status))


def _stat_entries(
    entries: list[Path], root: Path, walk: _Walk
) -> Iterator[tuple[Path, os.stat_result]]:
    for path in entries:
        try:
            yield path, path.stat()
        except OSError as error:
            walk.rejected.append(_unreadable(path, root, error))


def _unreadable(path: Path, root: Path, error: OSError) -> FileFinding:
    key = format_key(path, root)
    if error.errno == errno.ELOOP:
        return FileFinding(key, "symlink_loop", "a link that leads to itself")
    detail = "a link to nowhere" if path.is_symlink() else (error.strerror or str(error))
    return FileFinding(key, "unreadable", detail)


def _is_visible(text: str) -> bool:
    # Controls, format characters and separators do not show.
    return any(unicodedata.category(c)[0] not in "CZ" and c not in _INVISIBLE for c in text)


def _name_key(path: Path) -> tuple[Path, str]:
    """Equal for an image and its captions; ``path`` lies in a folder as it was walked."""
    return path.parent, unicodedata.normalize("NFC", path.stem)


def _index_captions(paths: Iterable[Path]) -> dict[tuple[Path, str], Path]:
    """The caption file of each name; of several, the first in the order of their paths."""
    by_name: dict[tuple[Path, str], Path] = {}
    for path in sorted(paths):
        by_name.setdefault(_name_key(path), path)
    return by_name


def _explain_unused(chosen: Path, used: set[Path]) -> tuple[str, str]:
    if chosen in used:
        return "second_caption_file", f"{chosen.name} has the same name and is used"
    return "caption_without_image", "no image of that name"


def _load_captions(
    path: Path | None, caption_lines: str, used: set[Path]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    if path is None:
        return (), ()
    used.add(path)
    try:
        captions, problems = parse_captions(path.read_bytes())
    except OSError as error:
        return (), (("unreadable_caption", error.strerror or str(error)),)
    return captions[:1] if caption_lines == "first" else captions, problems


def _read_image(path: Path, num_bytes: int, max_bytes: int) -> bytes:
    if num_bytes > max_bytes:
        raise RejectedFileError(
            "decompression_bomb",
            f"{num_bytes:,} bytes, more than any image of ingest.max_megapixels needs",
        )
    return path.read_bytes()
