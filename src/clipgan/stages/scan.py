"""Stage scan: a fingerprint of the configured source, by which DVC notices changes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from clipgan.artifacts import hash_json, write_json
from clipgan.config import IngestConfig
from clipgan.stages.ingest import list_source


@dataclass(frozen=True)
class ScanReport:
    """``identity_sha256`` changes when a file or package of the source does."""

    source: str
    num_files: int
    identity_sha256: str


def scan(
    config: IngestConfig, *, source: Path, raw: Path, remembered: Path | None = None
) -> ScanReport:
    """Write the fingerprint of all contents to ``source``; the files' times do not change it.

    A folder of images is not a dependency for DVC, which would hash every byte twice and stop at a
    broken link that the ingest report should list. Times decide only which files are read again;
    they are stored in ``remembered``, which DVC does not know.

    Raises:
        DataError: the source does not exist or contains no file.
    """
    listing = list_source(config, raw, remembered)
    report = ScanReport(
        source=listing.name,
        num_files=len(listing.samples) + len(listing.rejected),
        identity_sha256=hash_json(listing.identity),
    )
    write_json(source, asdict(report))
    return report
