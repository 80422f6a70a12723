"""The frozen CLIP of all stages, which encodes images and captions as unit vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.hf_model import HFTextEncoder
from torch import Tensor, nn

from clipgan.clip.builtin import (
    BUILTIN_MODEL,
    BUILTIN_WEIGHTS,
    builtin_folder,
    load_builtin_clip,
)
from clipgan.clip.tokens import tokenize_by_length
from clipgan.clip.weights import LoadedClip, load_open_clip
from clipgan.devices import DTYPES
from clipgan.errors import ClipError
from clipgan.images import to_clip_input

TEXT_BATCH_SIZE = 128


class ClipEncoder(nn.Module):
    """A frozen CLIP with its preprocessing.

    Attributes:
        clip: open_clip's model; its vision tower is ``clip.visual``.
        side_px: side of the square images that the vision tower takes.
        embed_dim: length D of the vectors.
        fingerprint: ``model``, ``weights_sha256``, ``activation``, ``preprocessing`` and
            ``precision``. Features of encoders that differ in one of them must not be mixed.
    """

    def __init__(
        self,
        clip: Any,
        tokenizer: Any,
        *,
        precision: str,
        model: str,
        weights_sha256: str,
    ) -> None:
        super().__init__()
        self.clip, self.tokenizer, self.dtype = clip, tokenizer, DTYPES[precision]
        preprocessing = clip.visual.preprocess_cfg
        self.side_px = _read_side(preprocessing["size"])
        self.mean, self.std = tuple(preprocessing["mean"]), tuple(preprocessing["std"])
        self.embed_dim = _read_embed_dim(clip)
        self.fingerprint = {
            "model": model,
            "weights_sha256": weights_sha256,
            "activation": detect_activation(clip),
            "preprocessing": f"bicubic {self.side_px} px, mean {self.mean}, std {self.std}",
            "precision": precision,
        }
        self.eval().requires_grad_(False)
        self._cast()

    def encode_images(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1], any size -> (N, D) float32, unit norm.

        Differentiable with respect to the images. Images that are not square are squashed.
        """
        pixels = to_clip_input(images.float(), self.side_px, self.mean, self.std)
        features = self.clip.encode_image(pixels.to(self.dtype))
        return F.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def encode_texts(self, captions: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Captions -> (N, D) float32 on the model's device.

        Equal captions have equal rows up to rounding. Captions beyond the model's context are cut.

        Args:
            normalize: to unit norm; False: keep the length that the text tower returns.
        """
        device = next(self.clip.visual.parameters()).device
        features = torch.empty(len(captions), self.embed_dim, device=device)
        for places, tokens in tokenize_by_length(self.tokenizer, captions, TEXT_BATCH_SIZE):
            encoded = self.clip.encode_text(tokens.to(device)).float()
            features[places] = F.normalize(encoded, dim=-1) if normalize else encoded
        return features

    def train(self, mode: bool = True) -> ClipEncoder:
        """Stay in evaluation mode, because the encoder is frozen."""
        del mode
        super().train(False)
        return self

    def _cast(self) -> None:
        # Frozen weights are cast once; autocast would cast them again at every call.
        self.clip.visual.to(self.dtype)
        text = getattr(self.clip, "text", None)
        if self.dtype != torch.float32 and not isinstance(text, HFTextEncoder):
            # A Hugging Face tower stays float32, because it is small and encodes captions once.
            self.clip.to(self.dtype)


def load_clip(model: str, weights: str, *, precision: str, device: torch.device) -> ClipEncoder:
    """Load a CLIP by its names in params.yaml.

    Args:
        model: ``clipgan-vit-h32-96`` or an open_clip model name.
        weights: ``built-in``; for the built-in model also a folder of `clipgan pretrain-clip`; for
            the others an open_clip pretrained tag or a local file (.pt, .bin, .safetensors, and
            OpenAI's TorchScript files).
        precision: ``fp32`` or ``bf16``.

    Raises:
        ClipError: the model or tag is unknown, a file is missing, damaged or of another model, or
            a tag's weights cannot be downloaded.
    """
    if model == BUILTIN_MODEL:
        loaded = _load_builtin(weights)
    elif weights == BUILTIN_WEIGHTS:
        raise ClipError(
            f"features.clip_weights = {weights!r} fits {BUILTIN_MODEL} only; give {model!r} an "
            "open_clip pretrained tag or a weights file"
        )
    else:
        loaded = load_open_clip(model, weights)
    encoder = ClipEncoder(
        loaded.clip,
        loaded.tokenizer,
        precision=precision,
        model=model,
        weights_sha256=loaded.weights_sha256,
    )
    return encoder.to(device)


def detect_activation(clip: Any) -> str:
    """Name the vision tower's activation: ``QuickGELU`` for OpenAI's weights, else ``GELU``.

    With the wrong one, the same weights make different features without any error.
    """
    kinds = {
        type(module).__name__
        for module in clip.visual.modules()
        if type(module).__name__ in {"QuickGELU", "GELU", "GELUTanh", "ReLU", "ReLU6", "SiLU"}
    }
    return "+".join(sorted(kinds))


def _load_builtin(weights: str) -> LoadedClip:
    import open_clip

    folder = builtin_folder() if weights == BUILTIN_WEIGHTS else Path(weights)
    if folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise ClipError(
            f"features.clip_weights = {weights!r}: no such folder; {BUILTIN_MODEL} takes "
            f"{BUILTIN_WEIGHTS!r} or a folder made by `clipgan pretrain-clip`"
        )
    clip, config = load_builtin_clip(folder)
    return LoadedClip(clip, open_clip.get_tokenizer(BUILTIN_MODEL), config.weights_sha256)


def _read_side(size: Any) -> int:
    if isinstance(size, int):
        return size
    height, width = size
    if height != width:
        raise ClipError(f"the vision tower wants {height} x {width} px; only squares are supported")
    return int(height)


def _read_embed_dim(clip: Any) -> int:
    visual = clip.visual
    if hasattr(visual, "output_dim"):
        return int(visual.output_dim)
    with torch.no_grad():
        side = _read_side(visual.preprocess_cfg["size"])
        return int(clip.encode_image(torch.zeros(1, 3, side, side)).shape[1])
