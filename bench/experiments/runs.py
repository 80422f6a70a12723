"""One run of a plan: data, features, warm-up, training and measurement, each made once.

What is finished lies in the work folder under the hash of what decided it; runs that share a data
set or a warm-up share its folder, and a plan that was cut off goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from pydantic import BaseModel

from bench.experiments.plan import Run
from clipgan.artifacts import hash_json, write_json
from clipgan.config import Params, TrainConfig
from clipgan.models.bundle import load_bundle
from clipgan.stages.evaluate import evaluate
from clipgan.stages.features import extract_features
from clipgan.stages.ingest import ingest
from clipgan.stages.pretrain_generator import pretrain_generator
from clipgan.stages.pretrain_mapper import pretrain_mapper
from clipgan.stages.train import train

RESULT = "result.json"


@dataclass(frozen=True)
class Data:
    """Artifacts that a training reads."""

    images: Path
    features: Path


def execute(run: Run, work: Path, num_threads: int) -> dict[str, Any]:
    """Do what of ``run`` is not yet done; its result: metric values, losses, CPU seconds."""
    torch.set_num_threads(num_threads)
    folder = work / "runs" / run.key
    with _lock(folder):
        if not (folder / RESULT).exists():
            _execute(run, folder, work)
    result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return result


def _execute(run: Run, folder: Path, work: Path) -> None:
    data = prepare_data(run.params, work)
    start, warm_up_seconds = _prepare_start(run, work)
    started = time.process_time()
    history = _train(_complete(run.params, data, work, start), run.params, data, folder)
    seconds = time.process_time() - started
    result = {
        "values": _measure(run.params, folder / "training", data, folder / "evaluation", work),
        "history": history,
        "cpu_seconds": round(seconds, 1),
        "warm_up_cpu_seconds": warm_up_seconds,
        "generator_parameters": count_parameters(folder / "training"),
    }
    write_json(folder / RESULT, result)


def prepare_data(params: Params, work: Path) -> Data:
    """Ingest and encode, once for each data set and CLIP."""
    ingested = params.ingest.model_dump(mode="json")
    images = work / "images" / hash_json(ingested)[:16]
    features = (
        work / "features" / hash_json([ingested, params.features.model_dump(mode="json")])[:16]
    )
    scratch = work / "scratch" / images.name
    with _lock(images):
        if not images.exists():
            ingest(params.ingest, images=images, raw=work / "raw", work=scratch)
        if not features.exists():
            extract_features(params.features, images=images, features=features, work=scratch)
        shutil.rmtree(scratch, ignore_errors=True)
    return Data(images, features)


def _prepare_start(run: Run, work: Path) -> tuple[str, float]:
    """Name of the bundle to start from, and the CPU seconds its warm-up took."""
    if run.warm_up is None:
        return run.params.train.initial_weights, 0.0
    params = run.warm_up
    data = prepare_data(params, work)
    config = _complete(params, data, work, "none")
    decides = (config, params.pretrain_generator, params.ingest, params.features)
    folder = work / "warm-ups" / _hash(*decides)
    with _lock(folder):
        if not folder.exists():
            started = time.process_time()
            pretrain_generator(
                params.pretrain_generator,
                train_config=config,
                monitoring=params.monitoring,
                features_config=params.features,
                images=data.images,
                features=data.features,
                output=folder,
                work=folder.with_name(f"{folder.name}.work"),
            )
            write_json(folder / "seconds.json", round(time.process_time() - started, 1))
    return str(folder), float((folder / "seconds.json").read_text(encoding="utf-8"))


def _complete(params: Params, data: Data, work: Path, start: str) -> TrainConfig:
    """Section train with the folders that it starts from, a trained mapper among them."""
    config, pseudo = params.train, params.train.pseudo_text
    if pseudo.kind == "mapper":
        recipe = params.pretrain_mapper.model_copy(update={"seed": config.seed})
        folder = (
            work / "mappers" / hash_json([recipe.model_dump(mode="json"), str(data.features)])[:16]
        )
        with _lock(folder):
            if not folder.exists():
                pretrain_mapper(
                    recipe,
                    images=data.images,
                    features=data.features,
                    output=folder,
                    work=folder.with_name(f"{folder.name}.work"),
                )
        pseudo = pseudo.model_copy(update={"mapper": str(folder)})
    return config.model_copy(update={"initial_weights": start, "pseudo_text": pseudo})


def _train(config: TrainConfig, params: Params, data: Data, folder: Path) -> list[dict[str, float]]:
    """Losses over ``images_seen``."""
    train(
        config,
        monitoring=params.monitoring,
        features_config=params.features,
        images=data.images,
        features=data.features,
        output=folder / "training",
        work=folder / "work",
        image_store=data.images.parent.parent / "decoded",
    )
    shutil.rmtree(folder / "work", ignore_errors=True)
    rows: list[dict[str, float]] = json.loads((folder / "training/history.json").read_bytes())
    return rows


def _measure(
    params: Params, bundle: Path, data: Data, output: Path, work: Path
) -> dict[str, float]:
    evaluation = evaluate(
        params.evaluate,
        features_config=params.features,
        training=bundle,
        images=data.images,
        features=data.features,
        output=output,
        cache=work / "cache",
    )
    return {name: value.value for name, value in evaluation.values["trained"].items()}


def count_parameters(bundle: Path) -> int:
    """Trained weights of the bundle's generator: GALIP's frozen CLIP is none of them."""
    generator = load_bundle(bundle, with_discriminator=False).generator
    return sum(parameter.numel() for parameter in generator.parameters())


def _hash(*sections: BaseModel) -> str:
    return hash_json([section.model_dump(mode="json") for section in sections])[:16]


def _lock(folder: Path) -> FileLock:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))
