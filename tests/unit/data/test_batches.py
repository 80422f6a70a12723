from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan import schemas
from clipgan.data.batches import Batch, BatchLoader, TrainingData, build_image_cache
from clipgan.data.decoding import decode_image
from clipgan.data.shards import ShardWriter, build_manifest, save_manifest
from clipgan.errors import DataError
from clipgan.images import to_uint8
from tests.unit.data.pictures import encode, picture

CPU = torch.device("cpu")


def make_data(num_images: int, captions: int | list[int] = 2, side: int = 4) -> TrainingData:
    """Image i is i everywhere but in its last column; feature vectors hold the row's number."""
    images = np.zeros((num_images, 3, side, side), np.uint8)
    images += np.arange(num_images, dtype=np.uint8)[:, None, None, None]
    images[..., -1] = 255
    counts = [captions] * num_images if isinstance(captions, int) else captions
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    texts = np.arange(1, offsets[-1] + 1, dtype=np.float16)[:, None] * np.ones((1, 3), np.float16)
    features = np.arange(num_images, dtype=np.float16)[:, None] * np.ones((1, 3), np.float16)
    return TrainingData(images, features, texts, offsets)


def make_loader(
    data: TrainingData, batch_size: int, seed: int = 0, mirror: bool = False
) -> BatchLoader:
    return BatchLoader(data, batch_size, seed=seed, mirror=mirror, device=CPU)


def rows_of(batch: Batch) -> list[int]:
    return [int(value) for value in batch.image_features[:, 0]]


def assert_equal(one: Batch, other: Batch) -> None:
    for name in ("images", "image_features", "text_features"):
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_a_batch_depends_on_the_position_only() -> None:
    data = make_data(10)
    straight = make_loader(data, 4, mirror=True)
    batches = [straight.batch_at(seen) for seen in range(0, 60, 4)]
    for index in (14, 3, 3, 0, 9):
        assert_equal(make_loader(data, 4, mirror=True).batch_at(index * 4), batches[index])
        assert_equal(straight.batch_at(index * 4), batches[index])


def test_every_image_comes_once_an_epoch_across_batch_borders() -> None:
    loader = make_loader(make_data(10), 4)
    rows = [row for seen in range(0, 40, 4) for row in rows_of(loader.batch_at(seen))]
    epochs = [rows[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_order_is_pinned() -> None:
    # Resuming under a newer NumPy must not change what comes next.
    assert rows_of(make_loader(make_data(10), 10).batch_at(0)) == [8, 2, 9, 7, 4, 6, 1, 3, 5, 0]


def test_batches_of_other_sizes_walk_the_same_sequence() -> None:
    data = make_data(10)
    by_five = make_loader(data, 5, mirror=True)
    joined = torch.cat([by_five.batch_at(0).images, by_five.batch_at(5).images])
    assert torch.equal(joined, make_loader(data, 10, mirror=True).batch_at(0).images)


def test_seeds_differ() -> None:
    data = make_data(50)
    assert rows_of(make_loader(data, 50).batch_at(0)) != rows_of(
        make_loader(data, 50, seed=1).batch_at(0)
    )


def test_images_belong_to_their_features_and_range() -> None:
    batch = make_loader(make_data(10), 10).batch_at(0)
    assert batch.images.dtype == torch.float32
    assert batch.images.min() == -1.0
    assert batch.images.max() == 1.0
    assert to_uint8(batch.images)[:, 0, 0, 0].tolist() == rows_of(batch)


def test_half_of_the_images_are_mirrored_independently_of_the_epoch() -> None:
    data = make_data(100)
    loader = make_loader(data, 100, mirror=True)
    mirrored = torch.stack([loader.batch_at(e * 100).images[:, 0, 0, 0] == 1 for e in range(40)])
    share = mirrored.float().mean().item()
    assert abs(share - 0.5) < 0.03  # 4,000 coins: 3.8 standard deviations
    unmirrored = make_loader(data, 100).batch_at(0).images
    assert (unmirrored[:, 0, 0, 0] < 1).all()


def test_a_mirrored_image_brings_the_one_its_features_are_of() -> None:
    data = make_data(10)
    mirrored = make_loader(data, 10, mirror=True).batch_at(20)
    straight = make_loader(data, 10).batch_at(20)
    assert not torch.equal(mirrored.images, straight.images)
    assert torch.equal(mirrored.feature_images, straight.images)
    assert straight.feature_images is straight.images
    assert torch.equal(mirrored.image_features, straight.image_features)


def test_mirroring_leaves_the_shared_images_alone() -> None:
    data = make_data(10)
    before = data.images_uint8.copy()
    data.images_uint8.setflags(write=False)
    for seen in range(0, 100, 10):
        make_loader(data, 10, mirror=True).batch_at(seen)
    assert np.array_equal(data.images_uint8, before)


def test_captions_are_drawn_evenly_and_from_the_own_image() -> None:
    data = make_data(8, captions=[1, 2, 3, 4, 1, 2, 3, 4])
    loader = make_loader(data, 8)
    drawn = np.zeros(20)
    for seen in range(0, 8 * 3000, 8):
        batch = loader.batch_at(seen)
        for row, text in zip(rows_of(batch), batch.text_features[:, 0], strict=True):
            caption = int(text) - 1
            assert data.caption_offsets[row] <= caption < data.caption_offsets[row + 1]
            drawn[caption] += 1
    expected = np.concatenate([np.full(n, 3000 / n) for n in (1, 2, 3, 4, 1, 2, 3, 4)])
    assert np.abs(drawn - expected).max() < 4.5 * np.sqrt(3000 / 4)


def test_images_without_captions_give_zero_vectors() -> None:
    data = make_data(4, captions=[1, 0, 2, 0])
    batch = make_loader(data, 4).batch_at(0)
    for row, text in zip(rows_of(batch), batch.text_features, strict=True):
        assert (text == 0).all() == (row in (1, 3))


def test_a_batch_larger_than_the_data_is_an_error() -> None:
    with pytest.raises(DataError, match=r"train\.batch_size = 5 is larger than the 4 images"):
        make_loader(make_data(4), 5)


def test_features_that_do_not_fit_are_an_error() -> None:
    data = make_data(4)
    with pytest.raises(DataError, match="features do not fit the images: 3 images"):
        TrainingData(
            data.images_uint8[:3], data.image_features, data.text_features, data.caption_offsets
        )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    writer = ShardWriter(folder, shard_size_mb=1.0, provenance="{}")
    shards = []
    for index in range(6):
        row = dict.fromkeys(
            (schemas.SOURCE_KEY, schemas.CONCEPT, schemas.STYLE, schemas.SHA256), ""
        )
        picture_bytes = encode(picture(32, 32, seed=index))
        writer.add(
            {
                **row,
                schemas.SAMPLE_ID: f"{index:08d}-ab",
                schemas.SPLIT: schemas.TRAIN,
                schemas.CAPTIONS: [],
                schemas.WIDTH: 32,
                schemas.HEIGHT: 32,
                schemas.IMAGE: picture_bytes,
            }
        )
        if index % 3 == 2:
            shards.append(writer.write())
    save_manifest(folder, build_manifest(shards, 32))
    return folder


def test_the_cache_holds_the_images_in_the_order_asked_for(images: Path, tmp_path: Path) -> None:
    ids = ["00000004-ab", "00000000-ab"]
    cache = build_image_cache(images, ids, 32, tmp_path / "cache")
    assert (cache.shape, cache.dtype) == ((2, 3, 32, 32), np.uint8)
    assert np.array_equal(cache[0].transpose(1, 2, 0), np.asarray(picture(32, 32, seed=4)))
    small = build_image_cache(images, ids, 16, tmp_path / "cache")
    expected = picture(32, 32, seed=0).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(small[1].transpose(1, 2, 0), np.asarray(expected))


def test_an_unchanged_cache_is_only_mapped(images: Path, tmp_path: Path) -> None:
    ids = ["00000001-ab"]
    build_image_cache(images, ids, 32, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/images.npy")
    before = path.stat().st_mtime_ns
    mapped = build_image_cache(images, ids, 32, tmp_path / "cache")
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    assert path.stat().st_mtime_ns == before


def test_what_the_cache_cannot_hold(images: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"train\.resolution_px = 64, but images are stored at 32"):
        build_image_cache(images, ["00000001-ab"], 64, cache)
    with pytest.raises(DataError, match="1 sample ids are not there, such as 9"):
        build_image_cache(images, ["00000001-ab", "9"], 32, cache)
    assert list(cache.glob("*/*.npy")) == []


def test_two_that_want_the_same_images_decode_them_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode_slowly(data: bytes) -> Any:
        decoded.append(1)
        time.sleep(0.05)
        return decode_image(data)

    monkeypatch.setattr("clipgan.data.decoding.decode_image", decode_slowly)
    ids = [f"{number:08d}-ab" for number in range(4)]
    build_image_cache(images, ids, 16, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*/images.npy")
    path.unlink()
    left_by_a_kill = path.with_name(".images.npy.1.partial")
    left_by_a_kill.write_bytes(b"half")
    decoded.clear()
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(build_image_cache, images, ids, 16, tmp_path / "cache") for _ in range(2)
        ]
        first, second = (call.result() for call in calls)
    assert len(decoded) == len(ids)
    assert np.array_equal(first, second)
    assert not left_by_a_kill.exists()


@pytest.mark.parametrize("count", [2, 4])
def test_processes_take_turns_in_the_rows_of_a_batch(count: int) -> None:
    data = make_data(10)
    whole = make_loader(data, 8, mirror=True).batch_at(16)
    for rank in range(count):
        loader = BatchLoader(
            data, 8, seed=0, mirror=True, device=CPU, rank=rank, num_processes=count
        )
        share = loader.batch_at(16)
        for name in ("images", "image_features", "text_features"):
            assert torch.equal(getattr(share, name), getattr(whole, name)[rank::count])
