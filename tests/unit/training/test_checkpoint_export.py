"""A checkpoint alone is enough to start another training from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clipgan.errors import CheckpointError
from clipgan.families.lafite.training.start import build_lafite_networks
from clipgan.models.bundle import load_bundle
from clipgan.models.modality_gap import ModalityMeans
from clipgan.training.checkpoint import CheckpointStore, is_checkpoint
from clipgan.training.checkpoint_export import build_metadata, export_checkpoint
from clipgan.training.fine_tuning import Networks
from tests.params import params_with
from tests.unit.training.test_fine_tuning import CLIP, SMALL, TEXT_DIM

MEANS = ModalityMeans(image=torch.arange(12.0), text=-torch.arange(12.0))


def _build() -> Networks:
    networks = build_lafite_networks(
        params_with({**SMALL, "train.resolution_px": 8}).train, TEXT_DIM
    )
    with torch.no_grad():
        networks.generator_ema.constant.add_(1.0)
    return networks


def _save(folder: Path, networks: Networks) -> Path:
    metadata = build_metadata(
        networks, family="lafite", clip=CLIP, initial_images_seen=100, training="t", means=MEANS
    )
    store = CheckpointStore(folder, keep=2, fingerprint="t", metadata=metadata)
    state = {name: dict(network.state_dict()) for name, network in vars(networks).items()}
    return store.save(24, {"seed": 0}, state)


def test_bundle_holds_the_average_the_discriminator_and_the_means(tmp_path: Path) -> None:
    networks = _build()
    checkpoint = _save(tmp_path / "checkpoints", networks)
    assert is_checkpoint(checkpoint)
    info = export_checkpoint(checkpoint, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.info == info
    assert (info.images_seen, info.clip, info.resolution_px) == (124, CLIP, 8)
    assert torch.equal(bundle.generator.constant, networks.generator_ema.constant)
    assert bundle.discriminator is not None
    assert torch.equal(bundle.discriminator.trunk.weight, networks.discriminator.trunk.weight)
    assert bundle.means is not None
    assert torch.equal(bundle.means.text, MEANS.text)


def test_damage_is_named(tmp_path: Path) -> None:
    checkpoint = _save(tmp_path / "checkpoints", _build())
    weights = checkpoint / "generator_ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"damaged \(generator_ema.safetensors: its SHA-256"):
        export_checkpoint(checkpoint, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("generator", {"resolution_px": 8}, "no networks of this program version"),
        ("family", "stylegan9", "no networks of this program version .*stylegan9"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    checkpoint = _save(tmp_path / "checkpoints", _build())
    manifest = json.loads((checkpoint / "checkpoint.json").read_text())
    manifest["subject"][key] = value
    (checkpoint / "checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=message):
        export_checkpoint(checkpoint, tmp_path / "bundle")


def test_a_manifest_without_its_keys_is_damage(tmp_path: Path) -> None:
    checkpoint = _save(tmp_path / "checkpoints", _build())
    (checkpoint / "checkpoint.json").write_text('{"format_version": 2}')
    with pytest.raises(CheckpointError, match=r"checkpoint.json: has no files"):
        export_checkpoint(checkpoint, tmp_path / "bundle")
