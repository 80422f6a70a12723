"""CLIPs that judge images by their texts: the training's own, or one that trained nothing here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipgan.errors import ClipError
from clipgan.evaluation.spaces.feature_spaces import (
    FeatureSpace,
    TrainingClip,
    build_training_clip,
    describe_clip,
    slug_of,
)

NONE = "none"
EncodeTexts = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class TextImageModel:
    """A CLIP that judges: its images' ``space``, and captions -> unit vectors (N, D).

    ``suffix`` ends its metrics' names: empty for the training CLIP.
    """

    space: FeatureSpace
    encode_texts: EncodeTexts
    suffix: str


def build_training_model(clip: TrainingClip, encode_texts: EncodeTexts) -> TextImageModel:
    """The CLIP of the training as a judge that is not independent."""
    return TextImageModel(build_training_clip(clip), encode_texts, "")


def find_evaluation_clip(
    model: str, weights: str, training: TrainingClip, device: torch.device
) -> TextImageModel | str:
    """The CLIP of ``evaluate.judge_clip_model``, or one line that says why there is none.

    One with the training CLIP's own weights is refused: it would judge itself under another name.
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
            f"({sha256[:12]}): it is no independent judge; name another CLIP"
        )
    spec = f"open_clip:{model}:{weights}"
    slug = slug_of(spec)
    space = describe_clip(spec, slug, TrainingClip(clip.encode_images, clip.fingerprint))
    return TextImageModel(space, clip.encode_texts, f"_{slug}")
