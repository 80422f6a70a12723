"""The feature stage: complete, resumable shard by shard, and refused where it does not fit."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from clipgan import schemas
from clipgan.artifacts import hash_file
from clipgan.clip import feature_store
from clipgan.clip.feature_store import FeaturesManifest, load_features
from clipgan.config import FeaturesConfig
from clipgan.data.shards import ShardWriter, build_manifest, load_manifest, save_manifest
from clipgan.errors import ClipError, DataError, FeatureStoreError
from clipgan.resume_state import is_finished
from clipgan.stages.features import extract_features
from tests.params import params_with

NUM_SHARDS, IMAGES_PER_SHARD, SIDE_PX, DIM = 4, 5, 16, 6


class FakeClip(nn.Module):
    """Random projections; counts what it is asked for."""

    side_px = 4
    embed_dim = DIM

    def __init__(self, weights: str = "a" * 64) -> None:
        super().__init__()
        self.matrix = torch.randn(DIM, 48, generator=torch.Generator().manual_seed(0))
        self.fingerprint = {
            "model": "fake",
            "weights_sha256": weights,
            "activation": "GELU",
            "preprocessing": "area 4 px",
            "precision": "fp32",
        }
        self.num_images = 0
        self.captions: list[str] = []
        self.broken_from = 10**9

    def encode_images(self, images: Tensor) -> Tensor:
        self.num_images += len(images)
        pixels = F.interpolate(images, size=(4, 4), mode="area").flatten(1)
        found = F.normalize(pixels @ self.matrix.t(), dim=1)
        return found * float("nan") if self.num_images > self.broken_from else found

    def encode_texts(self, captions: Sequence[str]) -> Tensor:
        self.captions += captions
        return torch.stack([text_vector(caption) for caption in captions])


def text_vector(caption: str) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(caption.encode()).digest()[:7], "big")
    return F.normalize(torch.randn(DIM, generator=torch.Generator().manual_seed(seed)), dim=0)


def features_config() -> FeaturesConfig:
    return params_with({"features.batch_size": 2, "features.device": "cpu"}).features


def write_images(folder: Path, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, shard_size_mb=1.0, provenance="{}")
    random = np.random.default_rng(seed)
    entries = []
    for number in range(NUM_SHARDS * IMAGES_PER_SHARD):
        data = io.BytesIO()
        pixels = random.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data, format="PNG")
        writer.add(
            {
                schemas.SAMPLE_ID: f"{number:04d}-{seed}",
                schemas.SOURCE_KEY: f"{number}.png",
                schemas.CONCEPT: f"concept {number}",
                schemas.STYLE: "",
                schemas.SPLIT: schemas.TRAIN,
                # 0, 1 or 2 captions; "thing" again and again.
                schemas.CAPTIONS: [f"picture {number}", "thing"][: number % 3],
                schemas.WIDTH: SIDE_PX,
                schemas.HEIGHT: SIDE_PX,
                schemas.SHA256: hashlib.sha256(data.getvalue()).hexdigest(),
                schemas.IMAGE: data.getvalue(),
            }
        )
        if writer.num_pending == IMAGES_PER_SHARD:
            entries.append(writer.write())
    save_manifest(folder, build_manifest(entries, SIDE_PX))


@dataclass(frozen=True)
class Extraction:
    """What the stage left, and how many images it encoded in this call."""

    manifest: FeaturesManifest
    num_encoded: int


def run(root: Path, clip: FakeClip | None = None) -> Extraction:
    clip = clip or FakeClip()
    before = clip.num_images
    manifest = extract_features(
        features_config(),
        images=root / "images",
        features=root / "features",
        work=root / "work",
        clip=clip,  # type: ignore[arg-type]
    )
    return Extraction(manifest, clip.num_images - before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    return tmp_path


def test_every_image_and_caption_has_its_vector(root: Path) -> None:
    clip = FakeClip()
    extraction = run(root, clip)
    manifest = extraction.manifest
    table = load_features(root / "features", clip_fingerprint=clip.fingerprint)
    assert (manifest.num_images, extraction.num_encoded, manifest.embed_dim) == (20, 20, DIM)
    assert table.sample_ids == [f"{number:04d}-0" for number in range(20)]
    for number in range(20):
        rows = slice(*table.caption_offsets[number : number + 2])
        assert table.captions[rows] == [f"picture {number}", "thing"][: number % 3]
        expected = [text_vector(caption).numpy() for caption in table.captions[rows]]
        np.testing.assert_allclose(
            table.text_features[rows], np.reshape(expected, (-1, DIM)), atol=1e-3
        )
    pixels = torch.from_numpy(
        np.stack([decode(root / "images", row) for row in range(20)])
    ).permute(0, 3, 1, 2)
    expected_images = FakeClip().encode_images(pixels.float() / 127.5 - 1.0).numpy()
    np.testing.assert_allclose(table.image_features, expected_images, atol=1e-3)
    assert table.image_features.dtype == np.float16


def decode(images: Path, number: int) -> NDArray[np.uint8]:
    shard, row = divmod(number, IMAGES_PER_SHARD)
    data = pq.read_table(images / f"images-{shard:05d}.parquet")[schemas.IMAGE][row].as_py()
    return np.asarray(Image.open(io.BytesIO(data)))


def test_equal_captions_are_encoded_once_a_shard(root: Path) -> None:
    clip = FakeClip()
    run(root, clip)
    assert clip.captions.count("thing") <= NUM_SHARDS


def test_the_same_input_gives_the_same_bytes(root: Path) -> None:
    run(root)
    before = {path: hash_file(path) for path in (root / "features").iterdir()}
    shutil.rmtree(root / "work")
    assert run(root).num_encoded == NUM_SHARDS * IMAGES_PER_SHARD, "DVC alone says what is fresh"
    assert before == {path: hash_file(path) for path in (root / "features").iterdir()}


@pytest.mark.parametrize("edited", [False, True])
def test_shards_of_other_code_are_not_taken_up(
    edited: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = FakeClip()
    clip.broken_from = 3 * IMAGES_PER_SHARD  # the fourth shard fails
    with pytest.raises(FeatureStoreError):
        run(root, clip)
    if edited:
        monkeypatch.setattr("clipgan.stages.features.hash_sources", lambda module: "edited")
    assert run(root).num_encoded == (4 if edited else 1) * IMAGES_PER_SHARD


def test_killed_run_redoes_at_most_one_shard(root: Path) -> None:
    """SIGKILL while the third shard is encoded: the two finished ones are kept."""
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        from pathlib import Path
        from tests.stages import test_features as here
        class Dying(here.FakeClip):
            def encode_images(self, images):
                if self.num_images >= {2 * IMAGES_PER_SHARD + 2}:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().encode_images(images)
        here.run(Path({str(root)!r}), Dying())
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (root / "features").exists()
    assert run(root).num_encoded == 2 * IMAGES_PER_SHARD
    assert len(load_features(root / "features").sample_ids) == 20
    (state,) = (root / "work").iterdir()
    assert is_finished(state)


def test_shard_cut_short_by_a_crash_is_made_again(root: Path) -> None:
    clip = FakeClip()
    clip.broken_from = 3 * IMAGES_PER_SHARD  # the fourth shard fails
    with pytest.raises(FeatureStoreError):
        run(root, clip)
    (first, *_others) = sorted((root / "work").glob("*/*.parquet"))
    first.write_bytes(first.read_bytes()[:-100])
    assert run(root).num_encoded == 2 * IMAGES_PER_SHARD


def test_nan_features_are_refused_and_named(root: Path) -> None:
    clip = FakeClip()
    clip.broken_from = 12
    with pytest.raises(FeatureStoreError, match=r"sample 0012-0.*nan"):
        run(root, clip)
    assert not (root / "features").exists()


def test_changed_images_or_clip_are_encoded_again(root: Path, tmp_path: Path) -> None:
    first = run(root)
    other = run(root, FakeClip(weights="b" * 64))
    assert other.num_encoded == 20
    assert other.manifest.fingerprint != first.manifest.fingerprint


def test_features_of_another_clip_are_refused_naming_both(root: Path) -> None:
    run(root)
    wanted = FakeClip(weights="b" * 64).fingerprint
    with pytest.raises(FeatureStoreError, match=r"weights_sha256 = 'aaaa.*uses 'bbbb") as caught:
        load_features(root / "features", clip_fingerprint=wanted)
    assert "\n" not in str(caught.value)


def test_features_of_other_images_are_refused_naming_both(root: Path, tmp_path: Path) -> None:
    run(root)
    write_images(tmp_path / "others", seed=1)
    found = load_manifest(root / "images").fingerprint
    wanted = load_manifest(tmp_path / "others").fingerprint
    with pytest.raises(FeatureStoreError, match=f"{found[:12]}.*{wanted[:12]}"):
        load_features(root / "features", images_fingerprint=wanted)


def test_deleted_feature_shard_is_named(root: Path) -> None:
    run(root)
    (root / "features" / "features-00002.parquet").unlink()
    with pytest.raises(FeatureStoreError, match=r"features-00002.parquet: the shard is missing"):
        load_features(root / "features")


def test_truncated_feature_shard_is_named(root: Path) -> None:
    run(root)
    path = root / "features" / "features-00001.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FeatureStoreError, match=r"features-00001.parquet: 200 bytes"):
        load_features(root / "features")


def test_flipped_bit_is_found(root: Path) -> None:
    run(root)
    path = root / "features" / "features-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(FeatureStoreError, match=r"features-00001.parquet: damaged"):
        load_features(root / "features")


def test_exchanged_shard_is_found(root: Path) -> None:
    """A shard of the same size made with another CLIP, put under the right name."""
    run(root)
    kept = (root / "features" / "features-00001.parquet").read_bytes()
    run(root, FakeClip(weights="b" * 64))
    path = root / "features" / "features-00001.parquet"
    path.write_bytes(kept)
    manifest = json.loads((root / "features" / feature_store.MANIFEST).read_text())
    entry = manifest["shards"][1]
    entry["num_bytes"], entry["sha256"] = len(kept), hashlib.sha256(kept).hexdigest()
    (root / "features" / feature_store.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FeatureStoreError, match=r"features-00001.parquet: features of"):
        load_features(root / "features")


def test_missing_features_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeatureStoreError, match=r"manifest.json: no such file"):
        load_features(tmp_path / "features")


def test_deleted_image_shard_is_refused(root: Path) -> None:
    (root / "images" / "images-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"images-00001.parquet"):
        run(root)


def test_unknown_model_names_close_ones(root: Path) -> None:
    config = params_with(
        {"features.clip_model": "ViT-B-33", "features.clip_weights": "openai"}
    ).features
    with pytest.raises(ClipError, match=r"'ViT-B-33' is unknown.*ViT-B-32"):
        extract_features(
            config, images=root / "images", features=root / "features", work=root / "work"
        )


def test_full_disk_leaves_nothing_half_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(FeatureStoreError, match=r"No space left.*finished shards are kept"):
            run(root)
    assert not (root / "features").exists()
    assert 0 < run(root).num_encoded < 20
