"""Stage scan: what the configured source offers now, so that DVC sees when it changes."""

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
    """Write ``source``, the listing's fingerprint: of contents, whatever the files' times.

    A folder of images is no dependency for DVC: it would hash every byte twice, and a broken link
    in it would stop the pipeline instead of becoming a line of the ingest report. Here times only
    tell which files are to be read again; ``remembered`` keeps them, outside of DVC.

    Raises:
        DataError: the source is not there or holds no file.
    """
    listing = list_source(config, raw, remembered)
    report = ScanReport(
        source=listing.name,
        num_files=len(listing.samples) + len(listing.rejected),
        identity_sha256=hash_json(listing.identity),
    )
    write_json(source, asdict(report))
    return report
