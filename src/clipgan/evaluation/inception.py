"""Inception FID through torch-fidelity, where its weights lie on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.metric_fid import KEY_METRIC_FID

from clipgan.artifacts import hash_file
from clipgan.errors import EvaluationError

INCEPTION_EXTRACTOR = "inception-v3-compat"
INCEPTION_LAYER = "2048"
INCEPTION_RESIZE = "TensorFlow 1.x bilinear, to 299 px"
WEIGHTS_NAME = URL_INCEPTION_V3.rpartition("/")[2]


@dataclass(frozen=True)
class InceptionWeights:
    """TensorFlow's 2015 weights as torch-fidelity's file."""

    path: Path
    sha256: str


class TensorImages(Dataset[Tensor]):
    """(N, 3, H, W) uint8 as the data set torch-fidelity reads."""

    def __init__(self, images_uint8: Tensor) -> None:
        self.images_uint8 = images_uint8

    def __len__(self) -> int:
        return len(self.images_uint8)

    def __getitem__(self, index: int) -> Tensor:
        return self.images_uint8[index]


def find_inception_weights() -> InceptionWeights | str:
    """The weights in torch hub's cache, or one line that says why there are none and how to get
    them. Never downloads.

    Raises:
        EvaluationError: the file is there but damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
    if not path.is_file():
        return f"Inception weights are not at {path}: put {URL_INCEPTION_V3} there"
    sha256 = hash_file(path)
    expected = path.stem.rpartition("-")[2]
    if not sha256.startswith(expected):
        raise EvaluationError(
            f"{path}: damaged (sha256 begins with {sha256[:8]}, not {expected}): remove it and put "
            f"{URL_INCEPTION_V3} there, or set evaluate.inception to off"
        )
    return InceptionWeights(path, sha256)


def compute_inception_fid(
    generated_uint8: Tensor,
    reference_uint8: Tensor,
    weights: Path,
    *,
    batch_size: int,
    device: torch.device,
) -> float:
    """FID (Heusel et al. 2017) of two image sets (N, 3, H, W) uint8, by torch-fidelity."""
    metrics = torch_fidelity.calculate_metrics(
        input1=TensorImages(generated_uint8),
        input2=TensorImages(reference_uint8),
        fid=True,
        feature_extractor=INCEPTION_EXTRACTOR,
        feature_layer_fid=INCEPTION_LAYER,
        feature_extractor_weights_path=str(weights),
        batch_size=batch_size,
        cuda=device.type == "cuda",
        cache=False,
        save_cpu_ram=True,  # no worker processes: the images are in memory
        verbose=False,
    )
    return float(metrics[KEY_METRIC_FID])
