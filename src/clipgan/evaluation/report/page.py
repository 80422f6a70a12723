"""report.md and report.html, made from the table of an evaluation by the templates beside this
file.

The page is one file. It contains its pictures as data URIs and no script, and loads nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from clipgan.evaluation.report.figures import draw_precision_recall, find_precision_recall
from clipgan.evaluation.report.pictures import NearestPair, Pictures, WorstCaption
from clipgan.evaluation.report.summary import summarise
from clipgan.grids import build_grid
from clipgan.metrics.evaluations import Evaluation
from clipgan.metrics.table import build_table

CELL_PX = 64
"""Side to which small images are enlarged in the sample strips; twice that elsewhere."""


def format_report(evaluation: Evaluation, verdict: Sequence[str] = ()) -> str:
    """Write a Markdown page: what the values say, their table, their protocols, what is missing.

    Args:
        verdict: on the training, in words; empty: there is none.
    """
    return _render("report.md.j2", evaluation, verdict=verdict)


def build_page(
    evaluation: Evaluation,
    pictures: Pictures,
    curves: bytes | None = None,
    verdict: Sequence[str] = (),
) -> str:
    """Write the HTML page; the same content makes the same bytes.

    Args:
        curves: PNG over images seen; None: there is no training.
        verdict: on the training, in words; empty: there is none.
    """
    return _render(
        "report.html.j2",
        evaluation,
        prompts=pictures.prompts,
        samples={
            model: [_draw_strip(row) for row in grid] for model, grid in pictures.grids.items()
        },
        curves=curves,
        verdict=verdict,
        figures=[
            (name, draw_precision_recall(points, name))
            for name, points in find_precision_recall(evaluation.values).items()
        ],
        nearest={model: list(map(_show_pair, pairs)) for model, pairs in pictures.nearest.items()},
        worst={model: list(map(_show_worst, worst)) for model, worst in pictures.worst.items()},
    )


def _render(template: str, evaluation: Evaluation, **content: Any) -> str:
    table = build_table(evaluation)
    summary = summarise(evaluation.values, table.comparisons)
    page = _load_templates().get_template(template)
    return page.render(evaluation=evaluation, table=table, summary=summary, **content)


@cache
def _load_templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("clipgan.evaluation.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment


def _show_pair(pair: NearestPair) -> tuple[str, bytes]:
    words = f"{pair.condition}: distance {pair.distance:.3g}" + (" (memorised)" * pair.is_memorised)
    return words, _draw_strip(torch.stack([pair.generated, pair.training]))


def _show_worst(worst: WorstCaption) -> tuple[str, bytes]:
    return f"{worst.caption}: {worst.score:.3f}", _draw_strip(worst.image[None], 2 * CELL_PX)


def _draw_strip(images_uint8: Tensor, cell_px: int = CELL_PX) -> bytes:
    """Draw images beside each other as PNG."""
    scale = max(1, cell_px // images_uint8.shape[-1])
    picture = io.BytesIO()
    build_grid(images_uint8, len(images_uint8), scale=scale).save(picture, format="PNG")
    return picture.getvalue()
