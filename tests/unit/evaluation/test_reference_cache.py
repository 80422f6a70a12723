from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clipgan.evaluation.spaces.extractors import EXTRACTOR_NAME
from clipgan.evaluation.spaces.feature_spaces import FeatureSpace
from clipgan.evaluation.study.real_images import RealImages
from clipgan.evaluation.study.reference import load_reference_index
from clipgan.evaluation.study.reference_cache import FeatureCache
from tests.unit.evaluation.tiny_images import Drawing, build_images

CPU = torch.device("cpu")


class CountingSpace:
    """Mean colours; counts the images it was shown."""

    def __init__(self, sha256: str = "0" * 64, resize: str = "none") -> None:
        self.seen = 0
        self.space = FeatureSpace(EXTRACTOR_NAME, "x", "mean", sha256, resize, self.encode)

    def encode(self, images: Tensor) -> tuple[Tensor, None]:
        self.seen += len(images)
        return images.float().flatten(2).mean(2), None


def open_images(
    folder: Path, cache: Path, *, names: str = "abcdef", whole: bool = False
) -> RealImages:
    if not folder.exists():
        build_images(folder, [Drawing(name, [name]) for name in names])
    return RealImages(
        load_reference_index(folder, "train"),
        16,
        FeatureCache(cache),
        batch_size=4,
        device=CPU,
        picture_px=16,
        whole=[EXTRACTOR_NAME] if whole else [],
    )


def test_the_second_call_extracts_nothing(tmp_path: Path) -> None:
    first, second = CountingSpace(), CountingSpace()
    rows = [4, 0, 2]
    found = open_images(tmp_path / "images", tmp_path / "cache").encode(rows, first.space)
    again = open_images(tmp_path / "images", tmp_path / "cache").encode(rows, second.space)
    assert (first.seen, second.seen) == (3, 0)
    assert torch.equal(found, again)


def test_whatever_decides_the_features_decides_the_file(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    images = open_images(tmp_path / "images", cache)
    other_images = open_images(tmp_path / "other", cache, names="ghijkl")
    rows = [0, 1]
    for real, space, chosen, transform in (
        (images, CountingSpace(), rows, "none"),
        (other_images, CountingSpace(), rows, "none"),
        (images, CountingSpace("1" * 64), rows, "none"),
        (images, CountingSpace(resize="to 8 px"), rows, "none"),
        (images, CountingSpace(), [1, 0], "none"),
        (images, CountingSpace(), rows, "mirrored"),
        (images, CountingSpace(), rows, "blur 2"),
        (images, CountingSpace(), rows, "blur 4"),
    ):
        real.encode(chosen, space.space, transform)
        assert space.seen == 2, (chosen, transform)
    assert len(list(cache.iterdir())) == 8


def test_rows_may_repeat_and_keep_their_order(tmp_path: Path) -> None:
    images = open_images(tmp_path / "images", tmp_path / "cache")
    space = CountingSpace()
    found = images.encode([3, 1, 3], space.space)
    assert space.seen == 2
    expected = images.load([3, 1, 3]).float().flatten(2).mean(2)
    assert torch.equal(found, expected)


def test_a_whole_split_is_extracted_once_for_every_choice(tmp_path: Path) -> None:
    images = open_images(tmp_path / "images", tmp_path / "cache", whole=True)
    space = CountingSpace()
    assert torch.equal(images.encode([5, 2], space.space), images.encode_all(space.space)[[5, 2]])
    images.encode([0], space.space)
    assert space.seen == 6


@pytest.mark.parametrize("damage", [b"", b"cut", None])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeatureCache(tmp_path)
    cache.fetch({"a": 1}, lambda: {"x": torch.ones(3)})
    (path,) = tmp_path.iterdir()
    if damage is None:
        # A whole file under another key's name.
        cache.fetch({"a": 2}, lambda: {"x": torch.zeros(3)})
        (other,) = [p for p in tmp_path.iterdir() if p != path]
        other.replace(path)
    else:
        path.write_bytes(damage)
    found = cache.fetch({"a": 1}, lambda: {"x": torch.full((3,), 2.0)})
    assert found["x"].tolist() == [2.0] * 3
    assert "computed again" in caplog.text
    again = cache.fetch({"a": 1}, lambda: pytest.fail("was not kept"))
    assert again["x"].tolist() == [2.0] * 3


def test_mirrored_references_hold_both(tmp_path: Path) -> None:
    images = open_images(tmp_path / "images", tmp_path / "cache")
    space = CountingSpace()
    found = images.encode_reference([0, 1, 2], space.space, [2], mirrored=True)
    assert found.plain.shape == (6, 3)
    assert torch.allclose(found.plain[:3], found.plain[3:]), "mean colours do not see a mirror"
    assert found.blurred is not None
    assert found.blurred[2].shape == (3, 3)
    assert found.statistics is not None
    torch.testing.assert_close(found.statistics.covariance, found.plain.double().T.cov())


def test_clips_of_one_file_are_told_apart_and_so_is_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Precision, activation and preprocessing change the features of equal weights."""
    clip = {"precision": "fp32", "activation": "GELU", "preprocessing": "bicubic 64 px"}
    clips = [clip, *({**clip, key: "other"} for key in clip)]
    counters = [CountingSpace() for _ in clips]
    for counting, fingerprint in zip(counters, clips, strict=True):
        space = replace(counting.space, clip=fingerprint)
        open_images(tmp_path / "images", tmp_path / "cache").encode([0, 1], space)
    assert [counting.seen for counting in counters] == [2, 2, 2, 2]
    again = CountingSpace()
    module = "clipgan.evaluation.study.reference_cache.hash_sources"
    monkeypatch.setattr(module, lambda name: "edited")
    space = replace(again.space, clip=clip)
    open_images(tmp_path / "images", tmp_path / "cache").encode([0, 1], space)
    assert again.seen == 2
