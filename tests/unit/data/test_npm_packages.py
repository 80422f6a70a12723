"""Fetching with a stand-in for npm on PATH: real tarballs, no network."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from clipgan.data.sources.emoji import npm_packages
from clipgan.data.sources.emoji.npm_packages import NpmPackage, fetch_package, read_members
from clipgan.errors import DataError


def make_tarball(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


TARBALL = make_tarball({"package/img/0023.png": b"hash", "package/package.json": b"{}"})
PACKAGE = NpmPackage("drawings", "1.0.0", "drawings-1.0.0.tgz", hashlib.sha512(TARBALL).hexdigest())


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts a program ``npm`` on PATH that packs ``source.tgz`` and counts its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "source.tgz").write_bytes(TARBALL)
    script = folder / "npm"
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys\n"
        "here = pathlib.Path(__file__).parent\n"
        "with (here / 'calls').open('a') as calls: calls.write(' '.join(sys.argv[1:]) + '\\n')\n"
        "if not (here / 'source.tgz').exists(): sys.exit('npm error code E404')\n"
        "target = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
        "shutil.copy(here / 'source.tgz', target / 'drawings-1.0.0.tgz')\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_a_package_is_packed_once_and_reused(npm: Path, tmp_path: Path) -> None:
    for _ in range(2):
        path = fetch_package(PACKAGE, tmp_path / "raw")
    assert path.read_bytes() == TARBALL
    calls = (npm / "calls").read_text().splitlines()
    assert len(calls) == 1
    assert calls[0].startswith("pack drawings@1.0.0 ")
    assert names_in(tmp_path / "raw") == ["drawings-1.0.0.tgz"]


def test_a_relative_folder_for_raw_files_works(
    npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fetch_package(PACKAGE, Path("raw")).read_bytes() == TARBALL


def test_a_failing_npm_is_one_line_with_its_reason(npm: Path, tmp_path: Path) -> None:
    (npm / "source.tgz").unlink()
    with pytest.raises(DataError, match=r"npm pack drawings@1.0.0 failed \(npm error code E404\)"):
        fetch_package(PACKAGE, tmp_path / "raw")
    assert names_in(tmp_path / "raw") == []


def test_another_tarball_than_the_pinned_one_is_refused(npm: Path, tmp_path: Path) -> None:
    (npm / "source.tgz").write_bytes(make_tarball({"package/img/0023.png": b"other"}))
    with pytest.raises(DataError, match="SHA-512"):
        fetch_package(PACKAGE, tmp_path / "raw")
    assert names_in(tmp_path / "raw") == []


def test_a_damaged_download_is_named(npm: Path, tmp_path: Path) -> None:
    path = fetch_package(PACKAGE, tmp_path / "raw")
    path.write_bytes(TARBALL[:-9])
    with pytest.raises(DataError, match=r"drawings-1.0.0.tgz: SHA-512 .* delete the file"):
        fetch_package(PACKAGE, tmp_path / "raw")


def test_without_npm_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npm_packages.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=r"install Node.js, or use emoji_styles: \[openmoji\]"):
        fetch_package(PACKAGE, tmp_path / "raw")


def test_members_are_read_by_folder_and_ending(tmp_path: Path) -> None:
    tarball = tmp_path / "a.tgz"
    tarball.write_bytes(TARBALL)
    assert read_members(tarball, "img", ".png") == {"0023": b"hash"}
    with pytest.raises(DataError, match=r"no package/img/\*.webp inside"):
        read_members(tarball, "img", ".webp")
    tarball.write_bytes(TARBALL[:60])
    with pytest.raises(DataError, match="cannot be read"):
        read_members(tarball, "img", ".png")
