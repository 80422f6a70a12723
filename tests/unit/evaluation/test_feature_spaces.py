from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from clipgan.artifacts import hash_file
from clipgan.errors import EvaluationError
from clipgan.evaluation.spaces.feature_spaces import (
    FeatureSpace,
    TrainingClip,
    check_names_differ,
    find_space,
    name_metric_of,
    resize_as_clean_fid,
)
from clipgan.evaluation.spaces.text_image import find_evaluation_clip
from tests.unit.clip import tiny_open_clip

CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (5, 3, 24, 24), generator=torch.Generator().manual_seed(0)).to(
    torch.uint8
)


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tiny_open_clip.register(folder)
    path = folder / "weights.safetensors"
    save_file(tiny_open_clip.build(quick_gelu=False).state_dict(), path)
    return path


def space_of(spec: str) -> FeatureSpace:
    space = find_space(spec, CPU, None)
    assert isinstance(space, FeatureSpace), space
    return space


def test_any_open_clip_model_is_a_space(clip_file: Path) -> None:
    space = space_of(f"open_clip:{tiny_open_clip.NAME}:{clip_file}")
    features, logits = space.encode(IMAGES)
    assert features.shape == (5, 16)
    assert logits is None
    assert space.is_clip
    assert space.weights_sha256 == hash_file(clip_file)
    assert space.name_metric("fd") == "fd_clip_clipgan_test_vit_weights"
    assert space.name_metric("cmmd") == "cmmd_clip_clipgan_test_vit_weights"


def test_any_timm_network_is_a_space(tmp_path: Path) -> None:
    network = timm.create_model("resnet18", pretrained=False).eval()
    save_file(network.state_dict(), tmp_path / "resnet18.safetensors")
    space = space_of(f"timm:resnet18:{tmp_path / 'resnet18.safetensors'}")
    with torch.inference_mode():
        features, _ = space.encode(IMAGES)
    assert features.shape == (5, 512)
    assert space.name_metric("kid") == "kid_resnet18_resnet18"
    assert "224 px" in space.resize
    (tmp_path / "other.safetensors").write_bytes(b"x")
    with pytest.raises(EvaluationError, match="no weights of timm resnet18"):
        find_space(f"timm:resnet18:{tmp_path / 'other.safetensors'}", CPU, None)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("inception-tf", "weights are not at"),
        ("inception-torchvision", "inception_v3_google"),
        ("timm:vit_small_patch14_dinov2.lvd142m", "timm:vit_small_patch14_dinov2.lvd142m:FILE"),
        ("timm:resnet18:nowhere.bin", "are not nowhere.bin"),
        ("open_clip:ViT-B-32:nowhere.pt", "neither a file nor a pretrained tag"),
        ("training-clip", "there is no training CLIP"),
    ],
)
def test_what_is_not_here_is_one_line(
    spec: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = find_space(spec, CPU, None)
    assert isinstance(found, str)
    assert reason in found
    assert "\n" not in found


@pytest.mark.parametrize("spec", ["inception", "open_clip:ViT-B-32", "timm:", "timm:resnet1818"])
def test_an_unknown_space_is_a_mistake(spec: str) -> None:
    with pytest.raises(EvaluationError, match=f"feature space '{spec}'"):
        find_space(spec, CPU, None)


def test_names_of_absent_spaces_are_those_they_would_have() -> None:
    assert name_metric_of("inception-tf") == "fid"
    assert name_metric_of("inception-clean") == "fid_clean"
    assert name_metric_of("efficientnet-lite0") == space_of("efficientnet-lite0").name_metric("fd")
    assert name_metric_of("timm:resnet18:x.bin") == "fd_resnet18_x"
    assert name_metric_of("open_clip:ViT-B-32:openai") == "fd_clip_vit_b_32_openai"
    assert name_metric_of("open_clip:ViT-B-32:/weights/own.pt") == "fd_clip_vit_b_32_own"
    assert name_metric_of("timm:resnet18") == "fd_resnet18"
    assert name_metric_of("timm:resnet18:/weights/own.bin") == "fd_resnet18_own"


def test_two_spaces_of_one_metric_name_are_refused() -> None:
    check_names_differ(["open_clip:RN50:openai", "open_clip:RN50:cc12m", "timm:resnet18"])
    with pytest.raises(EvaluationError, match="would both be called fd_clip_rn50_own"):
        check_names_differ(["open_clip:RN50:a/own.pt", "open_clip:RN50:b/own.pt"])


def test_the_training_clip_is_never_the_independent_one(clip_file: Path) -> None:
    def encode(images: Tensor) -> Tensor:
        return normalize(images.flatten(1), dim=1)

    own = TrainingClip(encode, {"weights_sha256": hash_file(clip_file)})
    other = TrainingClip(encode, {"weights_sha256": "0" * 64})
    refused = find_evaluation_clip(tiny_open_clip.NAME, str(clip_file), own, CPU)
    assert isinstance(refused, str)
    assert "no independent evaluation CLIP" in refused
    other_clip = find_evaluation_clip(tiny_open_clip.NAME, str(clip_file), other, CPU)
    assert not isinstance(other_clip, str)
    assert other_clip.suffix == "_clip_clipgan_test_vit_weights"
    assert other_clip.encode_texts(["a cat"]).shape == (1, 16)
    absent = find_evaluation_clip("ViT-B-32", "nowhere.pt", other, CPU)
    assert isinstance(absent, str)
    assert "evaluate.judge_clip_weights" in absent


def test_clean_fids_resize_is_smooth_where_it_reduces() -> None:
    """A one-pixel checkerboard has no detail left at 299 px; without antialias it would alias."""
    board = ((torch.arange(900)[:, None] + torch.arange(900)[None]) % 2 * 255).to(torch.uint8)
    small = resize_as_clean_fid(board.expand(1, 3, -1, -1).contiguous())
    assert small.shape == (1, 3, 299, 299)
    assert float(small[..., 5:-5, 5:-5].std()) < 2.0
    assert float(small.mean()) == pytest.approx(127.5, abs=0.5)
