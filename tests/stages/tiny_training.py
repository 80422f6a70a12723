"""A world small enough to train in seconds: 24 images of 8 px, a CLIP of one random matrix.

As a program it runs the train stage in a folder of :func:`build_world`, for tests that kill it:
``python -m tests.stages.tiny_training FOLDER [JSON OF CHANGED PARAMETERS]``. It also runs under
torchrun.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from clipgan import schemas
from clipgan.artifacts import hash_file
from clipgan.config import Params
from clipgan.data.shards import ShardWriter, build_manifest, save_manifest
from clipgan.models.bundle import load_bundle
from clipgan.run_logger import NULL_LOGGER, RunLogger
from clipgan.stages.features import extract_features
from clipgan.stages.train import train
from clipgan.training.distributed import SINGLE, Processes, join_processes
from clipgan.training.output import TrainingReport
from tests.params import params_with

SIDE_PX = 8
NUM_IMAGES = 24
NUM_VALIDATION = 4
CHANGES: dict[str, Any] = {
    "features.batch_size": 8,
    "features.device": "cpu",
    "train.device": "cpu",
    "train.initial_weights": "none",
    "train.total_images": 96,
    "train.batch_size": 8,
    "train.resolution_px": SIDE_PX,
    "train.lafite.generator.latent_dim": 8,
    "train.lafite.generator.style_dim": 8,
    "train.lafite.generator.text_hidden_dim": 8,
    "train.lafite.generator.mapping_layers": 2,
    "train.lafite.generator.channel_base": 64,
    "train.lafite.generator.channel_max": 8,
    "train.lafite.discriminator.channel_base": 64,
    "train.lafite.discriminator.channel_max": 8,
    "train.lafite.losses.r1_interval": 4,
    "monitoring.log_interval_images": 16,
    "monitoring.sample_interval_images": 48,
    "monitoring.checkpoint_interval_images": 16,
    "monitoring.sample_prompts": ["a dot", "a line"],
    "monitoring.samples_per_prompt": 2,
}


class TinyClip(nn.Module):
    """Random projections of 4 x 4 px pictures and of hashed words."""

    side_px = 4
    embed_dim = 6
    weights = "0" * 64

    def __init__(self) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.register_buffer("matrix", torch.randn(self.embed_dim, 48, generator=draws))

    @property
    def fingerprint(self) -> dict[str, str]:
        return {
            "model": "tiny",
            "weights_sha256": self.weights,
            "activation": "none",
            "preprocessing": "area 4 px",
            "precision": "fp32",
        }

    def encode_images(self, images: Tensor) -> Tensor:
        pixels = F.interpolate(images, size=(self.side_px, self.side_px), mode="area")
        return F.normalize(pixels.flatten(1) @ self.matrix.t(), dim=1)

    def encode_texts(self, captions: Sequence[str]) -> Tensor:
        rows = []
        for caption in captions:
            seed = int.from_bytes(hashlib.sha256(caption.encode()).digest()[:7], "big")
            draws = torch.Generator().manual_seed(seed)
            rows.append(torch.randn(self.embed_dim, generator=draws))
        return F.normalize(torch.stack(rows), dim=1)


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """One thread of torch inside, as many as before after it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def hash_training(folder: Path) -> dict[str, str]:
    """SHA-256 of all that a training writes and interruptions must not change."""
    names = ["generator.safetensors", "discriminator.safetensors", "history.json"]
    pictures = [str(p.relative_to(folder)) for p in sorted(folder.glob("samples/*.png"))]
    return {name: hash_file(folder / name) for name in names + pictures}


def assert_same_training(found: Path, expected: Path) -> None:
    """Weights and losses are equal up to the order of sums."""
    found_bundle, expected_bundle = load_bundle(found), load_bundle(expected)
    for network in ("generator", "discriminator"):
        weights = getattr(found_bundle, network).state_dict()
        for key, value in getattr(expected_bundle, network).state_dict().items():
            tolerance = 1e-3 * float(value.abs().max()) + 1e-6
            assert float((weights[key] - value).abs().max()) < tolerance, key
    histories = [json.loads((folder / "history.json").read_text()) for folder in (found, expected)]
    for found_row, expected_row in zip(*histories, strict=True):
        assert found_row == pytest.approx(expected_row, rel=1e-3, abs=1e-3)


def tiny_params(changes: dict[str, Any] | None = None) -> Params:
    """params.yaml at the size of this world."""
    return params_with({**CHANGES, **(changes or {})})


def choose_clip(params: Params) -> TinyClip:
    """The one that the networks can be built around."""
    from tests.stages.tiny_galip import TinyVitClip

    train = params.train
    reads_maps = train.lafite.discriminator.kind == "projected" or train.warm_up_loss == "drifting"
    return TinyVitClip() if train.family == "galip" or reads_maps else TinyClip()


def build_world(
    root: Path,
    *,
    captioned: int = NUM_IMAGES,
    side_px: int = SIDE_PX,
    clip: TinyClip | None = None,
) -> None:
    """Write ``root/images`` and ``root/features``; the first ``captioned`` images have captions."""
    writer = ShardWriter(root / "images", shard_size_mb=1.0, provenance="{}")
    (root / "images").mkdir(parents=True)
    draws = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        data = io.BytesIO()
        pixels = draws.integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data, format="PNG")
        writer.add(
            {
                schemas.SAMPLE_ID: f"{number:04d}",
                schemas.SOURCE_KEY: f"{number}.png",
                schemas.CONCEPT: f"c{number}",
                schemas.STYLE: "",
                schemas.SPLIT: schemas.VALIDATION if number < NUM_VALIDATION else schemas.TRAIN,
                schemas.CAPTIONS: [f"picture {number}"] if number < captioned else [],
                schemas.WIDTH: side_px,
                schemas.HEIGHT: side_px,
                schemas.SHA256: hashlib.sha256(data.getvalue()).hexdigest(),
                schemas.IMAGE: data.getvalue(),
            }
        )
    save_manifest(root / "images", build_manifest([writer.write()], side_px))
    extract_features(
        tiny_params().features,
        images=root / "images",
        features=root / "features",
        work=root / "work" / "features",
        clip=clip or TinyClip(),  # type: ignore[arg-type]
    )


def run_training(
    root: Path,
    params: Params,
    *,
    output: str = "training",
    clip: TinyClip | None = None,
    logger: RunLogger = NULL_LOGGER,
    initial_folder: Path | None = None,
    processes: Processes = SINGLE,
) -> TrainingReport:
    """The train stage in ``root``."""
    return train(
        params.train,
        monitoring=params.monitoring,
        features_config=params.features,
        images=root / "images",
        features=root / "features",
        output=root / output,
        work=root / "work" / "train",
        clip=clip or choose_clip(params),  # type: ignore[arg-type]
        logger=logger,
        initial_folder=initial_folder,
        processes=processes,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, *changes = sys.argv[1:]
    params = tiny_params(json.loads(changes[0]) if changes else None)
    with join_processes(os.environ, params.train.device) as together:
        run_training(Path(root), params, processes=together)
