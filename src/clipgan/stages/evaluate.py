"""Stage evaluate: a generator bundle -> metric values with protocols, sample sheets, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipgan.artifacts import replace_folder
from clipgan.clip.encoder import ClipEncoder, load_clip
from clipgan.clip.feature_store import FeatureTable, load_features
from clipgan.config import EvaluateConfig, FeaturesConfig
from clipgan.devices import resolve_device
from clipgan.errors import FeatureStoreError
from clipgan.evaluation.benchmark import Benchmark, build_benchmark
from clipgan.evaluation.history import load_history, save_history_csv, save_history_plot
from clipgan.evaluation.measurement import Evaluator
from clipgan.evaluation.protocol import MetricValue
from clipgan.evaluation.reference import ReferenceIndex, load_reference_index
from clipgan.evaluation.report import INITIAL, REAL, TRAINED, Evaluation, save_evaluation
from clipgan.generation.styles import draw_latents
from clipgan.generation.towers import attach_tower
from clipgan.grids import save_grid
from clipgan.images import to_uint8
from clipgan.models.bundle import (
    BundleInfo,
    GeneratorBundle,
    check_bundle_fits,
    load_bundle,
    load_bundle_info,
)
from clipgan.progress import progress_bar
from clipgan.run_logger import NULL_LOGGER, RunLogger

INITIAL_FOLDER = "initial"
LOGGED_FOLDER = "evaluation"
SHEET_CELL_PX = 128
"""Small images are enlarged to about this side on the sheets."""
CPU_BATCH = 8
"""Images at once through the generator on the CPU: 37 ms each at 64 px, against 43 with 64."""


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found: section (trained, initial, real) -> metric -> number."""

    values: dict[str, dict[str, float]]
    skipped: dict[str, str]
    warnings: tuple[str, ...]
    images_seen: int
    seconds: float


def evaluate(
    config: EvaluateConfig,
    *,
    features_config: FeaturesConfig,
    training: Path,
    images: Path,
    features: Path,
    output: Path,
    clip: ClipEncoder | None = None,
    logger: RunLogger = NULL_LOGGER,
) -> EvaluationReport:
    """Measure the trained generator, the one it started from, and real images in their place.

    Args:
        config: section ``evaluate``.
        features_config: names the CLIP, unless ``clip`` is given.
        training: the train stage's folder; its ``initial/`` is compared where there is one.
        images, features: artifacts of the stages before.
        output: folder to make or replace.
        clip: the encoder the generator was trained with.
        logger: receives metrics (initial ones at 0 images seen) and files.

    Raises:
        CheckpointError, DataError, FeatureStoreError, ClipError: inputs are damaged or do not fit.
        EvaluationError: empty split, a collapsed generator, or NaN in features.
    """
    started = time.monotonic()
    inputs = _load_inputs(
        config, features_config, training=training, images=images, features=features, clip=clip
    )
    bundles = inputs.bundles
    benchmark = build_benchmark(config, inputs.index, bundles[TRAINED].info.resolution_px)
    prompts = _choose_prompts(config, benchmark)
    values, sheets = _measure(config, inputs, benchmark, prompts)
    evaluation = Evaluation(values, benchmark.skipped, benchmark.warnings)
    images_seen = _count_images_seen(training, bundles[TRAINED].info)
    with _build_folder(output) as building:
        save_evaluation(building, evaluation)
        _save_sheets(building, config, prompts, sheets)
        _save_history(building, training, values, images_seen)
    _log(logger, values, images_seen, output)
    return EvaluationReport(
        values={s: {n: v.value for n, v in found.items()} for s, found in values.items()},
        skipped=dict(benchmark.skipped),
        warnings=benchmark.warnings,
        images_seen=images_seen,
        seconds=round(time.monotonic() - started, 2),
    )


@dataclass(frozen=True)
class _Inputs:
    """What the stages before left, loaded and found to fit together."""

    bundles: dict[str, GeneratorBundle]
    index: ReferenceIndex
    clip: ClipEncoder
    stored: StoredFeatures
    clip_fingerprint: dict[str, str]
    device: torch.device


def _load_inputs(
    config: EvaluateConfig,
    features_config: FeaturesConfig,
    *,
    training: Path,
    images: Path,
    features: Path,
    clip: ClipEncoder | None,
) -> _Inputs:
    device = resolve_device(config.device)
    bundles = _load_bundles(config, training)
    if clip is None:
        clip = load_clip(
            features_config.clip_model,
            features_config.clip_weights,
            precision=features_config.precision,
            device=device,
        )
    index = load_reference_index(images, config.reference_split)
    # The encoder may run in another precision here than where the features were made.
    fingerprint = {**clip.fingerprint, "precision": features_config.precision}
    table = load_features(
        features, images_fingerprint=index.fingerprint, clip_fingerprint=fingerprint
    )
    for bundle in bundles.values():
        precision = {"precision": bundle.info.clip.get("precision", "")}
        check_bundle_fits(bundle.info, clip={**fingerprint, **precision})
        attach_tower(bundle, clip)
    stored = StoredFeatures(table)
    return _Inputs(bundles, index, clip, stored, fingerprint, device)


def _measure(
    config: EvaluateConfig, inputs: _Inputs, benchmark: Benchmark, prompts: Sequence[str]
) -> tuple[dict[str, dict[str, MetricValue]], dict[str, Tensor]]:
    """Values of every section, and the sample sheet of every generator."""
    values: dict[str, dict[str, MetricValue]] = {}
    sheets: dict[str, Tensor] = {}
    total = benchmark.count_images(config, len(inputs.bundles))
    with progress_bar("evaluate", total, "images") as bar:
        evaluator = Evaluator(
            config,
            benchmark,
            encode_images=inputs.clip.encode_images,
            encode_texts=inputs.stored.find,
            clip_fingerprint=inputs.clip_fingerprint,
            device=inputs.device,
            advance=bar.advance,
        )
        for name, bundle in inputs.bundles.items():
            generator = _Generator(bundle, inputs.stored, inputs.clip, config, inputs.device)
            values[name] = evaluator.measure(generator.generate)
            sheets[name] = generator.generate_sheet(prompts)
        if real := evaluator.measure_real():
            values[REAL] = real
    return values, sheets


class _Generator:
    """Text features and latents in batches; the seed gives image i the latent i."""

    def __init__(
        self,
        bundle: GeneratorBundle,
        stored: StoredFeatures,
        clip: ClipEncoder,
        config: EvaluateConfig,
        device: torch.device,
    ) -> None:
        bundle.generator.to(device).eval()
        self._bundle, self._stored, self._clip = bundle, stored, clip
        self._config, self._device = config, device

    def generate(self, prompts: Sequence[str]) -> Tensor:
        """(len(prompts), 3, R, R) uint8, each from a latent of its own."""
        return self._run(
            prompts, draw_latents(self._config.seed, len(prompts), self._bundle.latent_dim)
        )

    def generate_sheet(self, prompts: Sequence[str]) -> Tensor:
        """Prompt after prompt; the columns of the sheet share their latents."""
        columns = self._config.grid_samples
        latents = draw_latents(self._config.seed, columns, self._bundle.latent_dim)
        repeated = [prompt for prompt in prompts for _ in range(columns)]
        return self._run(repeated, latents.repeat(len(prompts), 1))

    def _find_texts(self, conditions: Sequence[str]) -> Tensor:
        if self._bundle.takes_raw_texts and self._stored.holds_captions(conditions):
            # Stored features are of unit length.
            return self._bundle.encode_texts(self._clip, conditions)
        return self._stored.find_for(self._bundle, conditions)

    @torch.inference_mode()
    def _run(self, prompts: Sequence[str], latents: Tensor) -> Tensor:
        on_cpu = self._device.type == "cpu"
        batch = min(self._config.batch_size, CPU_BATCH) if on_cpu else self._config.batch_size
        texts = self._find_texts(prompts)
        parts = [
            to_uint8(
                self._bundle.generate(
                    z.to(self._device),
                    text.to(self._device),
                    truncation=self._config.truncation,
                )
            ).cpu()
            for z, text in zip(torch.split(latents, batch), torch.split(texts, batch), strict=True)
        ]
        return torch.cat(parts)


def _load_bundles(config: EvaluateConfig, training: Path) -> dict[str, GeneratorBundle]:
    bundles = {TRAINED: load_bundle(training, with_discriminator=False)}
    initial = training / INITIAL_FOLDER
    if config.compare_initial and initial.is_dir():
        bundles[INITIAL] = load_bundle(initial, with_discriminator=False)
        check_bundle_fits(bundles[INITIAL].info, resolution_px=bundles[TRAINED].info.resolution_px)
    return bundles


def _count_images_seen(training: Path, trained: BundleInfo) -> int:
    """Images seen in this training alone: what the losses are counted over."""
    initial = training / INITIAL_FOLDER
    before = load_bundle_info(initial).images_seen if initial.is_dir() else 0
    return trained.images_seen - before


class StoredFeatures:
    """Features as training saw them, from the store: of captions, or of images by sample id."""

    def __init__(self, table: FeatureTable) -> None:
        self._captions = _number(table.captions)
        self._images = _number(table.sample_ids)
        self._table = table

    def find(self, conditions: Sequence[str]) -> Tensor:
        """All captions, or all sample ids -> (N, D) float32, unit norm, as CLIP gave them.

        Raises:
            FeatureStoreError: names a condition that has no feature.
        """
        for rows, stored in (
            (self._captions, self._table.text_features),
            (self._images, self._table.image_features),
        ):
            if all(name in rows for name in conditions):
                found = stored[[rows[name] for name in conditions]]
                return torch.from_numpy(found.astype(np.float32))
        unknown = next(name for name in conditions if name not in self._captions)
        raise FeatureStoreError(f"{unknown!r} has no feature: run `clipgan stage features` again")

    def holds_captions(self, conditions: Sequence[str]) -> bool:
        """Whether all of them are captions."""
        return all(name in self._captions for name in conditions)

    def find_for(self, bundle: GeneratorBundle, conditions: Sequence[str]) -> Tensor:
        """:meth:`find` in the space that the generator was trained in."""
        found = self.find(conditions)
        if self.holds_captions(conditions):
            return bundle.prepare_texts(found)
        return bundle.prepare_images(found)


def _number(names: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(names)}


def _choose_prompts(config: EvaluateConfig, benchmark: Benchmark) -> list[str]:
    """Names of concepts where there is a gallery, conditions otherwise; each once."""
    names = benchmark.gallery.prompts if benchmark.gallery else benchmark.choice.conditions
    return list(dict.fromkeys(names))[: config.grid_prompts]


def _save_sheets(
    folder: Path, config: EvaluateConfig, prompts: Sequence[str], sheets: dict[str, Tensor]
) -> None:
    columns, trained = config.grid_samples, sheets[TRAINED]
    scale = max(1, SHEET_CELL_PX // trained.shape[-1])
    save_grid(folder / "samples.png", trained, columns, row_labels=prompts, scale=scale)
    if INITIAL not in sheets:
        return
    rows, labels = [], []
    for row, prompt in enumerate(prompts):
        for name, label in ((INITIAL, "before"), (TRAINED, "after")):
            rows.append(sheets[name][row * columns : (row + 1) * columns])
            labels.append(f"{prompt} ({label})")
    save_grid(folder / "before_after.png", torch.cat(rows), columns, row_labels=labels, scale=scale)


def _save_history(
    folder: Path, training: Path, values: dict[str, dict[str, MetricValue]], images_seen: int
) -> None:
    rows = load_history(training / "history.json")
    points: dict[str, list[tuple[int, float]]] = {}
    for section, position in ((INITIAL, 0), (TRAINED, images_seen)):
        for name, value in values.get(section, {}).items():
            points.setdefault(name, []).append((position, value.value))
    save_history_csv(folder / "history.csv", rows)
    save_history_plot(folder / "history.png", rows, points)


def _log(
    logger: RunLogger, values: dict[str, dict[str, MetricValue]], images_seen: int, folder: Path
) -> None:
    for section, position in ((INITIAL, 0), (TRAINED, images_seen)):
        found = values.get(section, {})
        numbers = {f"{LOGGED_FOLDER}/{name}": value.value for name, value in found.items()}
        if numbers:
            logger.log_metrics(numbers, position)
    for path in sorted(folder.iterdir()):
        logger.log_file(path, LOGGED_FOLDER)
    logger.flush()


@contextmanager
def _build_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` that takes its place when everything is written."""
    building = output.with_name(f".{output.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        yield building
        replace_folder(building, output)
    finally:
        shutil.rmtree(building, ignore_errors=True)
