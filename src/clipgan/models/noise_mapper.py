"""The trainable noise mapper of LAFITE-NN (arXiv 2111.13792, "trainable perturbations").

::

    h~ = f + r1(f) + eps * exp(r2(f)),    h' = h~ / ||h~||

with eps standard normal and two small networks r1 and r2. The noise that turns an image feature
into a pseudo text feature is learned from pairs, instead of being the same in all directions. A
trained mapper is a folder::

    mapper.safetensors    weights, fp32
    mapper.json           format, widths, the CLIP it belongs to, recipe, figures, SHA-256
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipgan.artifacts import atomic_path, hash_file, write_json
from clipgan.errors import CheckpointError
from clipgan.models.stored_weights import FORMAT_VERSION, convert_weights, read_description

WEIGHTS_FILE = "mapper.safetensors"
INFO_FILE = "mapper.json"
LEAKY_SLOPE = 0.01
_REMEDY = "run `clipgan pretrain-mapper` again"


class NoiseMapper(nn.Module):
    """r1 (``shift``) and r2 (``log_deviation``): each has four linear layers with leaky ReLU
    between.

    Args:
        dim: width of the CLIP features.
        hidden_dim: width of the three hidden layers; 1024 in the paper's code.
    """

    def __init__(self, *, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.dim, self.hidden_dim = dim, hidden_dim
        self.shift = _build_network(dim, hidden_dim)
        self.log_deviation = _build_network(dim, hidden_dim)

    def draw_offsets(self, image_features: Tensor, noise: Tensor) -> Tensor:
        """Compute ``r1(f) + noise * exp(r2(f))``, (N, D) float32, of (N, D) features and noise."""
        shift: Tensor = self.shift(image_features)
        log_deviation: Tensor = self.log_deviation(image_features)
        return shift + noise * log_deviation.exp()

    def forward(self, image_features: Tensor, noise: Tensor) -> Tensor:
        """(N, D) unit-norm image features and (N, D) normal noise -> pseudo text, unit norm."""
        return F.normalize(image_features + self.draw_offsets(image_features, noise), dim=1)


def save_mapper(
    folder: Path,
    mapper: NoiseMapper,
    *,
    clip: Mapping[str, str],
    recipe: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Write a mapper into ``folder`` (made if missing); ``mapper.json`` comes last.

    Args:
        clip: fingerprint of the CLIP whose features it was trained on.
        recipe, metrics: how it was made and its figures; JSON values.

    Raises:
        CheckpointError: a weight is not finite; nothing is written.
    """
    tensors = convert_weights("mapper", mapper, "fp32")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INFO_FILE).unlink(missing_ok=True)
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary)
    write_json(
        folder / INFO_FILE,
        {
            "format_version": FORMAT_VERSION,
            "dim": mapper.dim,
            "hidden_dim": mapper.hidden_dim,
            "clip": dict(clip),
            "sha256": hash_file(folder / WEIGHTS_FILE),
            "recipe": dict(recipe),
            "metrics": dict(metrics),
        },
    )


def load_mapper(folder: Path, clip: Mapping[str, str]) -> NoiseMapper:
    """Load a trained mapper on the CPU, frozen and in evaluation mode.

    Args:
        clip: fingerprint of the CLIP whose features it will take; the precision may differ.

    Raises:
        CheckpointError: the folder is missing or damaged, or was made for another CLIP.
    """
    info = _load_info(folder)
    _check_clip(folder, info["clip"], clip)
    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); {_REMEDY}") from None
    if hash_file(path) != info["sha256"]:
        raise CheckpointError(f"{path}: not the file that {INFO_FILE} names; {_REMEDY}")
    with torch.random.fork_rng(devices=[]):
        mapper = NoiseMapper(dim=info["dim"], hidden_dim=info["hidden_dim"])
    try:
        mapper.load_state_dict(tensors)
    except RuntimeError:
        raise CheckpointError(
            f"{path}: its shapes are not the dim = {info['dim']}, hidden_dim = "
            f"{info['hidden_dim']} of {INFO_FILE}; {_REMEDY}"
        ) from None
    return mapper.eval().requires_grad_(False)


def _build_network(dim: int, hidden_dim: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([dim, hidden_dim, hidden_dim, hidden_dim]):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(LEAKY_SLOPE)]
    return nn.Sequential(*layers, nn.Linear(hidden_dim, dim))


def hash_mapper(folder: Path) -> str:
    """Read the SHA-256 of a mapper's weights from ``mapper.json``; the weights are not read.

    Raises:
        CheckpointError: the folder is missing or its description damaged.
    """
    return str(_load_info(folder)["sha256"])


def _load_info(folder: Path) -> dict[str, Any]:
    return read_description(
        folder / INFO_FILE,
        {"dim": int, "hidden_dim": int, "clip": dict, "sha256": str},
        missing=f"no complete noise mapper; {_REMEDY} or name another",
        remedy=_REMEDY,
    )


def _check_clip(folder: Path, made: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for key in sorted({*made, *wanted} - {"precision"}):
        if made.get(key) != wanted.get(key):
            raise CheckpointError(
                f"{folder}: the noise mapper was trained with CLIP {key} = {made.get(key)}, here "
                f"it is {wanted.get(key)}: {_REMEDY}"
            )
