"""CLIPs that compare images with texts: the training's own, or an independent one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipgan.errors import ClipError
from clipgan.evaluation.spaces.feature_spaces import (
    FeatureSpace,
    TrainingClip,
    describe_clip,
    slug_of,
)

NONE = "none"
EncodeTexts = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class TextImageModel:
    """An evaluation CLIP: the ``space`` of its images, and captions -> unit vectors (N, D).

    ``suffix`` ends the names of its metrics; it is empty for the training CLIP.
    """

    space: FeatureSpace
    encode_texts: EncodeTexts
    suffix: str


def find_evaluation_clip(
    model: str, weights: str, training: TrainingClip, device: torch.device
) -> TextImageModel | str:
    """Load the CLIP of ``evaluate.judge_clip_model``, or say in one line why there is none.

    A CLIP with the training CLIP's own weights is refused, because its scores are not independent.
    """
    if NONE in (model, weights):
        return "evaluate.judge_clip_model is none: name a CLIP that trained nothing here"
    from clipgan.clip.encoder import load_clip

    try:
        clip = load_clip(model, weights, precision="fp32", device=device)
    except ClipError as error:
        return str(error).replace("features.clip_", "evaluate.judge_clip_")
    sha256 = clip.fingerprint["weights_sha256"]
    if sha256 == training.fingerprint.get("weights_sha256"):
        return (
            f"evaluate.judge_clip_model = {model!r} has the training CLIP's own weights "
            f"({sha256[:12]}): it is no independent evaluation CLIP; name another one"
        )
    spec = f"open_clip:{model}:{weights}"
    slug = slug_of(spec)
    space = describe_clip(spec, slug, TrainingClip(clip.encode_images, clip.fingerprint))
    return TextImageModel(space, clip.encode_texts, f"_{slug}")
