"""Stage ingest: images and captions of a source -> image shards with a report."""

from __future__ import annotations

from pathlib import Path

from clipgan.config import IngestConfig
from clipgan.data.contact_sheet import CONTACT_SHEET
from clipgan.data.ingest import Ingestion
from clipgan.data.ingest_report import REPORT_MD, IngestReport
from clipgan.data.sources import KeptFiles, SourceListing
from clipgan.data.sources.registry import open_source


def ingest(
    config: IngestConfig,
    *,
    images: Path,
    raw: Path,
    work: Path,
    remembered: Path | None = None,
) -> IngestReport:
    """Write the images folder: shards, manifest.json, the report's two forms, contact_sheet.png.

    Args:
        config: the section ``ingest``.
        images: folder to make or replace; on the file system of ``work``.
        raw: downloads (npm packages), reused by later runs.
        work: resumable state, from which the same call goes on after an interruption.
        remembered: file of content hashes that the scan has written, see :func:`list_source`.

    Raises:
        DataError: the source has no usable image, a download fails, or the disk is full. The
            former ``images`` are then unchanged.
    """
    report = Ingestion(config, list_source(config, raw, remembered), work).run(images)
    print(f"{report.summary()}\nsee {images / REPORT_MD} and {CONTACT_SHEET} beside it", flush=True)
    return report


def list_source(config: IngestConfig, raw: Path, remembered: Path | None = None) -> SourceListing:
    """List the samples of the configured source, before any image is decoded.

    Args:
        remembered: file of content hashes, so that an unchanged folder is not read again.

    Raises:
        DataError: the source does not exist or contains no file.
    """
    source = open_source(config.source, config.source_keys)
    return source.list_samples(config, KeptFiles(raw, remembered))
