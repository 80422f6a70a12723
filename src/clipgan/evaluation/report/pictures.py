"""Pictures of an evaluation for its report: samples, worst captions and nearest training images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipgan.artifacts import atomic_path
from clipgan.errors import EvaluationError

PICTURES_FILE = "pictures.safetensors"
_WORDS = "words"


@dataclass(frozen=True)
class WorstCaption:
    """A caption with a low CLIP score and its (3, R, R) uint8 image."""

    caption: str
    score: float
    image: Tensor


@dataclass(frozen=True)
class NearestPair:
    """A generated image and the training image nearest to it, (3, R, R) uint8 each."""

    condition: str
    distance: float
    is_memorised: bool
    generated: Tensor
    training: Tensor
    sample_id: str


@dataclass(frozen=True)
class Pictures:
    """Pictures of every model.

    Attributes:
        prompts: one for each row of the grids.
        grids: model -> (prompts, columns, 3, R, R) uint8; a column has the same latent throughout.
        worst: model -> captions with the lowest scores, the lowest first.
        nearest: model -> images closest to a training image, the closest first.
    """

    prompts: Sequence[str] = ()
    grids: Mapping[str, Tensor] = field(default_factory=dict)
    worst: Mapping[str, Sequence[WorstCaption]] = field(default_factory=dict)
    nearest: Mapping[str, Sequence[NearestPair]] = field(default_factory=dict)


def save_pictures(folder: Path, pictures: Pictures) -> None:
    """Write pictures.safetensors into ``folder`` atomically: images as tensors, words as JSON."""
    tensors: dict[str, Tensor] = {}
    words: dict[str, Any] = {"prompts": list(pictures.prompts), "worst": {}, "nearest": {}}
    for model, grid in pictures.grids.items():
        tensors[f"grid/{model}"] = grid
    for model, worst in pictures.worst.items():
        words["worst"][model] = [(one.caption, one.score) for one in worst]
        if worst:
            tensors[f"worst/{model}"] = torch.stack([one.image for one in worst])
    for model, pairs in pictures.nearest.items():
        words["nearest"][model] = [
            (pair.condition, pair.distance, pair.is_memorised, pair.sample_id) for pair in pairs
        ]
        for side in ("generated", "training"):
            if pairs:
                tensors[f"{side}/{model}"] = torch.stack([getattr(pair, side) for pair in pairs])
    with atomic_path(folder / PICTURES_FILE) as temporary:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={_WORDS: json.dumps(words)})


def load_pictures(folder: Path) -> Pictures:
    """Read pictures.safetensors of ``folder`` back.

    Raises:
        EvaluationError: the file is missing or damaged.
    """
    path = folder / PICTURES_FILE
    try:
        with safe_open(path, framework="pt") as handle:
            words = json.loads(handle.metadata()[_WORDS])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file; run the evaluate stage") from None
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise EvaluationError(f"{path}: damaged ({error}); run the evaluate stage again") from None
    return Pictures(
        words["prompts"],
        {
            name.removeprefix("grid/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("grid/")
        },
        worst={
            model: [
                WorstCaption(caption, score, image)
                for (caption, score), image in zip(
                    worst, tensors.get(f"worst/{model}", ()), strict=True
                )
            ]
            for model, worst in words["worst"].items()
        },
        nearest={
            model: [
                NearestPair(condition, distance, memorised, generated, training, sample_id)
                for (condition, distance, memorised, sample_id), generated, training in zip(
                    pairs,
                    tensors.get(f"generated/{model}", ()),
                    tensors.get(f"training/{model}", ()),
                    strict=True,
                )
            ]
            for model, pairs in words["nearest"].items()
        },
    )
