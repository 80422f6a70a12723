"""Decoded data small enough to carry to a machine without Parquet: images, features, CLIP's eye.

``prepare`` runs where the project is installed and writes a folder; everything else here reads it
with NumPy, Pillow and safetensors alone.
"""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from clipgan.artifacts import write_json
from clipgan.clip.builtin import IMAGE_TRUNK_PREFIX, builtin_folder
from clipgan.clip.encoder import ClipEncoder
from clipgan.clip.hybrid import TRUNK_VARIANT, attach_stem
from clipgan.config import Params
from clipgan.data.batches import TrainingData
from clipgan.images import CLIP_MEAN, CLIP_STD
from clipgan.pretrained.efficientnet_lite import load_efficientnet_lite, save_compact_weights

IMAGES, FEATURES, TRUNK, INFO = "images.npz", "features.npz", "trunk.safetensors", "info.json"
MIB = 2**20


def prepare(
    params: Params, *, images: Path, features: Path, output: Path, num_images: int
) -> float:
    """Write the first ``num_images`` training images, their features, the prompts' and the trunk.

    Images are lossless WebP, half the size of PNG. Returns the folder's size in MiB.
    """
    from clipgan.clip.encoder import load_clip
    from clipgan.clip.feature_store import load_features
    from clipgan.data.shards import load_manifest
    from clipgan.training.conditions import build_conditions
    from clipgan.training.inputs import load_training_data, select_training_images

    device = torch.device("cpu")
    config = params.features
    clip = load_clip(config.clip_model, config.clip_weights, precision="fp32", device=device)
    fingerprint = {**clip.fingerprint, "precision": config.precision}
    table = load_features(
        features,
        images_fingerprint=load_manifest(images).fingerprint,
        clip_fingerprint=fingerprint,
    )
    selected = select_training_images(images, table)[:num_images]
    conditions = build_conditions(params.train, table, selected, clip, device)
    output.mkdir(parents=True, exist_ok=True)
    data = load_training_data(params.train, images, conditions, output / ".decoded")
    _save_images(output / IMAGES, data.images_uint8)
    prompts = list(params.monitoring.sample_prompts)
    np.savez(
        output / FEATURES,
        image_features=data.image_features,
        text_features=data.text_features,
        caption_offsets=data.caption_offsets,
        prompt_features=clip.encode_texts(prompts).numpy(),
    )
    save_compact_weights(TRUNK_VARIANT, output / TRUNK)
    write_json(output / INFO, {"prompts": prompts, "clip": fingerprint})
    shutil.rmtree(output / ".decoded")
    return sum(path.stat().st_size for path in output.iterdir() if path.is_file()) / MIB


def _save_images(path: Path, images: NDArray[np.uint8]) -> None:
    encoded = []
    for image in images:
        data = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(data, "WEBP", lossless=True, quality=100)
        encoded.append(data.getvalue())
    offsets = np.cumsum([0, *map(len, encoded)])
    np.savez(path, data=np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets=offsets)


@dataclass(frozen=True)
class Prepared:
    """What a training reads; ``prompt_features`` (P, D) belong to ``prompts``."""

    data: TrainingData
    prompts: tuple[str, ...]
    prompt_features: Tensor
    clip: dict[str, str]


def load_prepared(folder: Path) -> Prepared:
    """Read a folder of :func:`prepare`, all images decoded in memory."""
    info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    stored, features = np.load(folder / IMAGES), np.load(folder / FEATURES)
    bytes_, offsets = stored["data"].tobytes(), stored["offsets"]
    pictures = [
        np.asarray(Image.open(io.BytesIO(bytes_[start:end])).convert("RGB")).transpose(2, 0, 1)
        for start, end in pairwise(offsets)
    ]
    data = TrainingData(
        images_uint8=np.stack(pictures),
        image_features=features["image_features"],
        text_features=features["text_features"],
        caption_offsets=features["caption_offsets"],
    )
    prompts = torch.from_numpy(features["prompt_features"])
    return Prepared(data, tuple(info["prompts"]), prompts, info["clip"])


class _Eye(nn.Module):
    """A CLIP without words: captions come as features."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    def encode_image(self, pixels: Tensor) -> Tensor:
        """What :class:`ClipEncoder` asks of a CLIP."""
        embeddings: Tensor = self.visual(pixels)
        return embeddings


def load_carried_clip(folder: Path, precision: str, device: torch.device) -> ClipEncoder:
    """The built-in CLIP's image side, from the repository and the carried trunk."""
    from open_clip.transformer import VisionTransformer

    config = json.loads((builtin_folder() / "config.json").read_text(encoding="utf-8"))
    vision, side = config["model_cfg"]["vision_cfg"], config["preprocess_cfg"]["size"]
    visual: Any = VisionTransformer(
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // vision["head_width"],
        mlp_ratio=vision.get("mlp_ratio", 4.0),
        output_dim=config["model_cfg"]["embed_dim"],
        pool_type=vision.get("pool_type", "tok"),
    )
    attach_stem(visual, load_efficientnet_lite(TRUNK_VARIANT, weights_file=folder / TRUNK))
    weights = load_file(builtin_folder() / "model.safetensors")
    prefix = "visual."
    loaded = visual.load_state_dict(
        {
            name.removeprefix(prefix): value.float()
            for name, value in weights.items()
            if name.startswith(prefix)
        },
        strict=False,
    )
    trunk = IMAGE_TRUNK_PREFIX.removeprefix(prefix)
    lacking = [name for name in loaded.missing_keys if not name.startswith(trunk)]
    if lacking or loaded.unexpected_keys:
        raise RuntimeError(f"the CLIP's weights do not fit: {lacking} {loaded.unexpected_keys}")
    visual.preprocess_cfg = {"size": side, "mean": CLIP_MEAN, "std": CLIP_STD}
    return ClipEncoder(
        _Eye(visual), None, precision=precision, model=config["name"], weights_sha256="carried"
    ).to(device)
