"""The name of a training: same parameters, data, features, start and code, same name."""

from __future__ import annotations

from pathlib import Path

from clipgan.artifacts import hash_file, hash_json
from clipgan.config import PseudoTextConfig, TrainConfig
from clipgan.models.noise_mapper import hash_mapper
from clipgan.source_code import hash_sources


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
            "code": hash_sources("clipgan.stages.train"),
        }
    )


def _hash_mapper(config: PseudoTextConfig) -> str | None:
    return hash_mapper(Path(config.mapper)) if config.kind == "mapper" else None
