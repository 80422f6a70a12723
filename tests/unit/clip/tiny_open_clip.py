"""A tiny open_clip model under a name of its own, and its weights in the formats people have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

NAME = "clipgan-test-vit"
SIDE_PX = 32
OPENAI_BUFFERS = {"input_resolution": SIDE_PX, "context_length": 77, "vocab_size": 49408}


def register(folder: Path) -> None:
    """Make open_clip know :data:`NAME`: two layers, width 64."""
    tree = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": SIDE_PX, "patch_size": 8, "width": 64, "layers": 2},
        "text_cfg": {"width": 64, "heads": 1, "layers": 2},
    }
    path = folder / f"{NAME}.json"
    path.write_text(json.dumps(tree))
    open_clip.add_model_config(path)


def build(*, quick_gelu: bool, seed: int = 0) -> Any:
    """The model with random weights that make every layer count."""
    torch.manual_seed(seed)
    model = open_clip.create_model(NAME, quick_gelu=quick_gelu)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)  # larger than at the start of training: activations matter
    return model.eval()


def openai_state(model: Any) -> dict[str, Tensor]:
    """Half precision, and the three extra entries of OpenAI's files."""
    state = {key: value.half() for key, value in model.state_dict().items()}
    return state | {key: torch.tensor(value) for key, value in OPENAI_BUFFERS.items()}


class Archive(nn.Module):
    """What OpenAI's TorchScript archives hold under the same names; only the tower is traced."""

    visual: nn.Module

    def __init__(self, model: Any) -> None:
        super().__init__()
        for name in ("visual", "transformer", "token_embedding", "ln_final"):
            setattr(self, name, getattr(model, name))
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, getattr(model, name))
        for name, value in OPENAI_BUFFERS.items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.visual(pixels)
        return features


def save_torchscript(model: Any, path: Path) -> None:
    """Write ``model`` as OpenAI's ``.pt`` files are written."""
    traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
        Archive(model), torch.zeros(1, 3, SIDE_PX, SIDE_PX)
    )
    traced.save(str(path))
