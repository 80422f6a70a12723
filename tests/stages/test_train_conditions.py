"""What the generator is conditioned on: the three kinds of pseudo text, and the caption budget."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipgan.artifacts import hash_file
from clipgan.clip.feature_store import FeatureTable, load_features
from clipgan.errors import CheckpointError, DataError
from clipgan.generation.sampler import Sampler
from clipgan.models.bundle import load_bundle
from clipgan.models.noise_mapper import NoiseMapper, save_mapper
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.conditions import build_conditions
from clipgan.training.inputs import load_training_data, select_training_images
from tests.stages.tiny_training import TinyClip, build_world, run_training, tiny_params

pytestmark = pytest.mark.usefixtures("stable_code")

CPU = torch.device("cpu")
PSEUDO = "train.pseudo_text."
CENTRED = {PSEUDO + "kind": "centred_gaussian"}
HALF = {PSEUDO + "caption_fraction": 0.5, PSEUDO + "pseudo_text_probability": 0.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and features; read only."""
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    return root


def _load(root: Path, changes: dict[str, Any], work: Path) -> Any:
    """The training data and their conditions, as the train stage makes them."""
    config, table = tiny_params(changes).train, load_features(root / "features")
    selected = select_training_images(root / "images", table)
    clip: Any = TinyClip()
    conditions = build_conditions(config, table, selected, clip, CPU)
    return load_training_data(config, root / "images", conditions, work), conditions


def _training_rows(root: Path) -> tuple[FeatureTable, torch.Tensor, torch.Tensor]:
    """The table, and the image and text features of the training split (a caption each)."""
    table = load_features(root / "features")
    rows = select_training_images(root / "images", table)
    images, texts = (
        torch.from_numpy(features[rows].astype(np.float32))
        for features in (table.image_features, table.text_features)
    )
    return table, images, texts


class TestCaptions:
    def test_missing_ones_are_refused_unless_language_free(self, tmp_path: Path) -> None:
        build_world(tmp_path, captioned=14)
        mixed = tiny_params({PSEUDO + "pseudo_text_probability": 0.5})
        with pytest.raises(DataError, match=r"10 of 20 training images have no caption.*1\.0"):
            run_training(tmp_path, mixed)
        assert not (tmp_path / "training").exists()
        assert run_training(tmp_path, tiny_params()).images_seen == 96

    def test_they_can_be_mixed_in(self, copy: Path) -> None:
        mixed = tiny_params({PSEUDO + "pseudo_text_probability": 0.5})
        assert run_training(copy, mixed).images_seen == 96


class TestCaptionBudget:
    def test_other_captions_are_not_even_loaded(self, world: Path, tmp_path: Path) -> None:
        data, conditions = _load(world, HALF, tmp_path)
        assert conditions.captioned.sum() == 10
        assert len(data.text_features) == 10
        assert (np.diff(data.caption_offsets) == conditions.captioned).all()
        _, _, texts = _training_rows(world)
        assert (data.text_features == texts.numpy()[conditions.captioned].astype(np.float16)).all()

    def test_it_changes_the_training(self, copy: Path) -> None:
        hashes = set()
        for fraction in (0.0, 0.5, 1.0):
            changes = {**HALF, PSEUDO + "caption_fraction": fraction}
            run_training(copy, tiny_params(changes))
            hashes.add(hash_file(copy / "training" / "generator.safetensors"))
        assert len(hashes) == 3

    def test_without_captions_it_is_language_free(self, copy: Path) -> None:
        run_training(copy, tiny_params({**HALF, PSEUDO + "caption_fraction": 0.0}))
        none = hash_file(copy / "training" / "generator.safetensors")
        run_training(copy, tiny_params())
        assert hash_file(copy / "training" / "generator.safetensors") == none

    def test_a_partly_captioned_set_needs_the_fraction_that_fits(self, tmp_path: Path) -> None:
        build_world(tmp_path, captioned=14)
        changes = {PSEUDO + "pseudo_text_probability": 0.5}
        with pytest.raises(DataError, match=r"needs those of 20: set it to 0\.5"):
            run_training(tmp_path, tiny_params(changes))
        changes[PSEUDO + "caption_fraction"] = 0.5
        assert run_training(tmp_path, tiny_params(changes)).images_seen == 96


class TestModalityGap:
    def test_every_feature_enters_without_its_mean(self, world: Path, tmp_path: Path) -> None:
        _, images, texts = _training_rows(world)
        data, conditions = _load(world, CENTRED, tmp_path)
        wanted = F.normalize(images - images.mean(0), dim=1)
        assert torch.allclose(torch.from_numpy(data.image_features).float(), wanted, atol=1e-3)
        wanted = F.normalize(texts - texts.mean(0), dim=1)
        assert torch.allclose(torch.from_numpy(data.text_features).float(), wanted, atol=1e-3)
        pixels = torch.rand(2, 3, 8, 8) * 2 - 1
        raw = TinyClip().encode_images(pixels)
        wanted = F.normalize(raw - images.mean(0), dim=1)
        assert torch.allclose(conditions.encode_images(pixels), wanted, atol=1e-5)

    def test_the_bundle_is_sampled_in_the_same_space(self, copy: Path) -> None:
        run_training(copy, tiny_params(CENTRED))
        bundle = load_bundle(copy / "training")
        _, images, texts = _training_rows(copy)
        assert bundle.means is not None
        assert torch.allclose(bundle.means.image, images.mean(0), atol=1e-6)
        assert torch.allclose(bundle.means.text, texts.mean(0), atol=1e-6)
        clip: Any = TinyClip()
        sampler = Sampler(bundle, clip, CPU)
        shown: list[torch.Tensor] = []
        bundle.generator.text_path.register_forward_pre_hook(
            lambda _module, given: shown.append(given[0])
        )
        sampler.sample(["a dot"], seed=0)
        wanted = F.normalize(TinyClip().encode_texts(["a dot"]) - texts.mean(0), dim=1)
        gain = tiny_params().train.lafite.generator.text_gain
        assert torch.allclose(shown[0], wanted * gain, atol=1e-4)

    def test_the_text_mean_keeps_to_the_budget(self, world: Path, tmp_path: Path) -> None:
        _, conditions = _load(world, {**CENTRED, PSEUDO + "caption_fraction": 0.5}, tmp_path)
        _, _, texts = _training_rows(world)
        wanted = texts[torch.from_numpy(conditions.captioned)].mean(0)
        assert torch.allclose(conditions.means.text, wanted, atol=1e-6)

    def test_no_caption_at_all_is_refused(self, copy: Path) -> None:
        with pytest.raises(DataError, match="no caption may be used: raise caption_fraction"):
            run_training(copy, tiny_params({**CENTRED, PSEUDO + "caption_fraction": 0.0}))

    def test_cut_off_it_ends_with_the_same_bits(
        self, copy: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changes = {**CENTRED, **HALF, PSEUDO + "pseudo_text_probability": 0.5}
        run_training(copy, tiny_params(changes))
        names = ("generator", "discriminator", "modality_means")
        files = [copy / "training" / f"{name}.safetensors" for name in names]
        expected = [hash_file(file) for file in files]
        shutil.rmtree(copy / "training")
        # What is finished would not be trained again.
        shutil.rmtree(copy / "work" / "train")
        save = CheckpointStore.save

        def save_and_die(store: CheckpointStore, images_seen: int, *state: Any) -> Path:
            path = save(store, images_seen, *state)
            if images_seen == 48:
                raise KeyboardInterrupt
            return path

        monkeypatch.setattr(CheckpointStore, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run_training(copy, tiny_params(changes))
        monkeypatch.undo()
        assert run_training(copy, tiny_params(changes)).resumed_from == 48
        assert [hash_file(file) for file in files] == expected


class TestMapper:
    @pytest.fixture
    def mapper(self, copy: Path) -> Path:
        torch.manual_seed(0)
        network = NoiseMapper(dim=TinyClip.embed_dim, hidden_dim=8)
        clip = {**TinyClip().fingerprint}
        save_mapper(copy / "mapper", network, clip=clip, recipe={}, metrics={})
        return copy / "mapper"

    def _changes(self, mapper: Path) -> dict[str, Any]:
        return {PSEUDO + "kind": "mapper", PSEUDO + "mapper": str(mapper)}

    def test_it_makes_the_pseudo_text(self, copy: Path, mapper: Path) -> None:
        hashes = set()
        for seed in range(2):
            torch.manual_seed(seed)
            network = NoiseMapper(dim=TinyClip.embed_dim, hidden_dim=8)
            clip = TinyClip().fingerprint
            save_mapper(mapper, network, clip=clip, recipe={}, metrics={})
            report = run_training(copy, tiny_params(self._changes(mapper)))
            hashes.add((report.fingerprint, hash_file(copy / "training/generator.safetensors")))
        names, bits = zip(*hashes, strict=True)
        assert len(set(names)) == len(set(bits)) == 2

    def test_a_missing_one_is_named(self, copy: Path) -> None:
        changes = self._changes(copy / "nowhere")
        with pytest.raises(CheckpointError, match=r"nowhere: no mapper\.json"):
            run_training(copy, tiny_params(changes))

    def test_one_of_another_clip_is_refused(self, copy: Path, mapper: Path) -> None:
        clip = {**TinyClip().fingerprint, "model": "other"}
        network = NoiseMapper(dim=TinyClip.embed_dim, hidden_dim=8)
        save_mapper(mapper, network, clip=clip, recipe={}, metrics={})
        with pytest.raises(CheckpointError, match="CLIP model = other, here it is tiny"):
            run_training(copy, tiny_params(self._changes(mapper)))
