"""Results of a plan -> the generated parts of its page: a table, curves and a grid a study.

The page docs/experiments/PLAN.md is written by hand around blocks between two comments, which only
:func:`write_tables` changes; so the words can interpret figures that no one can mistype.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from bench.experiments.plan import Plan, Study, list_runs
from bench.experiments.results import FOLDER, Comparison, Record, compare_arms
from clipgan.artifacts import atomic_path, write_bytes
from clipgan.config import load_profile
from clipgan.generation.sampler import load_sampler
from clipgan.grids import save_grid

GRID_SEED = 0
GRID_SCALE = 2


def write_tables(plan: Plan, name: str, records: Sequence[Record]) -> None:
    """Replace the blocks of the page by what ``records`` say.

    Raises:
        ValueError: the page has no block of a study that has results.
    """
    path = FOLDER / f"{name}.md"
    page = path.read_text(encoding="utf-8")
    for study_name, study in plan.studies.items():
        own = [record for record in records if record.study == study_name]
        if own:
            page = _replace_block(page, study_name, render_table(plan, study, own))
    write_bytes(path, page.encode())


def render_table(plan: Plan, study: Study, records: Sequence[Record]) -> str:
    """Markdown: an arm a row; bold where the interval of the difference does not hold 0."""
    first = next(iter(study.arms))
    arrows = {"higher": "↑", "lower": "↓"}
    heads = [f"{metric} {arrows[way]}" for metric, way in plan.metrics.items()]
    lines = [
        f"| arm | seeds | {' | '.join(heads)} | CPU minutes | weights of G |",
        "|---|---|" + "---|" * (len(heads) + 2),
    ]
    compared = {m: compare_arms(_collect(records, m), first) for m in plan.metrics}
    for arm in study.arms:
        own = [record for record in records if record.arm == arm]
        if own:
            cells = [_render(compared[metric][arm]) for metric in plan.metrics]
            minutes = statistics.fmean(r.cpu_seconds + r.warm_up_cpu_seconds for r in own) / 60
            weights = f"{own[0].generator_parameters / 1e6:.2f} M"
            cells += [f"{minutes:.1f}", weights]
            lines.append(f"| {arm} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _collect(records: Sequence[Record], metric: str) -> Mapping[str, Mapping[int, float]]:
    values: dict[str, dict[int, float]] = defaultdict(dict)
    for record in records:
        values[record.arm][record.seed] = record.values[metric]
    return values


def _render(comparison: Comparison) -> str:
    text = _format(comparison.mean)
    if comparison.difference is None:
        return text
    difference = _format(comparison.difference, sign=True)
    if comparison.half_width is not None:
        difference += f" ± {_format(comparison.half_width)}"
    return f"{text} ({f'**{difference}**' if comparison.is_clear else difference})"


def _format(value: float, *, sign: bool = False) -> str:
    # Distances run into the tens, scores and shares stay below 1.
    return f"{value:{'+' if sign else ''}.{1 if abs(value) >= 10 else 3}f}"


def read_block(page: str, study: str) -> str:
    """What stands in the page for ``study``.

    Raises:
        ValueError: the page has no such block.
    """
    match = _block_pattern(study).search(page)
    if match is None:
        raise ValueError(f"the page has no block `<!-- results: {study} -->` ... `<!-- end -->`")
    return match[2].rstrip("\n")


def _replace_block(page: str, study: str, text: str) -> str:
    read_block(page, study)
    return _block_pattern(study).sub(lambda match: f"{match[1]}{text}\n{match[3]}", page)


def _block_pattern(study: str) -> re.Pattern[str]:
    return re.compile(
        rf"(<!-- results: {re.escape(study)} -->\n)(.*?)(<!-- end -->)", flags=re.DOTALL
    )


def save_curves(folder: Path, plan: Plan, records: Sequence[Record]) -> None:
    """One picture a study: mean over the seeds of each arm, over ``images_seen``."""
    # The object interface: no global state and no display, whatever backend the user has set.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    for name, study in plan.studies.items():
        figure = Figure(figsize=(10.0, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(plan.curves))
        for axis, (loss, title) in zip(axes, plan.curves.items(), strict=True):
            for arm in study.arms:
                own = [r.history for r in records if (r.study, r.arm) == (name, arm)]
                points = _average(own, loss)
                if points:
                    axis.plot(*zip(*points, strict=True), label=arm, linewidth=1.4)
            axis.set_title(title, fontsize=10, loc="left")
            axis.set_xlabel("images seen", fontsize=9)
            axis.grid(color="#e5e5e5", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
        with atomic_path(folder / f"{name}-curves.png") as temporary:
            figure.savefig(temporary, format="png", dpi=100)


def _average(histories: Sequence[list[dict[str, float]]], loss: str) -> list[tuple[float, float]]:
    values: dict[float, list[float]] = defaultdict(list)
    for rows in histories:
        for row in rows:
            if loss in row:
                values[row["images_seen"]].append(row[loss])
    return [(seen, statistics.fmean(losses)) for seen, losses in sorted(values.items())]


def save_grids(folder: Path, plan: Plan, records: Sequence[Record], work: Path) -> None:
    """One grid a study: arms x prompts, the same latents everywhere, generators of one seed.

    They are drawn where all generators of a study lie in ``work``, which is on the machine that
    ran it. Elsewhere the grid in ``folder`` stays, and a line says so.
    """
    prompts = load_profile(plan.profile).monitoring.sample_prompts
    recorded = {record.place for record in records}
    bundles: dict[str, dict[str, Path]] = defaultdict(dict)
    for run in list_runs(plan):
        if run.seed == plan.seeds[0] and (run.study, run.arm, run.seed) in recorded:
            bundles[run.study][run.arm] = work / "runs" / run.key / "training"
    for name, arms in bundles.items():
        path = folder / f"{name}-samples.png"
        missing = [arm for arm, bundle in arms.items() if not bundle.is_dir()]
        if missing:
            print(f"{path} stays: no generator of {', '.join(missing)} in {work}", flush=True)
            continue
        rows = [
            load_sampler(bundle, device=torch.device("cpu")).sample(prompts, seed=GRID_SEED)
            for bundle in arms.values()
        ]
        save_grid(path, torch.cat(rows), len(prompts), row_labels=list(arms), scale=GRID_SCALE)
