"""Every form of an address, wherever a model is named: one resolver, one error text."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clipgan.cli.generate import load_model
from clipgan.errors import CheckpointError, RegistryError
from clipgan.models.addresses import ADDRESS_FORMS
from clipgan.models.built_in import list_built_in
from clipgan.models.bundle import BundleInfo, load_bundle, load_bundle_info
from clipgan.stages.model_addresses import opened_bundle, opened_start
from clipgan.stages.model_sources import ModelLoader
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.checkpoint_export import build_metadata
from clipgan.training.fine_tuning import Networks, resolve_initial_folder
from clipgan.workspace import Workspace
from tests.metric_values import value_of
from tests.mlflow_stores import register_values, save_tiny_bundle
from tests.params import params_with
from tests.stages import ingest_runs

LOADER = "clipgan.generation.sampler:load_sampler"
CLIP = load_bundle_info(list_built_in().get("built-in") or Path()).clip

Resolve = Callable[[str, str], BundleInfo]


def by_the_resolver(address: str, uri: str) -> BundleInfo:
    with opened_bundle(address, tracking_uri=uri) as (bundle, _):
        return load_bundle_info(bundle)


def by_generate(address: str, uri: str) -> BundleInfo:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    return load_model(address, "cpu")[0].info


def by_evaluate_and_compare(address: str, uri: str) -> BundleInfo:
    if not Path("images").exists():
        ingest_runs.run(Path(), ingest_runs.make_config(ingest_runs.fill_folder(Path("own"), 2)))
    loader = ModelLoader(
        params_with({"evaluate.device": "cpu"}),
        images=Path("images"),
        features=Path("features"),
        tracking_uri=uri,
    )
    return loader.load(address).bundle.info


def by_initial_weights(address: str, uri: str) -> BundleInfo:
    with opened_start(address, work=Path("work"), tracking_uri=uri, family="lafite") as bundle:
        assert bundle is not None
        return load_bundle_info(bundle)


CALLERS = (by_the_resolver, by_generate, by_evaluate_and_compare, by_initial_weights)


@pytest.fixture
def forms(
    project: Workspace, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """An address of each form; all but the built-in ones lead to a generator of 8 px."""
    monkeypatch.chdir(project.root)
    bundle = save_tiny_bundle(tmp_path / "bundle", text_dim=256, clip=CLIP)
    config = params_with({"register.model_name": "tiny", "register.gate_metric": "fd"})
    entries = {"fd": value_of("fd", 1.0)}
    package = GeneratorPackage(bundle, LOADER)
    made = register_values(config.register_model, package, tracking_uri, entries)
    return {
        "bundle": str(bundle),
        "checkpoint": str(save_checkpoint(bundle, tmp_path / "checkpoints")),
        "alias": "models:/tiny@challenger",
        "version": "models:/tiny/1",
        "run": f"runs:/{made.run_id}",
    }


def save_checkpoint(bundle: Path, folder: Path) -> Path:
    """Of a training that ended with the generator of ``bundle``."""
    trained = load_bundle(bundle).generator
    networks = build_networks(bundle)
    networks.generator_ema.load_state_dict(trained.state_dict())
    metadata = build_metadata(
        networks, family="lafite", clip=CLIP, initial_images_seen=0, training="t", means=None
    )
    store = CheckpointStore(folder, keep=2, fingerprint="t", metadata=metadata)
    state = {name: dict(network.state_dict()) for name, network in vars(networks).items()}
    return store.save(32, {}, state)


def build_networks(bundle: Path) -> Networks:
    from clipgan.families.lafite.networks.discriminator import LafiteDiscriminator

    generator = load_bundle(bundle).generator
    discriminator = LafiteDiscriminator(
        resolution_px=8,
        text_dim=256,
        channel_base=64,
        channel_max=8,
        minibatch_std_group=2,
        semantic_logit="per_sample",
        normalize_semantic=False,
    )
    return Networks(generator, discriminator, load_bundle(bundle).generator)


@pytest.mark.parametrize("resolve", CALLERS)
def test_every_caller_takes_every_form(
    resolve: Resolve, forms: dict[str, str], tracking_uri: str
) -> None:
    for name, address in forms.items():
        assert resolve(address, tracking_uri).resolution_px == 8, name
    for name in list_built_in():
        found = resolve(name, tracking_uri)
        assert found.family == ("galip" if "galip" in name else "lafite")


@pytest.mark.parametrize("resolve", CALLERS)
def test_every_caller_lists_the_forms_for_what_is_none(
    resolve: Resolve, project: Workspace, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    for address in ("nowhere", "built-in-gan", "model:/tiny/1"):
        with pytest.raises(CheckpointError) as caught:
            resolve(address, tracking_uri)
        assert str(caught.value).startswith(f"{address}: no generator bundle or checkpoint there")
        assert ADDRESS_FORMS in str(caught.value)
    with pytest.raises(RegistryError, match="runs:/nothing: no registered version"):
        resolve("runs:/nothing", tracking_uri)


def test_what_was_fetched_is_gone_afterwards(forms: dict[str, str], tracking_uri: str) -> None:
    for name in ("checkpoint", "alias", "version", "run"):
        with opened_bundle(forms[name], tracking_uri=tracking_uri) as (bundle, _):
            assert bundle.is_dir()
        assert not bundle.exists()
        with opened_start(
            forms[name], work=Path("work"), tracking_uri=tracking_uri, family="lafite"
        ) as start:
            assert start is not None
            assert start.is_dir()
        assert not any(Path("work").iterdir())


def test_built_in_is_the_trained_familys_generator() -> None:
    for family, name in zip(("lafite", "galip"), list_built_in(), strict=True):
        with opened_start("built-in", work=Path("work"), tracking_uri="", family=family) as start:
            assert start == list_built_in().get(name)
    with opened_start("none", work=Path("work"), tracking_uri="", family="lafite") as start:
        assert start is None
    assert resolve_initial_folder("built-in-galip", "galip") == list_built_in().get(
        "built-in-galip"
    )
