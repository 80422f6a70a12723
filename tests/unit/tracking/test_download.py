"""Registered generators come back as the files they were."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from clipgan.errors import RegistryError
from clipgan.models.bundle import GENERATOR_FILE, load_bundle
from clipgan.tracking.download import download_generator
from clipgan.tracking.packaged_model import GeneratorPackage
from tests.metric_values import value_of
from tests.mlflow_stores import register_values, save_tiny_bundle
from tests.params import params_with
from tests.unit.tracking.tiny_sampler import LOADER

CONFIG = params_with(
    {
        "register.model_name": "tiny",
        "register.gate_metric": "fd",
        "register.first_version": "always",
    }
).register_model


def register(tracking_uri: str, bundle: Path, clip_weights: Path | None = None) -> None:
    package = GeneratorPackage(bundle, LOADER, clip_weights)
    register_values(CONFIG, package, tracking_uri, {"fd": value_of("fd", 1.0)})


@pytest.mark.parametrize("address", ["models:/tiny@champion", "models:/tiny/1"])
def test_bundle_and_clip_weights_come_back(tracking_uri: str, tmp_path: Path, address: str) -> None:
    bundle = save_tiny_bundle(tmp_path / "bundle")
    weights = tmp_path / "clip-weights.safetensors"
    weights.write_bytes(b"weights")
    register(tracking_uri, bundle, weights)
    found, clip = download_generator(address, tracking_uri=tracking_uri, target=tmp_path / "here")
    assert (found / GENERATOR_FILE).read_bytes() == (bundle / GENERATOR_FILE).read_bytes()
    assert load_bundle(found).info.images_seen == 32
    assert clip is not None
    assert clip.read_bytes() == b"weights"
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_a_built_in_clip_is_not_copied(tracking_uri: str, tmp_path: Path) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "bundle"))
    address = "models:/tiny@challenger"
    _, clip = download_generator(address, tracking_uri=tracking_uri, target=tmp_path / "here")
    assert clip is None


@pytest.mark.parametrize(
    "address", ["models:/tiny@winner", "models:/tiny/7", "models:/other@champion", "models:/tiny"]
)
def test_what_is_not_registered_is_named(tracking_uri: str, tmp_path: Path, address: str) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "bundle"))
    with pytest.raises(RegistryError, match=f"{address} cannot be loaded") as caught:
        download_generator(address, tracking_uri=tracking_uri, target=tmp_path / "here")
    assert "\n" not in str(caught.value)


def test_lost_artifacts_are_named(tracking_uri: str, tmp_path: Path) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "bundle"))
    shutil.rmtree(tmp_path / "mlruns" / "artifacts")
    with pytest.raises(RegistryError, match="tiny@champion"):
        download_generator(
            "models:/tiny@champion", tracking_uri=tracking_uri, target=tmp_path / "here"
        )
