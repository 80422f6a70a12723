"""Cached features of real images, shared by all evaluations of a project.

The name of a file is a hash of everything that decides its content: fingerprint of the image
shards, the chosen images in their order, resolution, network, hash of its weights, resize, a CLIP's
activation, preprocessing and precision, transform, device kind, torch version and the code. A
change of any of these makes another file, so no file is ever stale. The folder may be deleted at
any time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipgan.artifacts import atomic_path, hash_json
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.source_code import hash_sources

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]
_KEY = "key"


class FeatureCache:
    """Named tensors in a folder.

    Args:
        folder: made when something is stored; None: nothing is stored.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def fetch(self, key: Mapping[str, object], compute: Callable[[], Tensors]) -> Tensors:
        """Return the tensors of ``key``; missing or damaged ones are computed and stored."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{hash_json(dict(key))[:32]}.safetensors"
        text = json.dumps(dict(key), sort_keys=True)
        tensors = _load(path, text)
        if tensors is None:
            tensors = compute()
            with atomic_path(path) as temporary:
                contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
                save_file(contiguous, temporary, metadata={_KEY: text})
        return tensors


def describe_features(
    *,
    images_fingerprint: str,
    sample_ids: list[str],
    resolution_px: int,
    space: FeatureSpace,
    transform: str,
    device: torch.device,
) -> dict[str, object]:
    """Build the key of features from everything that decides them."""
    return {
        "images": images_fingerprint,
        "sample_ids": hash_json(sample_ids),
        "count": len(sample_ids),
        "resolution_px": resolution_px,
        "extractor": space.extractor,
        "weights_sha256": space.weights_sha256,
        # A CLIP's fingerprint adds its activation, preprocessing and precision.
        "clip": None if space.clip is None else dict(space.clip),
        "resize": space.resize,
        "transform": transform,
        "device": device.type,
        "torch": torch.__version__,
        "code": hash_sources("clipgan.evaluation.study.real_images"),
    }


def _load(path: Path, key: str) -> Tensors | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as handle:
            if (handle.metadata() or {}).get(_KEY) != key:
                logger.warning("%s belongs to something else: computed again", path)
                return None
            return {name: handle.get_tensor(name).clone() for name in handle.keys()}  # noqa: SIM118
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): computed again", path, error)
        return None
