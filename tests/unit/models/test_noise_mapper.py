"""The noise mapper: its equation, and a folder that is whole or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clipgan.errors import CheckpointError
from clipgan.models.noise_mapper import NoiseMapper, hash_mapper, load_mapper, save_mapper

CLIP = {"model": "small", "weights_sha256": "abc", "precision": "fp32"}


@pytest.fixture
def mapper() -> NoiseMapper:
    torch.manual_seed(0)
    return NoiseMapper(dim=6, hidden_dim=8)


@pytest.fixture
def saved(mapper: NoiseMapper, tmp_path: Path) -> Path:
    save_mapper(tmp_path / "m", mapper, clip=CLIP, recipe={"steps": 1}, metrics={})
    return tmp_path / "m"


def test_without_networks_it_is_unit_gaussian_noise(mapper: NoiseMapper) -> None:
    """r1 = r2 = 0 leaves h' = u(f + eps)."""
    with torch.no_grad():
        for parameter in mapper.parameters():
            parameter.zero_()
    features, noise = F.normalize(torch.randn(5, 6), dim=1), torch.randn(5, 6)
    assert torch.equal(mapper(features, noise), F.normalize(features + noise, dim=1))


def test_a_saved_mapper_comes_back_frozen(saved: Path, mapper: NoiseMapper) -> None:
    state = torch.get_rng_state()
    loaded = load_mapper(saved, {**CLIP, "precision": "bf16"})
    assert torch.equal(torch.get_rng_state(), state)
    features, noise = torch.randn(5, 6), torch.randn(5, 6)
    assert torch.equal(loaded(features, noise), mapper(features, noise))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_its_hash_follows_the_weights(saved: Path, tmp_path: Path) -> None:
    other = NoiseMapper(dim=6, hidden_dim=8)
    save_mapper(tmp_path / "other", other, clip=CLIP, recipe={}, metrics={})
    assert hash_mapper(saved) != hash_mapper(tmp_path / "other")


def test_weights_that_are_not_finite_are_not_saved(mapper: NoiseMapper, tmp_path: Path) -> None:
    with torch.no_grad():
        mapper.shift[0].weight[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"shift\.0\.weight is not finite: not saved"):
        save_mapper(tmp_path / "m", mapper, clip=CLIP, recipe={}, metrics={})
    assert not (tmp_path / "m").exists()


def test_another_clip_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="CLIP weights_sha256 = abc, here it is def"):
        load_mapper(saved, {**CLIP, "weights_sha256": "def"})


def _edit(key: str, value: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tree = json.loads((folder / "mapper.json").read_text())
        (folder / "mapper.json").write_text(json.dumps({**tree, key: value}))

    return edit


def _cut(folder: Path) -> None:
    path = folder / "mapper.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _exchange(folder: Path) -> None:
    path = folder / "mapper.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "mapper.json").unlink(), "no complete noise mapper"),
        (lambda folder: (folder / "mapper.json").write_text("{"), "damaged; run"),
        (lambda folder: (folder / "mapper.json").write_text("[]"), "format_version = None"),
        (_edit("format_version", 9), "format_version = 9, this program reads 1"),
        (_edit("dim", "6"), "dim = '6' is no int"),
        (_edit("hidden_dim", 9), "its shapes are not the dim = 6, hidden_dim = 9"),
        (lambda folder: (folder / "mapper.safetensors").unlink(), "missing or damaged"),
        (_cut, "missing or damaged"),
        (_exchange, r"not the file that mapper\.json names"),
    ],
)
def test_damage_is_named_with_its_fix(
    saved: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as refused:
        load_mapper(saved, CLIP)
    assert "clipgan pretrain-mapper" in str(refused.value)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no mapper"):
        hash_mapper(tmp_path / "nowhere")
