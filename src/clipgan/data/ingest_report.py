"""What ingestion did with every file, as ``ingest_report.json`` and ``.md``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clipgan import artifacts, schemas
from clipgan.config import Fit
from clipgan.data.fitting import ShapeSummary, summarise_shapes
from clipgan.data.shards import ImagesManifest, iterate_tables
from clipgan.data.sources import FileFinding

REPORT_JSON, REPORT_MD = "ingest_report.json", "ingest_report.md"
_LISTED_IN_MARKDOWN = 50
_MANY_CAPTIONS = 10
"""More captions an image are seldom intended, and each of them is encoded."""


@dataclass(frozen=True)
class IngestReport:
    """Counts, and every rejected or altered file with its reason.

    ``shapes`` says how many images changed how much in shape; ``caption_findings`` are captions not
    used; ``by_design`` counts alterations that belong to the source and are not listed by file.
    """

    source: str
    fingerprint: str
    resolution_px: int
    num_images: int
    num_captions: int
    num_without_captions: int
    num_concepts: int
    num_train: int
    num_validation: int
    num_validation_concepts: int
    num_shards: int
    images_by_style: dict[str, int]
    shapes: ShapeSummary
    by_design: dict[str, int]
    rejected: tuple[FileFinding, ...] = field(repr=False)
    altered: tuple[FileFinding, ...] = field(repr=False)
    caption_findings: tuple[FileFinding, ...] = field(repr=False)

    @property
    def rejected_by_reason(self) -> dict[str, int]:
        return count_reasons(self.rejected)

    @property
    def altered_by_reason(self) -> dict[str, int]:
        return count_reasons(self.altered)

    @property
    def captions_by_reason(self) -> dict[str, int]:
        return count_reasons(self.caption_findings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before training; mostly empty."""
        captioned = self.num_images - self.num_without_captions
        if self.num_captions <= _MANY_CAPTIONS * captioned:
            return ()
        return (
            f"{self.num_captions:,} captions for {captioned:,} images, "
            f"{self.num_captions / captioned:.0f} an image: every line of a caption file is one, "
            "and each is encoded; ingest.caption_lines: first or ingest.captions_per_image limits "
            "them",
        )

    def summary(self) -> str:
        """Lines for a terminal: counts, changes of shape, warnings."""
        rejected = format_counts(self.rejected_by_reason) or "none"
        counts = (
            f"{self.num_images:,} images ({self.num_train:,} train, {self.num_validation:,} "
            f"validation), {self.num_captions:,} captions, {self.num_concepts:,} concepts; "
            f"rejected: {rejected}; altered: {format_counts(self.altered_by_reason) or 'none'}"
        )
        if self.caption_findings:
            counts += f"; captions not used: {format_counts(self.captions_by_reason)}"
        warnings = [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([counts, self.shapes.describe(), *warnings])


def build_ingest_report(
    images_dir: Path,
    manifest: ImagesManifest,
    *,
    source: str,
    fit: Fit,
    by_design: Mapping[str, int],
    rejected: Iterable[FileFinding],
    altered: Iterable[FileFinding],
    caption_findings: Iterable[FileFinding],
) -> IngestReport:
    """Count what the shards of a finished folder hold, and add the findings of the ingestion."""
    styles: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    concepts: dict[str, str] = {}
    sizes: list[tuple[int, int]] = []
    num_captions, without = 0, []
    columns = [schemas.SOURCE_KEY, schemas.CONCEPT, schemas.STYLE, schemas.SPLIT, schemas.CAPTIONS]
    columns += [schemas.WIDTH, schemas.HEIGHT]
    for table in iterate_tables(images_dir, columns):
        for row in table.to_pylist():
            styles[row[schemas.STYLE]] += 1
            splits[row[schemas.SPLIT]] += 1
            concepts[row[schemas.CONCEPT]] = row[schemas.SPLIT]
            sizes.append((row[schemas.WIDTH], row[schemas.HEIGHT]))
            num_captions += len(row[schemas.CAPTIONS])
            if not row[schemas.CAPTIONS]:
                without.append(row[schemas.SOURCE_KEY])
    missing = [
        FileFinding(key, "missing_caption", "serves language-free training only")
        # A folder without any captions is a language-free data set, not a list of problems.
        for key in (without if num_captions else ())
    ]
    return IngestReport(
        source=source,
        fingerprint=manifest.fingerprint,
        resolution_px=manifest.resolution_px,
        num_images=manifest.num_images,
        num_captions=num_captions,
        num_without_captions=len(without),
        num_concepts=len(concepts),
        num_train=splits[schemas.TRAIN],
        num_validation=splits[schemas.VALIDATION],
        num_validation_concepts=list(concepts.values()).count(schemas.VALIDATION),
        num_shards=len(manifest.shards),
        images_by_style=dict(styles),
        shapes=summarise_shapes(fit, sizes),
        by_design=dict(by_design),
        rejected=tuple(rejected),
        altered=tuple(altered),
        caption_findings=(*caption_findings, *missing),
    )


def count_reasons(findings: Iterable[FileFinding]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(finding.reason for finding in findings).most_common())


def format_counts(counts: dict[str, int]) -> str:
    """``12 not_an_image, 2 truncated``."""
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def save_report(folder: Path, report: IngestReport) -> None:
    """Write both forms, each atomically; the JSON one lists everything."""
    artifacts.write_json(folder / REPORT_JSON, _to_tree(report))
    artifacts.write_bytes(folder / REPORT_MD, _to_markdown(report).encode())


def _to_tree(report: IngestReport) -> dict[str, Any]:
    tree = asdict(report)
    lists = {name: tree.pop(name) for name in ("rejected", "altered", "caption_findings")}
    return {
        **tree,
        "warnings": list(report.warnings),
        "num_rejected": len(report.rejected),
        "num_altered": len({finding.file for finding in report.altered}),
        "rejected_by_reason": report.rejected_by_reason,
        "altered_by_reason": report.altered_by_reason,
        "captions_by_reason": report.captions_by_reason,
        **lists,
    }


def _to_markdown(report: IngestReport) -> str:
    styles = ", ".join(
        f"{style or 'no style'} {n:,}" for style, n in report.images_by_style.items()
    )
    facts = [
        ("images", f"{report.num_images:,} at {report.resolution_px} px"),
        ("by style", styles),
        ("train / validation images", f"{report.num_train:,} / {report.num_validation:,}"),
        ("concepts (held out)", f"{report.num_concepts:,} ({report.num_validation_concepts:,})"),
        ("captions", f"{report.num_captions:,}"),
        ("images without a caption", f"{report.num_without_captions:,}"),
        ("shape", report.shapes.describe()),
        ("rejected files", format_counts(report.rejected_by_reason) or "none"),
        ("altered files", format_counts(report.altered_by_reason) or "none"),
        ("captions not used", format_counts(report.captions_by_reason) or "none"),
        ("by design, not listed", format_counts(report.by_design) or "none"),
        ("shards", f"{report.num_shards:,}"),
        ("fingerprint", f"`{report.fingerprint}`"),
    ]
    lines = [f"# Ingest report: {report.source}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts]
    lines += [line for warning in report.warnings for line in ("", f"**Warning:** {warning}")]
    lines += _list_findings("Rejected", report.rejected)
    lines += _list_findings("Altered", report.altered)
    lines += _list_findings("Captions", report.caption_findings)
    return "\n".join(lines) + "\n"


def _list_findings(title: str, findings: Sequence[FileFinding]) -> list[str]:
    lines: list[str] = []
    for reason, count in count_reasons(findings).items():
        lines += ["", f"## {title}: {reason} ({count:,})", ""]
        chosen = [finding for finding in findings if finding.reason == reason]
        lines += [
            f"- `{finding.file}`" + (f": {finding.detail}" if finding.detail else "")
            for finding in chosen[:_LISTED_IN_MARKDOWN]
        ]
        if count > _LISTED_IN_MARKDOWN:
            lines.append(f"- and {count - _LISTED_IN_MARKDOWN:,} more in {REPORT_JSON}")
    return lines
