"""What decides a stage: the file that DVC compares, and the name of a training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clipgan.config import TrainConfig
from clipgan.data.shards import load_manifest
from clipgan.errors import CheckpointError, RegistryError
from clipgan.stages.settings import MISSING, write_settings
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.training.fine_tuning import resolve_initial_folder
from clipgan.training.fingerprint import compute_training_fingerprint
from tests.metric_values import value_of
from tests.mlflow_stores import register_values
from tests.params import params_with
from tests.stages import tiny_galip
from tests.stages.tiny_training import (
    build_world,
    hash_training,
    run_training,
    tiny_params,
)
from tests.unit.tracking.tiny_sampler import LOADER

pytestmark = pytest.mark.usefixtures("stable_code", "one_thread")

STAGES = ("ingest", "features", "train", "evaluate")
FOLDER = {"ingest.source": "folder", "ingest.folder": "somewhere"}
LAFITE_KEYS: dict[str, Any] = {
    "train.lafite.reduced_precision_resolutions": 2,
    "train.lafite.clip_view.min_side": 0.5,
    "train.lafite.generator.mapping_layers": 3,
    "train.lafite.discriminator.channel_max": 4,
    "train.lafite.losses.temperature": 0.4,
    "train.lafite.losses.gather_negatives": True,
    "train.lafite.optimizer.beta2": 0.5,
}
GALIP_KEYS: dict[str, Any] = {
    "train.galip.clip_input": "official",
    "train.galip.text_gain": 2.0,
    "train.galip.generator.base_channels": 4,
    "train.galip.discriminator.channels": 4,
    "train.galip.losses.ma_gp_weight": 7.0,
    "train.galip.optimizer.beta2": 0.5,
    "train.galip.loss_scale.initial_scale": 2.0,
}
ADA_KEYS: dict[str, Any] = {
    "train.augmentation.ada_target": 0.1,
    "train.augmentation.ada_interval_steps": 9,
    "train.augmentation.ada_kimg": 1.0,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and features; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    return root


def read_settings(changes: dict[str, Any], folder: Path, uri: str = "unused") -> dict[str, str]:
    write_settings(params_with(changes), folder, tracking_uri=uri, remembered=folder / "memory")
    return {stage: (folder / f"{stage}.json").read_text() for stage in STAGES}


PROJECTED = {
    "train.lafite.discriminator.kind": "projected",
    "train.lafite.losses.r1_gamma": 0.0,
    "train.lafite.losses.discriminator_contrastive_weight": 0.0,
}


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [
        ({}, {"train.device": "cpu", "features.device": "cpu", "evaluate.device": "cpu"}, ""),
        ({}, GALIP_KEYS, ""),
        ({"train.family": "galip"}, GALIP_KEYS, "train"),
        ({"train.family": "galip"}, LAFITE_KEYS, ""),
        ({}, LAFITE_KEYS, "train"),
        ({}, ADA_KEYS | {"train.pseudo_text.mapper": "data/mapper"}, ""),
        ({"train.augmentation.kind": "ada"}, ADA_KEYS, "train"),
        ({"train.augmentation.kind": "ada"}, {"train.augmentation.policies": ["color"]}, ""),
        ({"train.precision": "fp32"}, {"train.lafite.reduced_precision_resolutions": 1}, ""),
        ({}, {"train.lafite.reduced_precision_resolutions": 1}, "train"),
        ({}, {"train.lafite.clip_view.crops": 3}, ""),
        ({}, {"train.lafite.discriminator.projected.channels": 8}, ""),
        (PROJECTED, {"train.lafite.discriminator.projected.channels": 8}, "train"),
        (PROJECTED, {"train.lafite.discriminator.channel_base": 64}, ""),
        (PROJECTED, {"train.lafite.clip_view.kind": "full"}, ""),
        ({"train.lafite.clip_view.kind": "full"}, {"train.lafite.clip_view.min_side": 0.5}, ""),
        ({}, {"monitoring.keep_checkpoints": 9, "register.min_improvement": 1.0}, ""),
        ({}, {"ingest.jpeg_quality": 50, "ingest.folder": "unread"}, ""),
        ({"ingest.encoding": "jpeg"}, {"ingest.jpeg_quality": 50}, "ingest"),
        (FOLDER, {"ingest.folder": "the same, moved", "ingest.emoji_styles": ["noto"]}, ""),
        ({}, {"ingest.emoji_styles": ["noto"]}, "ingest"),
        ({}, {"ingest.resolution_px": 32}, "ingest"),
        # The last bits follow the sizes of the batches.
        ({}, {"features.batch_size": 7}, "features"),
        ({}, {"evaluate.batch_size": 7}, "evaluate"),
        ({}, {"evaluate.judge_clip_weights": "openai"}, ""),
        (
            {"evaluate.judge_clip_model": "RN50"},
            {"evaluate.judge_clip_weights": "cc12m"},
            "evaluate",
        ),
    ],
)
def test_a_stage_is_decided_by_the_keys_it_reads(
    base: dict[str, Any], changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    before = read_settings(base, tmp_path)
    after = read_settings(base | changes, tmp_path)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == set(expected.split())


@pytest.mark.parametrize(
    ("family", "unread"),
    [
        (
            "lafite",
            GALIP_KEYS | ADA_KEYS | {"train.device": "auto", "train.lafite.clip_view.crops": 3},
        ),
        ("galip", LAFITE_KEYS | ADA_KEYS | {"train.device": "auto"}),
    ],
)
def test_keys_that_do_not_count_change_no_bit_and_keep_the_resume_state(
    family: str, unread: dict[str, Any], world: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base: dict[str, Any] = {"train.total_images": 16, "train.precision": "fp32"}
    if family == "galip":
        base |= tiny_galip.CHANGES
        copy = copy / "galip"
        build_world(copy, clip=tiny_galip.TinyVitClip())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run_training(copy, tiny_params(base), output="reference")
    run_training(copy, tiny_params(base | unread), output="other")
    assert hash_training(copy / "other") == hash_training(copy / "reference")

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("clipgan.stages.train.place_output", die)
        run_training(copy, tiny_params(base))
    assert run_training(copy, tiny_params(base | unread)).resumed_from == 16


def make_bundle(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text("{}")
    (folder / "generator.safetensors").write_bytes(content)
    # What says when and how is no weight.
    (folder / "training.json").write_bytes(content)


def name_training(world: Path, config: TrainConfig) -> str:
    return compute_training_fingerprint(
        config,
        images_fingerprint=load_manifest(world / "images").fingerprint,
        features_dir=world / "features",
        initial_folder=resolve_initial_folder(config.initial_weights, config.family),
    )


def test_new_weights_behind_a_folders_name_retrain(world: Path, tmp_path: Path) -> None:
    start, moved = tmp_path / "generator", tmp_path / "moved"
    changes = {"train.initial_weights": str(start)}
    missing = read_settings(changes, tmp_path)
    assert json.loads(missing["train"])["initial_weights"] == MISSING
    found = []
    for content in (b"a", b"b"):
        make_bundle(start, content)
        named = name_training(world, params_with(changes).train)
        found.append((read_settings(changes, tmp_path)["train"], named))
    assert len({missing["train"], *(settings for settings, _ in found)}) == 3
    assert found[0][1] != found[1][1]
    shutil.copytree(start, moved)
    (moved / "training.json").write_text("made another day")
    changes = {"train.initial_weights": str(moved)}
    named = name_training(world, params_with(changes).train)
    assert (read_settings(changes, tmp_path)["train"], named) == found[1], "the name is no weight"


def test_a_new_mapper_retrains(world: Path, tmp_path: Path) -> None:
    mapper = tmp_path / "mapper"
    changes = {"train.pseudo_text.kind": "mapper", "train.pseudo_text.mapper": str(mapper)}
    found = [read_settings(changes, tmp_path)["train"]]
    with pytest.raises(CheckpointError, match="no complete noise mapper"):
        name_training(world, params_with(changes).train)
    mapper.mkdir()
    for content in (b"a", b"b"):
        (mapper / "mapper.safetensors").write_bytes(content)
        found.append(read_settings(changes, tmp_path)["train"])
    assert len(set(found)) == 3
    (mapper / "mapper.json").write_text('{"metrics": "other figures of the same weights"}')
    assert read_settings(changes, tmp_path)["train"] == found[-1]


def test_a_mapper_that_is_not_read_may_be_there(tmp_path: Path) -> None:
    mapper = tmp_path / "mapper"
    mapper.mkdir()
    (mapper / "mapper.safetensors").write_bytes(b"a")
    changes = {"train.pseudo_text.mapper": str(mapper)}
    assert read_settings(changes, tmp_path) == read_settings({}, tmp_path)


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"features.clip_weights": "WEIGHTS"}, "features"),
        (
            {"evaluate.judge_clip_model": "RN50", "evaluate.judge_clip_weights": "WEIGHTS"},
            "evaluate",
        ),
        ({"evaluate.feature_spaces": ["open_clip:RN50:WEIGHTS"]}, "evaluate"),
        ({"evaluate.feature_spaces": ["timm:resnet18:WEIGHTS"]}, "evaluate"),
    ],
)
def test_new_weights_behind_a_files_name_count(
    changes: dict[str, Any], stage: str, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pt"
    named = {
        key: [spec.replace("WEIGHTS", str(weights)) for spec in value]
        if isinstance(value, list)
        else value.replace("WEIGHTS", str(weights))
        for key, value in changes.items()
    }
    found = []
    for content in (b"a", b"b"):
        weights.write_bytes(content)
        found.append(read_settings(named, tmp_path))
    assert {name for name in STAGES if found[0][name] != found[1][name]} == {stage}


def test_an_alias_that_moves_on_retrains(copy: Path, tracking_uri: str) -> None:
    config = params_with({"register.model_name": "tiny", "register.gate_metric": "fd"})

    def train_and_register(seed: int, fd: float) -> str:
        run_training(copy, tiny_params({"train.total_images": 16, "train.seed": seed}))
        package = GeneratorPackage(copy / "training", LOADER, None)
        entries = {"fd": value_of("fd", fd)}
        return register_values(config.register_model, package, tracking_uri, entries).run_id

    def settings_of(address: str) -> str:
        return read_settings({"train.initial_weights": address}, copy, tracking_uri)["train"]

    run_id = train_and_register(0, 2.0)
    first = settings_of("models:/tiny@challenger")
    assert settings_of("models:/tiny/1") == first, "one version by either name"
    assert settings_of(f"runs:/{run_id}") == first
    train_and_register(1, 1.0)
    assert settings_of("models:/tiny@challenger") != first
    assert settings_of("models:/tiny/1") == first
    with pytest.raises(RegistryError, match="models:/tiny/7 cannot be found"):
        settings_of("models:/tiny/7")
