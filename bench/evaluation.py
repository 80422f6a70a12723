"""``python -m bench.evaluation``: distances and features beside torch-fidelity and pytorch-fid.

CPU seconds of one thread, best of the rounds: they say what a machine spends whatever else it does.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from clipgan.config import Params, load_params
from clipgan.evaluation.metrics.frechet_distance import FrechetReference, compute_distances
from clipgan.evaluation.spaces.inception import (
    TENSORFLOW_URL,
    TensorFlowInception,
    find_hub_weights,
)
from clipgan.evaluation.spaces.statistics import compute_statistics
from clipgan.stages.evaluate_folder import evaluate_folder
from tests.unit.evaluation.inception_weights import save_inception

DIMENSIONS = 2048
COUNTS = (1000, 3000)
ROUNDS = 3
NOT_INSTALLED = "left out, not installed: pip install -e '.[bench]'"
NUM_IMAGES = 64
FOLDER_IMAGES = 600
Row = tuple[str, str, str]
T = TypeVar("T")


def measure_evaluation(params: Params) -> list[Row]:
    """Rows of the benchmark's table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return [
                *(row for count in COUNTS for row in measure_distance(count)),
                *measure_extraction(Path(folder)),
                measure_second_evaluation(params, Path(folder)),
            ]
    finally:
        torch.set_num_threads(threads)


def measure_distance(count: int) -> list[Row]:
    """The Frechet distance of two sets of ``count`` features in 2048 dimensions.

    Ours knows the reference's covariance, as every evaluation after the first does.
    """
    a, b = draw_features(count, 0), draw_features(count, 1)
    known = compute_statistics(b) if count > DIMENSIONS else None
    ours, value = _time(lambda: compute_distances(a, FrechetReference(b, known))[0])
    theirs, other = _time(lambda: _torch_fidelity_distance(a, b))
    what = f"Frechet distance, {count} images"
    difference = abs(value - other) / other
    rows = [
        (what, f"{ours:.2f} cpu-s", f"torch-fidelity's value to {difference:.0e}"),
        (f"{what}, torch-fidelity", f"{theirs:.2f} cpu-s", f"x{theirs / ours:.1f}"),
    ]
    try:
        from pytorch_fid.fid_score import calculate_frechet_distance
    except ImportError:
        return [*rows, (f"{what}, pytorch-fid", "", NOT_INSTALLED)]
    statistics = [fid_features_to_statistics(features.double()) for features in (a, b)]
    pairs = [value for s in statistics for value in (s["mu"], s["sigma"])]
    seconds, _ = _time(lambda: float(calculate_frechet_distance(*pairs)))
    return [*rows, (f"{what}, pytorch-fid", f"{seconds:.2f} cpu-s", f"x{seconds / ours:.1f}")]


def draw_features(count: int, seed: int) -> Tensor:
    """Positive features with a falling spectrum, like those of Inception, (count, 2048)."""
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(DIMENSIONS, DIMENSIONS, generator=torch.Generator().manual_seed(9))
    noise = torch.randn(count, DIMENSIONS, generator=rng) * torch.logspace(0, -2, DIMENSIONS)
    return torch.relu(noise @ mix / DIMENSIONS**0.5 + 0.1 + 0.02 * seed)


def measure_extraction(folder: Path) -> list[Row]:
    """Inception features of 64 px images, ours beside torch-fidelity's at its best batch size."""
    local = find_hub_weights(TENSORFLOW_URL)
    weights = save_inception(folder / "inception.pth") if isinstance(local, str) else local.path
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
    )
    ours = TensorFlowInception(weights)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, 64, 64), dtype=torch.uint8)

    def extract(network: Callable[[Tensor], tuple[Tensor, ...]], batch: int) -> Tensor:
        with torch.inference_mode():
            return torch.cat([network(part)[0] for part in torch.split(images, batch)])

    seconds, best = {}, {}
    for name, network, batches in (("ours", ours, (16,)), ("theirs", theirs, (4, 64))):
        timed = [_time(partial(extract, network, batch)) for batch in batches]
        seconds[name], best[name] = min(timed, key=lambda pair: pair[0])
    known, left_out = _build_pytorch_fid()
    if known is not None:
        seconds["pytorch-fid"], _ = _time(partial(extract, known, 16))
        left_out = ""
    error = float((best["ours"] - best["theirs"]).abs().max() / best["theirs"].abs().max())
    rate = {name: NUM_IMAGES / value for name, value in seconds.items()}
    return [
        ("Inception features", f"{rate['ours']:.1f} images/cpu-s", f"equal to {error:.0e}"),
        (
            "Inception features, torch-fidelity",
            f"{rate['theirs']:.1f} images/cpu-s",
            f"x{rate['ours'] / rate['theirs']:.2f}",
        ),
        (
            "Inception features, pytorch-fid",
            "" if left_out else f"{rate['pytorch-fid']:.1f} images/cpu-s",
            left_out or f"x{rate['ours'] / rate['pytorch-fid']:.2f}",
        ),
    ]


def _build_pytorch_fid() -> tuple[Callable[[Tensor], tuple[Tensor, ...]] | None, str]:
    """pytorch-fid's network, or why it is left out."""
    try:
        from pytorch_fid.inception import FID_WEIGHTS_URL, InceptionV3
    except ImportError:
        return None, NOT_INSTALLED
    weights = find_hub_weights(FID_WEIGHTS_URL)
    if isinstance(weights, str):
        return None, f"left out: {weights}"
    network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[DIMENSIONS]]).eval()
    return (lambda images: (network(images.float() / 255)[0].flatten(1),)), ""


def measure_second_evaluation(params: Params, folder: Path) -> Row:
    """A folder of 64 px PNGs against another of as many, in the built-in feature space, twice."""
    for name, seed in (("generated", 0), ("reference", 1)):
        (folder / name).mkdir()
        rng = torch.Generator().manual_seed(seed)
        for number in range(FOLDER_IMAGES):
            pixels = torch.randint(0, 256, (64, 64, 3), generator=rng, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")
    config = params.evaluate.model_copy(update={"feature_spaces": (), "device": "cpu"})
    seconds = []
    for _ in range(2):
        started = time.process_time()
        evaluate_folder(
            config,
            reading=params.ingest,
            generated=folder / "generated",
            reference=folder / "reference",
            protocols=("fd-offline",),
            cache=folder / "cache",
        )
        seconds.append(time.process_time() - started)
    return (
        f"{FOLDER_IMAGES} PNGs against {FOLDER_IMAGES}",
        f"{seconds[0]:.1f} cpu-s, then {seconds[1]:.1f}",
        f"x{seconds[0] / seconds[1]:.2f}: the reference is known",
    )


def _torch_fidelity_distance(a: Tensor, b: Tensor) -> float:
    statistics = [fid_features_to_statistics(features) for features in (a, b)]
    return float(fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"])


def _time(compute: Callable[[], T]) -> tuple[float, T]:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        value = compute()
        best = min(best, time.process_time() - started)
    return best, value


if __name__ == "__main__":
    print("| what | value | |\n|---|---|---|")
    for row in measure_evaluation(load_params(Path("params.yaml"))):
        print(f"| {' | '.join(row)} |")
