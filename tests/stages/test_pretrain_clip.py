"""The recipe of the built-in CLIP at toy size, and the weights that ship with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clipgan.artifacts import hash_file
from clipgan.clip.builtin import (
    BUILTIN_MODEL,
    BUILTIN_WEIGHTS,
    builtin_folder,
    load_builtin_clip,
    save_builtin_clip,
)
from clipgan.clip.encoder import load_clip
from clipgan.config import PretrainClipConfig
from clipgan.errors import ClipError, DataError
from clipgan.pretraining.tower import TowerTraining
from clipgan.stages.pretrain_clip import pretrain_clip
from tests.params import params_with
from tests.stages.ingest_runs import fill_folder, make_config, run

TINY = {
    "image_side_px": 32,
    "precision": "fp32",
    "embed_dim": 16,
    "vision_width": 32,
    "vision_layers": 1,
    "vision_head_width": 16,
    "views": 2,
    "teacher_steps": 5,
    "teacher_batch_size": 8,
    "teacher_hidden_dim": 8,
    "steps": 6,
    "batch_size": 8,
    "warmup_steps": 1,
    "checkpoint_interval_steps": 2,
}
CONFIG = params_with({f"pretrain_clip.{key}": value for key, value in TINY.items()}).pretrain_clip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clip")
    run(root, make_config(fill_folder(root / "pictures", 20), validation_fraction=0.2))
    return root / "images"


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    pretrain_clip(CONFIG, images=images, output=root / "clip", work=root / "work")
    return root / "clip"


def test_recipe_makes_a_clip_that_loads_through_open_clip(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.json",
        "metrics.json",
        "model.safetensors",
        "MODEL_CARD.md",
    }
    encoder = load_clip(BUILTIN_MODEL, str(trained), precision="fp32", device=CPU)
    # Ramps: noise would drive the trunk's ReLU6 into saturation.
    ramp = torch.linspace(-1, 1, 40)
    pixels = torch.stack([ramp[None, :] * ramp[:, None], ramp.expand(40, 40)])[:, None]
    pixels = pixels.repeat(1, 3, 1, 1).requires_grad_()
    features = encoder.encode_images(pixels)
    assert features.shape == (2, 16)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    features[:, 0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(not parameter.requires_grad for parameter in encoder.parameters())


def test_interrupted_recipe_ends_with_the_same_weights(
    images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = TowerTraining.step

    def interrupt(self: TowerTraining, number: int) -> dict[str, torch.Tensor]:
        if number == 5:
            raise KeyboardInterrupt
        return step(self, number)

    paths = {"images": images, "output": tmp_path / "clip", "work": tmp_path / "work"}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TowerTraining, "step", interrupt)
        pretrain_clip(CONFIG, **paths)
    assert not paths["output"].exists()
    pretrain_clip(CONFIG, **paths)
    names = ("model.safetensors", "metrics.json")
    assert [hash_file(tmp_path / "clip" / n) for n in names] == [
        hash_file(trained / n) for n in names
    ]


def test_state_of_other_code_or_precision_is_not_taken_up(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_until_the_heads(config: PretrainClipConfig) -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(TowerTraining, "__init__", stop)
            pretrain_clip(config, images=images, output=tmp_path / "clip", work=tmp_path / "work")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    def list_state(pattern: str) -> set[Path]:
        return set((tmp_path / "work").glob(pattern))

    run_until_the_heads(CONFIG)
    maps, heads = list_state("maps-*"), list_state("*/heads.safetensors")
    assert (len(maps), len(heads)) == (CONFIG.views, 1)
    run_until_the_heads(CONFIG)
    assert list_state("maps-*") == maps
    monkeypatch.setattr("clipgan.stages.pretrain_clip.hash_sources", lambda module: "edited")
    run_until_the_heads(CONFIG)
    assert len(list_state("maps-*")) == 2 * len(maps)
    assert len(list_state("*/heads.safetensors")) == 2
    other = "fp32" if CONFIG.precision == "bf16" else "bf16"
    run_until_the_heads(CONFIG.model_copy(update={"precision": other}))
    assert len(list_state("maps-*")) == 3 * len(maps)


def test_images_without_captions_are_refused(tmp_path: Path) -> None:
    folder = fill_folder(tmp_path / "pictures", 3)
    for path in folder.glob("*.txt"):
        path.unlink()
    run(tmp_path, make_config(folder))
    with pytest.raises(DataError, match="no image has a caption"):
        pretrain_clip(
            CONFIG, images=tmp_path / "images", output=tmp_path / "clip", work=tmp_path / "work2"
        )


def test_weights_of_another_trunk_are_refused(trained: Path, tmp_path: Path) -> None:
    _, config = load_builtin_clip(trained)
    state = {"logit_scale": torch.zeros(())}
    save_builtin_clip(
        tmp_path,
        state,
        config.model_cfg,
        sentence_encoder_sha256=config.sentence_encoder_sha256,
        image_trunk_sha256="0" * 64,
    )
    with pytest.raises(ClipError, match=r"efficientnet-lite2.*pinned in pyproject"):
        load_builtin_clip(tmp_path)


def test_shipped_clip_keeps_the_promises_of_its_card() -> None:
    metrics = json.loads((builtin_folder() / "metrics.json").read_text())["tower"]
    assert metrics["unseen"]["recall_at"]["5"] >= 0.32
    assert metrics["unseen"]["recall_at"]["10"] >= 0.42
    assert metrics["seen"]["recall_at"]["5"] >= 0.95
    assert sum(path.stat().st_size for path in builtin_folder().iterdir()) < 30e6


def test_shipped_clip_knows_words() -> None:
    encoder = load_clip(BUILTIN_MODEL, BUILTIN_WEIGHTS, precision="fp32", device=CPU)
    apple, pear, car = encoder.encode_texts(["red apple", "green pear", "racing car"])
    assert F.cosine_similarity(apple, pear, dim=0) > F.cosine_similarity(apple, car, dim=0)
    assert encoder.fingerprint["weights_sha256"] == hash_file(
        builtin_folder() / "model.safetensors"
    )
