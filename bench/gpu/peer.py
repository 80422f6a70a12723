"""The papers' own generators, from checkouts of their repositories; nothing of them is kept here.

``DIR/Lafite`` is a checkout of drboog/Lafite, ``DIR/GALIP`` one of tobran/GALIP.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from bench.gpu.setups import FULL, RandomClip


def load_peer_generator(
    family: str, peer: Path, count: int, device: torch.device
) -> tuple[Callable[[], Any], str]:
    """A function that draws ``count`` images in float32, and what it draws.

    Raises:
        FileNotFoundError: the checkout is not in ``peer``.
    """
    folder = peer / {"lafite": "Lafite", "galip": "GALIP/code"}[family]
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such checkout")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return (_load_lafite if family == "lafite" else _load_galip)(count, device)


def _load_lafite(count: int, device: torch.device) -> tuple[Callable[[], Any], str]:
    networks: Any = importlib.import_module("training.networks")
    side = FULL.sides_px[-1]
    generator = networks.Generator(
        z_dim=512,
        c_dim=0,
        w_dim=512,
        img_resolution=side,
        img_channels=3,
        mapping_kwargs={"num_layers": 8},
        synthesis_kwargs={"channel_base": 32768, "channel_max": 512},
    ).to(device)
    latents = torch.randn(count, 512, device=device)
    texts = F.normalize(torch.randn(count, 512, device=device), dim=1)
    return lambda: generator(latents, None, fts=texts), f"{side} px"


def _load_galip(count: int, device: torch.device) -> tuple[Callable[[], Any], str]:
    # Its module of odds and ends asks for packages that the network does not need.
    stub = types.ModuleType("lib.utils")
    stub.dummy_context_mgr = contextlib.nullcontext  # type: ignore[attr-defined]
    sys.modules["lib.utils"] = stub
    model: Any = importlib.import_module("models.GALIP")
    clip = RandomClip(FULL, "fp32", device)
    for block in clip.tower.visual.transformer.resblocks:
        block.attn.batch_first = False  # it hands over tokens before samples
    owner = SimpleNamespace(visual=clip.tower.visual)
    generator = model.NetG(64, 100, 512, 224, 3, False, owner).to(device)
    latents = torch.randn(count, 100, device=device)
    texts = torch.randn(count, 512, device=device)
    return lambda: generator(latents, texts, eval=True), "224 px"
