"""Drawings that come as npm packages: fetched with ``npm pack``, pinned by version and SHA-512."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from clipgan.errors import DataError


@dataclass(frozen=True)
class NpmPackage:
    """A pinned package: ``tarball`` is the file name ``npm pack`` gives it."""

    name: str
    version: str
    tarball: str
    sha512: str


def fetch_package(package: NpmPackage, raw: Path) -> Path:
    """Path of the package's tarball in ``raw``; downloaded only where it is not there yet.

    Raises:
        DataError: npm is missing or fails, or the tarball is not the pinned one.
    """
    target = raw / package.tarball
    if not target.exists():
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=raw, prefix=".npm-") as folder:
            _run_npm_pack(package, Path(folder))
            downloaded = Path(folder) / package.tarball
            if not downloaded.exists():
                raise DataError(
                    f"npm pack {package.name}@{package.version} made no {package.tarball}"
                )
            _check_hash(package, downloaded)
            downloaded.replace(target)
    _check_hash(package, target)
    return target


def read_members(tarball: Path, folder: str, suffix: str) -> dict[str, bytes]:
    """Contents of the files ``package/<folder>/*<suffix>`` by stem; nothing is unpacked to disk.

    Raises:
        DataError: the tarball cannot be read or has no such file.
    """
    prefix = f"package/{folder}/"
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for member in archive:
                if (
                    member.isreg()
                    and member.name.startswith(prefix)
                    and member.name.endswith(suffix)
                ):
                    content = archive.extractfile(member)
                    if content is not None:
                        members[Path(member.name).stem] = content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{tarball}: cannot be read ({error}); delete it and run again") from None
    if not members:
        raise DataError(f"{tarball}: no {prefix}*{suffix} inside; delete it and run again")
    return members


def _run_npm_pack(package: NpmPackage, folder: Path) -> None:
    spec = f"{package.name}@{package.version}"
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(
            f"npm is needed to fetch {spec}: install Node.js, or use emoji_styles: [openmoji]"
        )
    result = subprocess.run(
        # Absolute: npm takes a relative destination from its own folder, which is this one.
        [npm, "pack", spec, "--pack-destination", str(folder.resolve()), "--loglevel=error"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    if result.returncode != 0:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        reason = lines[0] if lines else f"exit status {result.returncode}"
        raise DataError(
            f"npm pack {spec} failed ({reason}): check the network, or use emoji_styles: [openmoji]"
        )


def _check_hash(package: NpmPackage, tarball: Path) -> None:
    with tarball.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha512").hexdigest()
    if found != package.sha512:
        raise DataError(
            f"{tarball}: SHA-512 {found[:16]}... is not that of {package.name}@{package.version} "
            f"({package.sha512[:16]}...); delete the file and run again"
        )
