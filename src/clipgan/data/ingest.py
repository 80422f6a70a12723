"""Resumable ingestion: from a source listing to a finished images folder.

Working state lies in ``work/<fingerprint of parameters, source and code>/``: finished shards in
``shards/`` and a journal for each in ``journal/``, which holds the position in the source that the
shard reaches and the findings up to there. A shard without its journal does not count, so that a
killed run redoes at most one. The finished folder is put together in ``images/`` and then moved
into place in one step.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clipgan import artifacts, schemas
from clipgan.config import IngestConfig
from clipgan.config.effective import select_ingest
from clipgan.data.contact_sheet import save_contact_sheet
from clipgan.data.fitting import ALTERATIONS
from clipgan.data.ingest_report import (
    IngestReport,
    build_ingest_report,
    format_counts,
    save_report,
)
from clipgan.data.processing import ProcessedSample, process_in_order
from clipgan.data.shards import (
    ShardEntry,
    ShardWriter,
    build_manifest,
    check_shard,
    join_captions,
    read_shard,
    save_manifest,
)
from clipgan.data.sources import FileFinding, SourceListing, SourceSample
from clipgan.data.splits import compute_split
from clipgan.errors import DataError
from clipgan.progress import progress_bar
from clipgan.resume_state import mark_finished, remove_abandoned
from clipgan.source_code import hash_sources

_STAGE = "clipgan.stages.ingest"
_RECIPE = frozenset(ALTERATIONS.values())
"""Alterations of every image that is not square: not listed by file, the report counts them."""


@dataclass
class IngestFindings:
    """The findings in a part of the source.

    ``joined``: captions of duplicates, by the sample id of the image that is kept.
    """

    rejected: list[FileFinding] = field(default_factory=list)
    altered: list[FileFinding] = field(default_factory=list)
    captions: list[FileFinding] = field(default_factory=list)
    by_design: dict[str, int] = field(default_factory=dict)
    joined: dict[str, list[str]] = field(default_factory=dict)

    def extend(self, other: IngestFindings) -> None:
        """Add the findings of the next part."""
        self.rejected += other.rejected
        self.altered += other.altered
        self.captions += other.captions
        for reason, count in other.by_design.items():
            self.by_design[reason] = self.by_design.get(reason, 0) + count
        for sample_id, captions in other.joined.items():
            self.joined.setdefault(sample_id, []).extend(captions)


@dataclass(frozen=True)
class _Kept:
    """The image that stands for all with the same pixels."""

    sample_id: str
    key: str
    concept: str


class Ingestion:
    """One ingestion of one listing under one configuration; ``folder`` is its working folder."""

    def __init__(self, config: IngestConfig, listing: SourceListing, work: Path) -> None:
        self.config, self.listing, self.work = config, listing, work
        identity = artifacts.hash_json(listing.identity)
        settings = select_ingest(config)
        self.folder = work / artifacts.hash_json([settings, identity, hash_sources(_STAGE)])[:16]
        self._provenance = json.dumps(
            {"source": listing.name, "identity": identity, "config": settings}, sort_keys=True
        )
        self._shard_dir, self._journal_dir = self.folder / "shards", self.folder / "journal"
        self._shards: list[ShardEntry] = []
        self._findings, self._pending = IngestFindings(), IngestFindings()
        self._kept: dict[str, _Kept] = {}
        self._position = self._num_journals = 0

    def run(self, images: Path) -> IngestReport:
        """Do what is left and put the finished folder in the place of ``images``.

        Raises:
            DataError: no image is usable (the report is in :attr:`folder`), or the disk is full or
                not writable (finished shards are kept, ``images`` is untouched).
        """
        with _explain_write_errors(self.folder):
            self._restore()
            self._process_rest()
            finished = self.folder / "images"
            report = self._assemble(finished)
            if not report.num_train:
                save_report(self.folder, report)
                raise DataError(self._describe_failure(report))
            images.parent.mkdir(parents=True, exist_ok=True)
            artifacts.replace_folder(finished, images)
            mark_finished(self.folder, images)
        # The state of interrupted runs with other settings.
        remove_abandoned(self.work)
        return report

    def _restore(self) -> None:
        for folder in (self._shard_dir, self._journal_dir):
            folder.mkdir(parents=True, exist_ok=True)
            for partial in folder.glob(f".*{artifacts.TEMPORARY_SUFFIX}"):
                partial.unlink()
        self._findings.rejected += self.listing.rejected
        self._findings.captions += self.listing.caption_problems
        while (path := self._journal_path()).exists() and self._replay(path):
            self._num_journals += 1

    def _journal_path(self) -> Path:
        return self._journal_dir / f"{self._num_journals:05d}.json"

    def _replay(self, path: Path) -> bool:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["shard"] is not None:
            entry = ShardEntry(**tree["shard"])
            shard_path = self._shard_dir / entry.name
            try:
                check_shard(shard_path, entry)
                columns = [schemas.SAMPLE_ID, schemas.SOURCE_KEY, schemas.CONCEPT]
                rows = read_shard(shard_path, columns).to_pylist()
            except DataError as error:
                print(f"made again from here: {error}", flush=True)
                return False
            for row in rows:
                content = row[schemas.SAMPLE_ID].split("-")[1]
                self._kept[content] = _Kept(*(row[name] for name in columns))
            self._shards.append(entry)
        findings = tree["findings"]
        for name in ("rejected", "altered", "captions"):
            findings[name] = [FileFinding(**finding) for finding in findings[name]]
        self._findings.extend(IngestFindings(**findings))
        self._position = tree["end"]
        return True

    def _process_rest(self) -> None:
        writer = ShardWriter(
            self._shard_dir,
            shard_size_mb=self.config.shard_size_mb,
            provenance=self._provenance,
            num_written=len(self._shards),
        )
        samples = self.listing.samples
        with progress_bar("ingest", len(samples), "images", done=self._position) as bar:
            for result in process_in_order(samples[self._position :], self.config):
                if isinstance(result, FileFinding):
                    self._pending.rejected.append(result)
                else:
                    self._add(result, writer)
                self._position += 1
                bar.advance()
                if writer.is_full:
                    self._finish_shard(writer)
            if writer.num_pending or self._pending != IngestFindings():
                self._finish_shard(writer)

    def _finish_shard(self, writer: ShardWriter) -> None:
        entry = writer.write() if writer.num_pending else None
        tree = {
            "end": self._position,
            "shard": asdict(entry) if entry else None,
            "findings": asdict(self._pending),
        }
        artifacts.write_json(self._journal_path(), tree)
        self._num_journals += 1
        if entry:
            self._shards.append(entry)
        self._findings.extend(self._pending)
        self._pending = IngestFindings()

    def _add(self, processed: ProcessedSample, writer: ShardWriter) -> None:
        sample, pending = processed.sample, self._pending
        pending.captions += [
            FileFinding(sample.key, *problem) for problem in sample.caption_problems
        ]
        sample_id = f"{self._position:08d}-{processed.content}"
        own = _Kept(sample_id, sample.key, processed.concept)
        kept = self._kept.setdefault(processed.content, own)
        if kept is not own:
            self._add_duplicate(processed, kept)
            return
        for reason, detail in processed.alterations.items():
            if reason in self.listing.by_design:
                pending.by_design[reason] = pending.by_design.get(reason, 0) + 1
            elif reason not in _RECIPE:
                pending.altered.append(FileFinding(sample.key, reason, detail))
        writer.add(self._make_row(processed, sample_id))

    def _add_duplicate(self, processed: ProcessedSample, kept: _Kept) -> None:
        captions = list(processed.sample.captions)
        detail = f"the same pixels as {kept.key}"
        # Captions of another concept could carry a held-out name into training, or the reverse.
        if captions and processed.concept == kept.concept:
            self._pending.joined.setdefault(kept.sample_id, []).extend(captions)
            detail += ", which takes its captions"
        elif captions:
            detail += "; its captions name another concept and are not used"
        self._pending.rejected.append(FileFinding(processed.sample.key, "duplicate", detail))

    def _make_row(self, processed: ProcessedSample, sample_id: str) -> dict[str, Any]:
        return {
            schemas.SAMPLE_ID: sample_id,
            schemas.SOURCE_KEY: processed.sample.key,
            schemas.CONCEPT: processed.concept,
            schemas.STYLE: processed.sample.style,
            schemas.SPLIT: compute_split(
                processed.concept,
                validation_fraction=self.config.validation_fraction,
                seed=self.config.split_seed,
            ),
            schemas.CAPTIONS: self._limit_captions(processed.sample),
            schemas.WIDTH: processed.width,
            schemas.HEIGHT: processed.height,
            schemas.SHA256: hashlib.sha256(processed.encoded).hexdigest(),
            schemas.IMAGE: processed.encoded,
        }

    def _limit_captions(self, sample: SourceSample) -> list[str]:
        captions, limit = list(sample.captions), self.config.captions_per_image
        if not limit or len(captions) <= limit:
            return captions
        detail = f"{len(captions):,} captions, ingest.captions_per_image = {limit} of them are used"
        self._pending.captions.append(FileFinding(sample.key, "captions_beyond_limit", detail))
        return captions[:limit]

    def _assemble(self, finished: Path) -> IngestReport:
        # The shards stay where they are until the end, so that a kill in here loses nothing.
        shutil.rmtree(finished, ignore_errors=True)
        finished.mkdir()
        entries: list[ShardEntry] = []
        for entry in self._shards:
            source, target = self._shard_dir / entry.name, finished / entry.name
            ids = read_shard(source, [schemas.SAMPLE_ID])[schemas.SAMPLE_ID].to_pylist()
            if self._findings.joined.keys().isdisjoint(ids):
                artifacts.link_file(source, target)
                entries.append(entry)
            else:
                limit = self.config.captions_per_image
                entries.append(join_captions(source, target, self._findings.joined, limit=limit))
        manifest = build_manifest(entries, self.config.resolution_px)
        save_manifest(finished, manifest)
        report = build_ingest_report(
            finished,
            manifest,
            source=self.listing.name,
            fit=self.config.fit,
            by_design=self._findings.by_design,
            rejected=self._findings.rejected,
            altered=self._findings.altered,
            caption_findings=self._findings.captions,
        )
        save_report(finished, report)
        if report.num_images:
            save_contact_sheet(finished, self.listing.samples, self.config)
        return report

    def _describe_failure(self, report: IngestReport) -> str:
        if report.num_images:
            return (
                f"all {report.num_images} images fell into the validation split: lower "
                f"ingest.validation_fraction = {self.config.validation_fraction} or add images"
            )
        where = self.listing.place or self.listing.name
        return (
            f"{where}: no usable image; {format_counts(report.rejected_by_reason)}; "
            f"see {self.folder / 'ingest_report.md'}"
        )


@contextmanager
def _explain_write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(
                f"disk full while writing under {folder}: free some space and run the same command "
                "again; finished shards are kept and used"
            ) from error
        raise DataError(f"cannot write under {folder}: {error}") from error
