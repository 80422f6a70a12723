"""Generator bundles: what is saved comes back, and nothing damaged or foreign is taken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from clipgan.artifacts import hash_file
from clipgan.errors import CheckpointError
from clipgan.models import bundle as bundle_module
from clipgan.models.bundle import (
    BundleInfo,
    check_bundle_fits,
    load_bundle,
    load_bundle_info,
    save_bundle,
)
from clipgan.models.modality_gap import ModalityMeans
from tests.unit.models.test_lafite import build_discriminator, build_generator, draw_inputs

INFO = BundleInfo(
    family="lafite",
    clip={"model": "small", "weights_sha256": "abc"},
    resolution_px=16,
    images_seen=4096,
    provenance={"data": "f00", "seed": 0},
)


def edit_info(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    tree = json.loads((folder / "bundle.json").read_text())
    change(tree)
    (folder / "bundle.json").write_text(json.dumps(tree))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = folder / "generator.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    edit_info(folder, lambda tree: tree["files"].update({path.name: hash_file(path)}))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_bundle(tmp_path / "b", build_generator(), build_discriminator(), INFO, dtype="fp32")
    return tmp_path / "b"


def test_fp32_comes_back_bit_for_bit(saved: Path) -> None:
    generator = build_generator()
    loaded = load_bundle(saved)
    latents, texts = draw_inputs()
    with torch.no_grad():
        assert torch.equal(loaded.generator(latents, texts), generator(latents, texts))
        images = torch.randn(4, 3, 16, 16)
        assert loaded.discriminator is not None
        wanted = build_discriminator()(images)
        assert torch.equal(loaded.discriminator(images).realness, wanted.realness)
    assert loaded.info.images_seen == 4096
    assert loaded.info.provenance == INFO.provenance
    assert loaded.info.clip == INFO.clip
    assert not loaded.generator.training


def test_loading_leaves_the_random_state_alone_and_gives_trainable_weights(saved: Path) -> None:
    state = torch.get_rng_state()
    loaded = load_bundle(saved)
    assert torch.equal(torch.get_rng_state(), state)
    latents, texts = draw_inputs()
    assert loaded.discriminator is not None
    output = loaded.discriminator(loaded.generator(latents, texts))
    loaded.discriminator.compute_logits(output, texts).mean().backward()
    for module in (loaded.generator, loaded.discriminator):
        assert all(p.grad is not None for p in module.parameters())


def test_latent_average_is_saved(tmp_path: Path) -> None:
    generator = build_generator()
    generator.latent_average.fill_(0.25)
    save_bundle(tmp_path, generator, None, INFO, dtype="fp16")
    assert torch.equal(load_bundle(tmp_path).generator.latent_average, torch.full((7,), 0.25))


def test_fp16_halves_the_files_and_loads_as_fp32(saved: Path, tmp_path: Path) -> None:
    save_bundle(tmp_path / "half", build_generator(), None, INFO, dtype="fp16")
    loaded = load_bundle(tmp_path / "half")
    assert loaded.discriminator is None
    assert all(p.dtype == torch.float32 for p in loaded.generator.parameters())
    name = "generator.safetensors"
    size, full = (tmp_path / "half" / name).stat().st_size, (saved / name).stat().st_size
    assert size < 0.6 * full
    latents, texts = draw_inputs()
    with torch.no_grad():
        difference = loaded.generator(latents, texts) - build_generator()(latents, texts)
    assert difference.abs().max() < 0.02


def test_discriminator_can_be_left_out(saved: Path) -> None:
    assert load_bundle(saved, with_discriminator=False).discriminator is None


def test_modality_means_are_kept_and_centre_what_the_generator_is_shown(tmp_path: Path) -> None:
    means = ModalityMeans(image=torch.randn(6), text=torch.randn(6))
    save_bundle(tmp_path, build_generator(), None, INFO, dtype="fp16", means=means)
    bundle = load_bundle(tmp_path)
    assert bundle.means is not None
    assert torch.equal(bundle.means.image, means.image)
    assert torch.equal(bundle.means.text, means.text)
    features = F.normalize(torch.randn(5, 6), dim=1)
    assert torch.equal(bundle.prepare_texts(features), means.centre_texts(features))
    assert torch.equal(bundle.prepare_images(features), means.centre_images(features))


def test_a_bundle_without_means_takes_features_as_they_are(tmp_path: Path) -> None:
    means = ModalityMeans(image=torch.randn(6), text=torch.randn(6))
    save_bundle(tmp_path, build_generator(), None, INFO, dtype="fp16", means=means)
    save_bundle(tmp_path, build_generator(), None, INFO, dtype="fp16")
    bundle = load_bundle(tmp_path)
    features = torch.randn(5, 6)
    assert bundle.prepare_texts(features) is features
    assert not (tmp_path / "modality_means.safetensors").exists()


def test_missing_or_foreign_means_are_refused(tmp_path: Path) -> None:
    means = ModalityMeans(image=torch.randn(5), text=torch.randn(5))
    save_bundle(tmp_path, build_generator(), None, INFO, dtype="fp16", means=means)
    with pytest.raises(CheckpointError, match=r"weight image is \(5,\), .* asks for \(6,\)"):
        load_bundle(tmp_path)
    (tmp_path / "modality_means.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"modality_means\.safetensors: no such file"):
        load_bundle(tmp_path)


def test_saving_over_a_bundle_leaves_other_files(saved: Path) -> None:
    (saved / "mlflow.json").write_text("{}")
    later = dataclasses.replace(INFO, images_seen=9000)
    save_bundle(saved, build_generator(), None, later, dtype="fp16")
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["bundle.json", "generator.safetensors", "mlflow.json"]
    assert load_bundle(saved).info.images_seen == 9000


@pytest.mark.parametrize("failing", ["save_file", "write_json"])
def test_disk_full_leaves_no_half_bundle(
    saved: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module, failing, full)
    with pytest.raises(OSError, match="No space"):
        save_bundle(saved, build_generator(), None, INFO, dtype="fp16")
    with pytest.raises(CheckpointError, match=r"no bundle\.json, so no complete"):
        load_bundle(saved)
    assert not list(saved.glob(".*partial"))


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (float("nan"), "fp32", "constant is not finite: not saved"),
        (1e6, "fp16", "constant is too large for fp16: save in fp32"),
    ],
)
def test_unusable_weights_are_not_saved(
    saved: Path, value: float, dtype: Any, message: str
) -> None:
    generator = build_generator()
    generator.constant.data[0, 0, 0] = value
    with pytest.raises(CheckpointError, match=message):
        save_bundle(saved, generator, None, INFO, dtype=dtype)
    assert load_bundle(saved).info.images_seen == 4096, "the bundle that was there is untouched"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: (b / "bundle.json").unlink(), r"no bundle\.json, so no complete generator"),
        (lambda b: _cut(b / "bundle.json"), r"bundle\.json: damaged"),
        (lambda b: (b / "generator.safetensors").unlink(), r"generator\.safetensors: no such file"),
        (lambda b: (b / "discriminator.safetensors").unlink(), r"discriminator\..*: no such file"),
        (lambda b: _cut(b / "generator.safetensors"), "truncated or no safetensors file"),
        (lambda b: _flip(b / "generator.safetensors"), r"SHA-256 .* bundle\.json says"),
        (lambda b: edit_info(b, lambda t: t.update(format_version=9)), "format_version = 9"),
        (lambda b: edit_info(b, lambda t: t.update(family="dcgan")), "'dcgan' is unknown; known"),
        (lambda b: edit_info(b, lambda t: t.pop("clip")), "clip = None is no dict"),
        (lambda b: edit_info(b, lambda t: t.update(colour=1)), "unknown key colour"),
        (lambda b: edit_info(b, lambda t: t.update(resolution_px=32)), "resolution_px = 32, but"),
        (lambda b: edit_info(b, lambda t: t["files"].clear()), "no hash of generator"),
        (
            lambda b: edit_info(b, lambda t: t["architecture"]["generator"].pop("text_dim")),
            "no lafite generator can be built",
        ),
        (
            lambda b: edit_info(b, lambda t: t["architecture"]["generator"].update(style_dim=9)),
            r"latent_average is \(7,\), bundle\.json asks for \(9,\)",
        ),
        (lambda b: edit_weights(b, lambda w: w.pop("constant")), r"constant .* is missing"),
        (
            lambda b: edit_weights(b, lambda w: w.update(extra=torch.zeros(1))),
            "extra .* belongs to another network",
        ),
    ],
)
def test_damaged_bundle(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_bundle(saved)
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no bundle\.json"):
        load_bundle_info(tmp_path / "nowhere")


def test_resolution_of_the_description_must_be_the_generators(tmp_path: Path) -> None:
    other = dataclasses.replace(INFO, resolution_px=64)
    with pytest.raises(CheckpointError, match="resolution_px = 64 does not fit"):
        save_bundle(tmp_path, build_generator(), None, other, dtype="fp16")


def test_bundle_for_another_clip_is_refused() -> None:
    check_bundle_fits(INFO, clip=INFO.clip)
    with pytest.raises(CheckpointError, match="CLIP weights_sha256 = abc, here it is xyz"):
        check_bundle_fits(INFO, clip={**INFO.clip, "weights_sha256": "xyz"})
    with pytest.raises(CheckpointError, match="CLIP model = small, here it is None"):
        check_bundle_fits(INFO, clip={"weights_sha256": "abc"})
