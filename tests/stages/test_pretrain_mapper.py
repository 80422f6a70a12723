"""Stage pretrain_mapper: it learns, goes on after a kill, and refuses what cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipgan.artifacts import hash_file
from clipgan.clip.feature_store import FeatureTable
from clipgan.errors import CheckpointError, DataError, TrainingDivergedError
from clipgan.models.noise_mapper import load_mapper
from clipgan.pretraining import mapper as mapper_training
from clipgan.pretraining.mapper import (
    CaptionedFeatures,
    MapperTraining,
    compute_mapper_metrics,
)
from clipgan.stages.pretrain_mapper import MapperReport, pretrain_mapper
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.resumable import StepLoop
from tests.stages.tiny_training import NUM_VALIDATION, TinyClip, build_world, tiny_params

DIM = 12
RECIPE = {
    "pretrain_mapper.device": "cpu",
    "pretrain_mapper.hidden_dim": 16,
    "pretrain_mapper.steps": 20,
    "pretrain_mapper.batch_size": 8,
    "pretrain_mapper.checkpoint_interval_steps": 5,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and features; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    return root


def _run(world: Path, root: Path, changes: dict[str, Any] | None = None) -> MapperReport:
    return pretrain_mapper(
        tiny_params({**RECIPE, **(changes or {})}).pretrain_mapper,
        images=world / "images",
        features=world / "features",
        output=root / "mapper",
        work=root / "work",
    )


def _turned_pairs() -> CaptionedFeatures:
    """Texts are the images, turned and moved aside: a gap that a network can learn."""
    draws = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(400, DIM, generator=draws), dim=1)
    turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=draws)).Q
    texts = F.normalize(images @ turn + torch.randn(DIM, generator=draws), dim=1)
    table = FeatureTable(
        sample_ids=[str(number) for number in range(400)],
        image_features=images.numpy().astype(np.float16),
        text_features=texts.numpy().astype(np.float16),
        caption_offsets=np.arange(401, dtype=np.int64),
        captions=[f"t{number}" for number in range(400)],
        clip={"model": "turned"},
    )
    return CaptionedFeatures.select(table, np.arange(400, dtype=np.int64))


# The sharpened form goes flat where exp(cosine / temperature) is large.
@pytest.mark.parametrize(("contrastive", "temperature"), [("infonce", 0.1), ("sharpened", 0.5)])
def test_pseudo_text_learns_to_find_its_own_text(
    contrastive: str, temperature: float, tmp_path: Path
) -> None:
    changes = {
        **RECIPE,
        "pretrain_mapper.steps": 600,
        "pretrain_mapper.hidden_dim": 64,
        "pretrain_mapper.batch_size": 32,
        "pretrain_mapper.learning_rate": 0.005,
        "pretrain_mapper.temperature": temperature,
        "pretrain_mapper.contrastive": contrastive,
        "pretrain_mapper.checkpoint_interval_steps": 1000,
    }
    config = tiny_params(changes).pretrain_mapper
    pairs = _turned_pairs()
    device = torch.device("cpu")
    training = MapperTraining(config, pairs, device)
    before = compute_mapper_metrics(training.mapper, pairs, config)
    StepLoop(
        "noise mapper",
        training,
        total_steps=config.steps,
        checkpoint_interval_steps=config.checkpoint_interval_steps,
        checkpoints=CheckpointStore(tmp_path, keep=2, fingerprint="f"),
        device=device,
    ).run()
    after = compute_mapper_metrics(training.mapper, pairs, config)
    assert before["r_at_1"] < 0.1
    assert after["r_at_1"] > 0.8
    assert after["pseudo_text"] > before["pseudo_text"] + 0.15


def test_the_folder_says_what_it_is_and_is_a_start_for_training(
    world: Path, tmp_path: Path
) -> None:
    report = _run(world, tmp_path)
    info = json.loads((tmp_path / "mapper" / "mapper.json").read_text())
    assert report.num_images == 20
    assert info["recipe"]["steps"] == 20
    assert info["metrics"]["validation"]["pairs"] == NUM_VALIDATION
    assert info["metrics"] == report.metrics
    mapper = load_mapper(tmp_path / "mapper", TinyClip().fingerprint)
    assert mapper.dim == TinyClip.embed_dim
    assert not list((tmp_path / "work").iterdir())


def test_cut_off_it_ends_with_the_same_bits(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(world, tmp_path)
    expected = hash_file(tmp_path / "mapper" / "mapper.safetensors")
    shutil.rmtree(tmp_path / "mapper")
    compute, calls = mapper_training.compute_contrastive_loss, []

    def compute_or_die(*values: Any, **named: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return compute(*values, **named)

    monkeypatch.setattr(mapper_training, "compute_contrastive_loss", compute_or_die)
    with pytest.raises(KeyboardInterrupt):
        _run(world, tmp_path)
    assert not (tmp_path / "mapper").exists()
    shutil.copytree(tmp_path / "work", tmp_path / "again" / "work")
    assert _run(world, tmp_path).resumed_from == 10
    assert len(calls) == 13 + 10
    assert hash_file(tmp_path / "mapper" / "mapper.safetensors") == expected
    monkeypatch.setattr("clipgan.stages.pretrain_mapper.hash_sources", lambda module: "edited")
    assert _run(world, tmp_path / "again").resumed_from is None, "other code made that state"


def test_other_recipes_are_other_mappers(world: Path, tmp_path: Path) -> None:
    hashes = set()
    for changes in ({}, {"seed": 1}, {"caption_fraction": 0.5}, {"temperature": 0.5}):
        named = {f"pretrain_mapper.{key}": value for key, value in changes.items()}
        _run(world, tmp_path, named)
        hashes.add(hash_file(tmp_path / "mapper" / "mapper.safetensors"))
    assert len(hashes) == 4


def test_the_budget_is_that_of_train_at_the_same_seed(world: Path, tmp_path: Path) -> None:
    assert _run(world, tmp_path, {"pretrain_mapper.caption_fraction": 0.5}).num_images == 10


def test_images_without_captions_are_refused(tmp_path: Path) -> None:
    build_world(tmp_path, captioned=0)
    with pytest.raises(DataError, match="20 of 20 training images have no caption"):
        _run(tmp_path, tmp_path)


def test_a_partly_captioned_set_is_learned_from(tmp_path: Path) -> None:
    build_world(tmp_path, captioned=14)
    assert _run(tmp_path, tmp_path, {"pretrain_mapper.caption_fraction": 0.5}).num_images == 10


def test_more_in_a_batch_than_there_are_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"batch_size = 24, but 20 captioned images may be used"):
        _run(world, tmp_path, {"pretrain_mapper.batch_size": 24})


def test_divergence_is_named_and_saves_nothing(world: Path, tmp_path: Path) -> None:
    changes = {"pretrain_mapper.learning_rate": 1e30}
    with pytest.raises(TrainingDivergedError, match=r"loss became .* lower pretrain_mapper\.learn"):
        _run(world, tmp_path, changes)
    assert not (tmp_path / "mapper").exists()


def test_damaged_state_is_named(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*values: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patches, pytest.raises(OSError, match="No space left"):
        patches.setattr("clipgan.stages.pretrain_mapper.save_mapper", refuse)
        _run(world, tmp_path)
    manifests = list((tmp_path / "work").glob("*/checkpoint-*/checkpoint.json"))
    assert len(manifests) == 2
    for manifest in manifests:
        manifest.write_text("{")
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints can be read"):
        _run(world, tmp_path)
