"""The HTML report of measured models: what the page shows, made from tensors."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clipgan.artifacts import write_bytes
from clipgan.config import EvaluateConfig
from clipgan.evaluation.comparison import compare_models
from clipgan.evaluation.figures import draw_precision_recall, find_precision_recall
from clipgan.evaluation.findings import Findings
from clipgan.evaluation.page import PageContent, Pictures, build_page
from clipgan.evaluation.report import Evaluation
from clipgan.grids import build_grid

PAGE_FILE = "report.html"
CELL_PX = 64
"""Small images are enlarged to about this side in the sample strips, twice that elsewhere."""


def save_page(
    folder: Path,
    config: EvaluateConfig,
    evaluation: Evaluation,
    *,
    title: str,
    baseline: str | None,
    prompts: Sequence[str] = (),
    sheets: Mapping[str, Tensor] | None = None,
    findings: Mapping[str, Findings] | None = None,
    curves: bytes | None = None,
) -> None:
    """Write report.html into ``folder``.

    Args:
        baseline: the model the others are compared with; None: no comparison.
        sheets: model -> (prompts * grid_samples, 3, R, R) uint8, prompt after prompt.
        findings: model -> pictures worth looking at.
    """
    found = findings or {}
    content = PageContent(
        title=title,
        evaluation=evaluation,
        comparisons=[] if baseline is None else compare_models(evaluation.values, baseline),
        prompts=prompts,
        samples={
            model: [_strip(part) for part in torch.split(sheet, config.grid_samples)]
            for model, sheet in (sheets or {}).items()
        },
        curves=curves,
        figures=[
            (name, draw_precision_recall(points, name))
            for name, points in find_precision_recall(evaluation.values).items()
        ],
        nearest={model: _nearest(findings) for model, findings in found.items()},
        worst={model: _worst(findings) for model, findings in found.items()},
    )
    write_bytes(folder / PAGE_FILE, build_page(content).encode())


def _nearest(findings: Findings) -> Pictures:
    return [
        (
            f"{pair.condition}: distance {pair.distance:.3g}"
            + (" (memorised)" if pair.is_memorised else ""),
            _strip(torch.stack([pair.generated, pair.training]), CELL_PX),
        )
        for pair in findings.nearest
    ]


def _worst(findings: Findings) -> Pictures:
    return [
        (f"{worst.caption}: {worst.score:.3f}", _strip(worst.image[None], 2 * CELL_PX))
        for worst in findings.worst
    ]


def _strip(images_uint8: Tensor, cell_px: int = CELL_PX) -> bytes:
    """Images beside each other as PNG."""
    scale = max(1, cell_px // images_uint8.shape[-1])
    picture = io.BytesIO()
    build_grid(images_uint8, len(images_uint8), scale=scale).save(picture, format="PNG")
    return picture.getvalue()
