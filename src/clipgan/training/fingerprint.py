"""The name of a training: same parameters, data, features, start and code, same name."""

from __future__ import annotations

from pathlib import Path

import clipgan
from clipgan.artifacts import hash_file, hash_json
from clipgan.config import PseudoTextConfig, TrainConfig
from clipgan.models.noise_mapper import hash_mapper

CODE = (
    "stages/train.py",
    "training/*.py",
    "models/*.py",
    "losses/*.py",
    "clip/*.py",
    "pretrained/*.py",
    "data/batches.py",
    "data/decoding.py",
    "data/shards.py",
    "images.py",
    "random_draws.py",
)
"""Parts of the package that decide a training's bits."""


def list_code() -> list[Path]:
    """The source files behind ``CODE``, sorted."""
    root = Path(clipgan.__file__).parent
    return sorted(path for pattern in CODE for path in root.glob(pattern))


def compute_code_fingerprint() -> str:
    """SHA-256 over the sources that decide a training's bits."""
    root = Path(clipgan.__file__).parent
    return hash_json({str(path.relative_to(root)): hash_file(path) for path in list_code()})


def compute_training_fingerprint(
    config: TrainConfig,
    *,
    images_fingerprint: str,
    features_dir: Path,
    initial_folder: Path | None,
) -> str:
    """SHA-256 over everything that decides the bits of a training's result."""
    weights = () if initial_folder is None else sorted(initial_folder.glob("*.safetensors"))
    return hash_json(
        {
            "config": config.model_dump(mode="json"),
            "images": images_fingerprint,
            "features": hash_file(features_dir / "manifest.json"),
            "initial": {path.name: hash_file(path) for path in weights},
            "mapper": _hash_mapper(config.pseudo_text),
            "code": compute_code_fingerprint(),
        }
    )


def _hash_mapper(config: PseudoTextConfig) -> str | None:
    return hash_mapper(Path(config.mapper)) if config.kind == "mapper" else None
