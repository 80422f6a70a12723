"""Stage train with family galip: bundle, exact resume, every kind of pseudo text, fine-tuning."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.clip.encoder import load_clip
from clipgan.config import load_profile
from clipgan.errors import (
    CheckpointError,
    ClipError,
    ClipganError,
    ConfigError,
    TrainingDivergedError,
)
from clipgan.families.galip.networks.generator import GalipGenerator
from clipgan.families.galip.training import step as galip_step
from clipgan.families.galip.training.start import GalipNetworks, build_galip_networks
from clipgan.families.registry import FAMILIES, find_family
from clipgan.models.bundle import BundleInfo, load_bundle, save_bundle
from clipgan.models.noise_mapper import NoiseMapper, save_mapper
from clipgan.stages.model_addresses import opened_start
from clipgan.stages.pretrain_generator import pretrain_generator
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.family import TrainingSpec
from clipgan.training.fine_tuning import resolve_initial_folder
from tests.galip_parts import TREE, build_tower, galip_tree
from tests.stages.tiny_galip import TinyVitClip, draw_conditions, tiny_galip_params
from tests.stages.tiny_training import (
    SIDE_PX,
    TinyClip,
    build_world,
    hash_training,
    run_training,
    single_thread,
    tiny_params,
)

pytestmark = pytest.mark.usefixtures("stable_code", "one_thread")

ROOT = Path(__file__).parents[2]
SHORT = {"train.total_images": 16}
PSEUDO = "train.pseudo_text."


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, features and an uninterrupted training; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root, clip=TinyVitClip())
    with single_thread():
        run_training(root, tiny_galip_params())
    return root


def test_output_is_a_galip_bundle_that_draws(world: Path) -> None:
    bundle = load_bundle(world / "training")
    assert bundle.info.family == "galip"
    assert bundle.info.images_seen == 96
    assert bundle.discriminator is not None
    assert isinstance(bundle.generator, GalipGenerator)
    bundle.generator.attach_tower(build_tower(embed_dim=TinyClip.embed_dim))
    latents, texts = draw_conditions(3, bundle.latent_dim)
    with torch.no_grad():
        images = bundle.generate(latents, texts)
    assert images.shape == (3, 3, SIDE_PX, SIDE_PX)
    assert not torch.equal(images[0], images[1])
    # CLIP is in neither file.
    assert not [name for name in bundle.generator.state_dict() if "resblocks" in name]
    assert len(list((world / "training" / "samples").iterdir())) == 3


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_cut_at_every_checkpoint_ends_with_the_same_bits(
    copy: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"train.precision": precision, PSEUDO + "pseudo_text_probability": 0.5}
    run_training(copy, tiny_galip_params(changes), output="whole")
    # What is finished would not be trained again.
    shutil.rmtree(copy / "work" / "train")

    class Killed(BaseException):
        pass

    save = CheckpointStore.save

    def save_then_die(store: CheckpointStore, images_seen: int, *rest: Any) -> Path:
        save(store, images_seen, *rest)
        raise Killed

    resumes = 0
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save_then_die)
        while not (copy / "training").exists():
            try:
                run_training(copy, tiny_galip_params(changes))
            except Killed:
                resumes += 1
    assert resumes == 7
    assert hash_training(copy / "training") == hash_training(copy / "whole")


def test_another_seed_gives_other_weights(copy: Path, world: Path) -> None:
    run_training(copy, tiny_galip_params({"train.seed": 1}))
    assert hash_training(copy / "training") != hash_training(world / "training")


@pytest.mark.parametrize("kind", ["gaussian", "mapper", "centred_gaussian"])
def test_every_kind_of_pseudo_text_stands_in_for_captions(
    copy: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    mapper = NoiseMapper(dim=TinyClip.embed_dim, hidden_dim=8)
    save_mapper(copy / "mapper", mapper, clip=TinyVitClip().fingerprint, recipe={}, metrics={})
    seen: list[torch.Tensor] = []
    compute = galip_step.compute_clip_similarity

    def recording(embeddings: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        seen.append(embeddings.detach())
        return compute(embeddings, texts)

    monkeypatch.setattr(galip_step, "compute_clip_similarity", recording)
    changes = {PSEUDO + "kind": kind, PSEUDO + "mapper": str(copy / "mapper"), **SHORT}
    run_training(copy, tiny_galip_params(changes))
    bundle = load_bundle(copy / "training")
    assert (bundle.means is not None) == (kind == "centred_gaussian")
    # Under C3 generated images are compared in the centred space, where vectors are of unit norm.
    unit = torch.allclose(seen[0].norm(dim=1), torch.ones(len(seen[0])), atol=1e-4)
    assert unit == (kind == "centred_gaussian")


def test_fine_tuning_starts_from_a_bundle_or_a_checkpoint(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = galip_tree(
        {"optimizer.generator_learning_rate": 1e-12, "optimizer.discriminator_learning_rate": 1e-12}
    )
    changes = {"train.initial_weights": str(world / "training"), "train.galip": still, **SHORT}
    report = run_training(copy, tiny_galip_params(changes))
    assert report.initial_images_seen == 96
    before, after = load_bundle(copy / "training" / "initial"), load_bundle(copy / "training")
    for name in ("generator", "discriminator"):
        old, new = getattr(before, name).state_dict(), getattr(after, name).state_dict()
        assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)

    shutil.rmtree(copy / "work" / "train")
    run_training(copy, tiny_galip_params({**SHORT, "train.seed": 3}), output="other")
    checkpoint = str(max(copy.glob("work/train/*/checkpoints/checkpoint-*")))
    with opened_start(
        checkpoint, work=copy / "work" / "train", tracking_uri="unused", family="galip"
    ) as folder:
        assert folder is not None
        assert load_bundle(folder).info.family == "galip"
        changes = {"train.initial_weights": checkpoint, **SHORT}
        report = run_training(copy, tiny_galip_params(changes), initial_folder=folder)
    assert report.initial_images_seen == 16


def _save_raw_bundle(folder: Path, **changes: Any) -> GalipNetworks:
    """What the import of official weights leaves: raw text features, gain 1."""
    params = tiny_galip_params({"train.galip": galip_tree({"text_gain": 1.0, **changes})})
    tower = build_tower(embed_dim=TinyClip.embed_dim)
    networks = build_galip_networks(params.train.galip, tower, resolution_px=SIDE_PX, seed=9)
    networks.generator.architecture["text_norm"] = "raw"
    info = BundleInfo("galip", TinyVitClip().fingerprint, SIDE_PX, 0)
    save_bundle(folder, networks.generator, networks.discriminator, info, dtype="fp32")
    return networks


def test_official_weights_go_on_with_unit_features_times_the_gain(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    networks = _save_raw_bundle(copy / "raw")
    changes = {"train.initial_weights": str(copy / "raw"), **SHORT}
    with caplog.at_level("INFO", logger="clipgan"):
        run_training(copy, tiny_galip_params(changes))
    assert "unit ones times text_gain = 2.0 take their place" in caplog.text
    bundle = load_bundle(copy / "training")
    assert bundle.generator.architecture["text_norm"] == "unit"
    assert bundle.generator.architecture["text_gain"] == 2.0
    assert networks.generator.architecture["text_norm"] == "raw"


def _refuse(
    root: Path, error: type[ClipganError], message: str, changes: dict[str, Any], **more: Any
) -> None:
    with pytest.raises(error, match=message) as refusal:
        run_training(root, tiny_galip_params(changes), **more)
    assert "\n" not in str(refusal.value)
    assert not (root / "training").exists()


def test_starts_of_another_family_or_shape_are_refused(
    copy: Path, world: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lafite = tmp_path_factory.mktemp("lafite")
    build_world(lafite)
    run_training(lafite, tiny_params(SHORT))
    start = {"train.initial_weights": str(lafite / "training")}
    message = r"holds a lafite generator, and train.family = galip .* set family to lafite"
    _refuse(copy, CheckpointError, message, start)
    changes = {**SHORT, "train.initial_weights": str(world / "training")}
    with pytest.raises(
        CheckpointError, match=r"holds a galip generator, and train.family = lafite"
    ):
        run_training(lafite, tiny_params(changes), output="again")
    start = {"train.initial_weights": str(world / "training")}
    wider = {**start, "train.galip": galip_tree({"generator.base_channels": 3})}
    _refuse(copy, CheckpointError, "base_channels = 2, train asks for 3", wider)
    fewer = {**start, "train.galip": galip_tree({"discriminator.tapped_blocks": [0, 2]})}
    _refuse(copy, CheckpointError, r"tapped_blocks = \[0, 2, 3\], train asks for", fewer)
    louder = {**start, "train.galip": galip_tree({"text_gain": 3.0})}
    _refuse(copy, CheckpointError, r"text_gain = 2\.0, train asks for 3\.0", louder)


def test_the_built_in_start_is_galips(
    copy: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = replace(FAMILIES["galip"], base=str(world / "training"))
    monkeypatch.setitem(FAMILIES, "galip", shipped)
    start = {"train.initial_weights": "built-in"}
    assert run_training(copy, tiny_galip_params({**start, **SHORT})).initial_images_seen == 96


def test_the_shipped_generator_fits_the_profile() -> None:
    params = load_profile(ROOT / "profiles" / "emoji-galip.yaml")
    clip = load_clip("clipgan-vit-h32-96", "built-in", precision="fp32", device=torch.device("cpu"))
    family: TrainingSpec = find_family("galip").load("training")
    folder = resolve_initial_folder(params.train.initial_weights, "galip")
    assert folder is not None
    networks = family.build_networks(params.train, clip)
    info = family.load_initial_weights(params.train, networks, folder, clip.fingerprint)
    assert (info.family, info.resolution_px) == ("galip", 64)


def test_a_clip_that_does_not_fit_is_refused(copy: Path) -> None:
    deep = {"train.galip": galip_tree({"discriminator.tapped_blocks": [1, 4]})}
    _refuse(copy, ConfigError, r"tapped_blocks = \[1, 4\]: tiny has 4 blocks", deep)
    many = {"train.galip": galip_tree({"generator.prompt_tokens": 4})}
    _refuse(copy, ConfigError, "tiny has 4: use at most 3", many)
    convolutional = TinyVitClip()
    convolutional.clip.visual = torch.nn.Conv2d(3, 3, 3)
    _refuse(copy, ClipError, "has a Conv2d as vision tower.*ViT-B-32", {}, clip=convolutional)


def test_nan_in_the_penalty_is_rolled_back_and_reported(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compute = galip_step.compute_ma_gp
    spoiled = {"steps": 1}

    def spoil(*given: Any, **named: Any) -> torch.Tensor:
        penalty = compute(*given, **named)
        spoiled["steps"] -= 1
        return penalty * (float("nan") if spoiled["steps"] >= 0 else 1.0)

    monkeypatch.setattr(galip_step, "compute_ma_gp", spoil)
    # At a scale of 1 no overflow can be blamed.
    tree = galip_tree({"loss_scale.initial_scale": 1.0})
    changes = {"train.precision": "fp16", "train.galip": tree, **SHORT}
    assert run_training(copy, tiny_galip_params(changes)).rollbacks == 1
    assert "ma_gp became nan at 0 images: going back to 0 images" in caplog.text
    spoiled["steps"] = 100
    message = r"ma_gp became nan.*train\.galip\.optimizer.*train\.galip\.losses\.ma_gp_weight"
    with pytest.raises(TrainingDivergedError, match=message):
        run_training(copy, tiny_galip_params({**changes, "train.seed": 5}), output="other")


def test_images_need_no_power_of_two(tmp_path: Path) -> None:
    build_world(tmp_path, clip=TinyVitClip(), side_px=12)
    run_training(tmp_path, tiny_galip_params({**SHORT, "train.resolution_px": 12}))
    assert load_bundle(tmp_path / "training").info.resolution_px == 12


def test_a_warm_up_by_reconstruction_becomes_a_start(copy: Path) -> None:
    warm_up(copy, [SIDE_PX])
    rows = json.loads((copy / "generator" / "history.json").read_bytes())
    assert all("reconstruction" in row and "matched_hinge" not in row for row in rows[1:])
    start = {"train.initial_weights": str(copy / "generator")}
    run_training(copy, tiny_galip_params({**SHORT, **start}), output="other")
    assert load_bundle(copy / "other").info.images_seen == 8 + SHORT["train.total_images"]


def test_only_lafites_generator_grows(copy: Path) -> None:
    with pytest.raises(ConfigError, match=rf"galip does not grow; name {SIDE_PX} alone"):
        warm_up(copy, [SIDE_PX, 2 * SIDE_PX])


def warm_up(folder: Path, sides_px: list[int]) -> None:
    section = {
        "resolutions_px": sides_px,
        "images": [8] * len(sides_px),
        "learning_rates": [0.001] * len(sides_px),
        "batch_size": 4,
    }
    params = tiny_galip_params(
        {f"pretrain_generator.{key}": value for key, value in section.items()}
        | {"train.galip.losses.reconstruction_weight": 1.0}
    )
    pretrain_generator(
        params.pretrain_generator,
        train_config=params.train,
        monitoring=params.monitoring,
        features_config=params.features,
        images=folder / "images",
        features=folder / "features",
        output=folder / "generator",
        work=folder / "generator-work",
        clip=TinyVitClip(),  # type: ignore[arg-type]
    )


def test_the_fixture_section_is_not_params_yamls() -> None:
    assert tiny_galip_params().train.galip.model_dump(mode="json") == TREE
