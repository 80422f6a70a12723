"""``python -m bench``: a Markdown table of speeds at the sizes of params.yaml, on this machine.

Variants of one figure run interleaved in one process, so that their ratio holds on a busy machine.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from bench.evaluation import measure_evaluation
from clipgan.clip.encoder import ClipEncoder, load_clip
from clipgan.config import Params, TrainConfig, load_params
from clipgan.data.batches import Batch
from clipgan.families.registry import FAMILIES, find_family
from clipgan.models.networks import Generator
from clipgan.random_draws import StepRandom
from clipgan.training.conditions import Conditions
from clipgan.training.distributed import SINGLE
from clipgan.training.family import TrainingSpec

ROUNDS = 3
WARM_UP_ROUNDS = 1
STEPS = 16
"""In which every lazy phase has its turns."""
SAMPLED_IMAGES = 10


def main() -> None:
    """Measure and print."""
    params = load_params(Path("params.yaml"))
    cpu = torch.device("cpu")
    clip = load_clip(
        params.features.clip_model, params.features.clip_weights, precision="fp32", device=cpu
    )
    rows = [
        *measure_training(params, clip),
        *measure_features(clip),
        *measure_sampling(params, clip),
        measure_cold_generation(),
        *measure_evaluation(params),
    ]
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ", end=""
    )
    print(f"torch {torch.__version__}; median of {ROUNDS} rounds\n")
    print("| what | value | |\n|---|---|---|")
    for what, value, note in rows:
        print(f"| {what} | {value} | {note} |")


def measure_training(params: Params, clip: ClipEncoder) -> list[tuple[str, str, str]]:
    """Images a second of whole adversarial steps of both families, fp32 beside bf16, lazy
    regularisers included."""
    rows = []
    for family in FAMILIES:
        steps = {
            precision: _build_step(params.train, clip, family, precision)
            for precision in ("fp32", "bf16")
        }
        seconds = _interleave(
            {kind: partial(_run_steps, step, STEPS) for kind, step in steps.items()}
        )
        batch_size, name = params.train.batch_size, f"training {family}"
        rates = {kind: STEPS * batch_size / value for kind, value in seconds.items()}
        ratio = rates["bf16"] / rates["fp32"]
        rows += [
            (f"{name}, fp32", f"{rates['fp32']:.1f} images/s", f"batch {batch_size}"),
            (
                f"{name}, bf16",
                f"{rates['bf16']:.1f} images/s",
                f"x{ratio:.2f} over fp32",
            ),
        ]
    return rows


def _build_step(
    train: TrainConfig, clip: ClipEncoder, family: str, precision: str
) -> Callable[[int], object]:
    config = train.model_copy(
        update={"family": family, "precision": precision, "warm_up_images": 0, "latent_codes": 0}
    )
    spec: TrainingSpec = find_family(family).load("training")
    networks = spec.build_networks(config, clip)
    nothing: Any = None
    conditions = Conditions(clip, nothing, nothing, nothing, None, None)
    step = spec.build_step(config, networks, conditions, SINGLE)
    size, side = config.batch_size, config.resolution_px
    features = F.normalize(torch.randn(size, clip.embed_dim), dim=1)
    batch = Batch(torch.rand(size, 3, side, side) * 2 - 1, features, features)
    random = StepRandom(torch.device("cpu"))

    def run(index: int) -> object:
        random.seed(0, index)
        return step.step(batch, index * size, random)

    return run


def _run_steps(step: Callable[[int], object], count: int) -> None:
    for index in range(count):
        step(index)


def measure_features(clip: ClipEncoder) -> list[tuple[str, str, str]]:
    """Images a second through the image tower, fp32 on this device."""
    images = torch.rand(128, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        seconds = _interleave({"fp32": lambda: clip.encode_images(images)})
    return [("CLIP image features", f"{len(images) / seconds['fp32']:.0f} images/s", "fp32")]


def measure_sampling(params: Params, clip: ClipEncoder) -> list[tuple[str, str, str]]:
    """Images a second, one by one as `clipgan generate` does: both families, fp32.

    Both at the sizes of ``train``, with random weights and without the text encoder.
    """
    config = params.train
    generators: dict[str, Generator] = {}
    for family in FAMILIES:
        spec: TrainingSpec = find_family(family).load("training")
        changed = config.model_copy(update={"family": family})
        generators[family] = spec.build_networks(changed, clip).generator_ema
    variants = {name: _build_sampling(network) for name, network in generators.items()}
    with torch.inference_mode():
        seconds = _interleave(variants)
    rates = {name: SAMPLED_IMAGES / value for name, value in seconds.items()}
    ratio = rates["galip"] / rates["lafite"]
    notes = {"lafite": "fp32, one by one", "galip": f"x{ratio:.2f} over lafite"}
    return [
        (
            f"sampling, {name} at {config.resolution_px} px",
            f"{rate:.1f} images/s",
            f"{_count_millions(generators[name]):.1f} M weights; {notes[name]}",
        )
        for name, rate in rates.items()
    ]


def _build_sampling(network: Generator) -> Callable[[], object]:
    latents = torch.randn(1, network.latent_dim)
    texts = F.normalize(torch.randn(1, network.text_dim), dim=1)

    def run() -> object:
        for _ in range(SAMPLED_IMAGES):
            network(latents, texts)
        return None

    return run


def _count_millions(network: Generator) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def measure_cold_generation() -> tuple[str, str, str]:
    """Wall seconds of ``clipgan generate`` as a new process."""
    folder = Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "clipgan", "generate", "a red apple"]
    try:
        run = [*command, "--out", str(folder / "apple.png"), "--force"]
        seconds = _interleave(
            {"cold": lambda: subprocess.run(run, check=True, capture_output=True)}
        )
    finally:
        shutil.rmtree(folder)
    return ("`clipgan generate`, new process", f"{seconds['cold']:.1f} s", "one image")


def _interleave(variants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median wall seconds of each variant, the variants taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(WARM_UP_ROUNDS + ROUNDS):
        for name, variant in variants.items():
            started = time.perf_counter()
            variant()
            if round_number >= WARM_UP_ROUNDS:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


if __name__ == "__main__":
    main()
