"""Features as generators and judges are shown them, from the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipgan.clip.feature_store import load_features
from clipgan.errors import FeatureStoreError
from clipgan.models.bundle import load_bundle
from clipgan.models.modality_gap import ModalityMeans
from clipgan.stages.stored_features import StoredFeatures, find_stored_conditions
from tests.stages.test_evaluate import save_training
from tests.stages.tiny_training import TinyClip, build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    save_training(root)
    return root


class StoredTexts:
    """Encodes captions as the store has them."""

    def __init__(self, stored: StoredFeatures) -> None:
        self._stored = stored

    def encode_texts(self, captions: Sequence[str], *, normalize: bool = True) -> Tensor:
        assert normalize
        return self._stored.find(captions)


@pytest.mark.parametrize("captioned", [True, False])
def test_each_generator_is_shown_features_in_its_own_space(world: Path, captioned: bool) -> None:
    """CLIP score and retrieval go on seeing the features as CLIP gave them."""
    table = load_features(world / "features")
    stored = StoredFeatures(table)
    names = (table.captions if captioned else table.sample_ids)[3:6]
    means = ModalityMeans(image=torch.randn(6), text=torch.randn(6))
    plain = load_bundle(world / "training")
    centred = replace(plain, means=means)
    raw = stored.find(names)
    clip = StoredTexts(stored)
    assert torch.equal(find_stored_conditions(plain, stored, clip)(names), raw)
    shifted = means.centre_texts(raw) if captioned else means.centre_images(raw)
    assert torch.equal(find_stored_conditions(centred, stored, clip)(names), shifted)
    if captioned:
        encoded = centred.encode_texts(clip, names)
        assert torch.equal(encoded, shifted)
    assert not torch.equal(shifted, raw)


def test_prompts_are_encoded_where_no_caption_has_their_words(world: Path) -> None:
    table = load_features(world / "features")
    known = table.captions[2]
    stored = StoredFeatures(table, ["a new prompt", known], TinyClip().encode_texts)
    assert stored.are_captions(["a new prompt", known])
    found = stored.find(["a new prompt", known])
    wanted = TinyClip().encode_texts(["a new prompt"])
    torch.testing.assert_close(found[:1], wanted, atol=1e-3, rtol=0)  # kept in half precision
    assert torch.equal(found[1:], StoredFeatures(table).find([known]))


def test_a_condition_without_a_feature_is_named(world: Path) -> None:
    stored = StoredFeatures(load_features(world / "features"))
    with pytest.raises(FeatureStoreError, match="'nothing' has no feature"):
        stored.find(["picture 3", "nothing"])
