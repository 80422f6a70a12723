"""Inception weights files in their real formats, with random numbers that do not collapse."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def randomise(network: nn.Module) -> None:
    """Batch-norm statistics that fold into something, activations that stay of order one."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator)
            module.weight.data *= (2 / fan_in) ** 0.5
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            size = module.running_mean.shape
            module.running_mean.copy_(0.1 * torch.randn(size, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(size, generator=generator))
            module.weight.data = 0.8 + 0.4 * torch.rand(size, generator=generator)


def save_inception(path: Path) -> Path:
    """A file as torch-fidelity downloads it."""
    network: Any
    with (
        patch.object(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None),
        patch.object(torch, "load", lambda *_, **__: {}),
    ):
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path="none"
        )
    randomise(network)
    torch.save(network.state_dict(), path)
    return path


def save_torchvision_inception(path: Path) -> Path:
    """A file as torchvision downloads it."""
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, init_weights=False)
    randomise(network)
    torch.save(network.state_dict(), path)
    return path
