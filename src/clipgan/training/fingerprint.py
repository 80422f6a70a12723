"""The fingerprint of a training: equal for equal parameters, data, features, start and code.

Only parameters that the training reads count. Weights count by their contents, not by the keys that
name them. Loads no torch, because ``clipgan status`` uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipgan.artifacts import hash_file, hash_json
from clipgan.config import TrainConfig
from clipgan.config.effective import select_training
from clipgan.families.registry import find_family
from clipgan.source_code import hash_sources

_DESCRIPTIONS = ("bundle.json", "checkpoint.json")


def describe_training(config: TrainConfig, *, start: Any, mapper: str) -> dict[str, Any]:
    """What of section ``train`` decides a training: DVC compares it, and fingerprints hold it.

    Args:
        start: identity of the weights behind ``initial_weights``; None: there are none.
        mapper: identity of the noise mapper behind ``pseudo_text.mapper``, where that is read.
    """
    settings = select_training(config)
    if "mapper" in settings["pseudo_text"]:
        settings["pseudo_text"] |= {"mapper": mapper}
    return settings | {"initial_weights": start}


def list_weights(folder: Path) -> list[Path]:
    """The files of a bundle, a checkpoint or a mapper that a training takes from it, sorted."""
    descriptions = (folder / name for name in _DESCRIPTIONS)
    return sorted([*folder.glob("*.safetensors"), *(p for p in descriptions if p.is_file())])


def compute_training_fingerprint(
    config: TrainConfig,
    *,
    images_fingerprint: str,
    features_dir: Path,
    initial_folder: Path | None,
) -> str:
    """SHA-256 over everything that decides the bits of a training's result.

    Raises:
        CheckpointError: there is no noise mapper where one is named.
    """
    start = None
    if initial_folder is not None:
        start = {path.name: hash_file(path) for path in list_weights(initial_folder)}
    return hash_json(
        {
            "settings": describe_training(config, start=start, mapper=_identify_mapper(config)),
            "images": images_fingerprint,
            "features": hash_file(features_dir / "manifest.json"),
            "code": hash_sources(
                "clipgan.stages.train", f"{find_family(config.family).package}.training"
            ),
        }
    )


def _identify_mapper(config: TrainConfig) -> str:
    if config.pseudo_text.kind != "mapper":
        return ""
    from clipgan.models.noise_mapper import hash_mapper

    return hash_mapper(Path(config.pseudo_text.mapper))
