from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from clipgan.errors import EvaluationError
from clipgan.evaluation.inception import (
    WEIGHTS_NAME,
    InceptionWeights,
    compute_inception_fid,
    find_inception_weights,
)


@pytest.fixture
def weights_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path: Path = tmp_path / "hub" / "checkpoints" / WEIGHTS_NAME
    path.parent.mkdir(parents=True)
    return path


def test_absent_weights_give_one_line_with_place_and_source(weights_path: Path) -> None:
    reason = find_inception_weights()
    assert isinstance(reason, str)
    assert str(weights_path) in reason
    assert "https://" in reason
    assert "\n" not in reason


def test_damaged_weights_are_refused_with_the_fix(weights_path: Path) -> None:
    weights_path.write_bytes(b"cut off")
    with pytest.raises(EvaluationError, match=r"damaged.*not 6726825d.*inception to off"):
        find_inception_weights()


def test_weights_with_the_named_hash_are_found(
    weights_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_path.write_bytes(b"whole")
    monkeypatch.setattr("clipgan.evaluation.inception.hash_file", lambda _: "6726825d" + "0" * 56)
    assert find_inception_weights() == InceptionWeights(weights_path, "6726825d" + "0" * 56)


@pytest.mark.slow
def test_fid_comes_out_of_a_weights_file_without_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random weights in the real file format: the way through torch-fidelity is what is tested.
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(torch, "load", lambda *_, **__: {})
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path="none"
        )
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    device = torch.device("cpu")
    same, other = (
        compute_inception_fid(
            images, reference, tmp_path / "weights.pth", batch_size=2, device=device
        )
        for reference in (images, images // 8)
    )
    assert same == pytest.approx(0.0, abs=1e-3)
    assert other > same
