"""Official LAFITE snapshots become generators that give the official numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.config import load_profile
from clipgan.errors import ImportWeightsError
from clipgan.families.lafite.importer.weights import ImportedNetworks, load_lafite_weights
from clipgan.interop.imported_bundle import save_imported_bundle
from clipgan.models.bundle import BundleInfo, load_bundle
from tests.numerics.lafite_reference import TAGS, assert_matches, facts, inputs
from tests.unit.interop import official_pickle as official

ROOT = Path(__file__).parents[3]
CLIP = {"model": "ViT-B-32-quickgelu", "weights_sha256": "0" * 64, "precision": "fp32"}


def write_reference(tag: str, folder: Path, protocol: int = 4) -> Path:
    shapes = facts()["state_dict_shapes"][tag]
    tree = official.build_snapshot(facts()["config"][tag], shapes["G"], shapes["D"])
    path = folder / "network-snapshot-004032.pkl"
    path.write_bytes(official.dump(tree, protocol))
    return path


def tiny_snapshot(*, discriminator: bool = True, **changed: Any) -> dict[str, Any]:
    generator_shapes, discriminator_shapes = official.tiny_shapes()
    return official.build_snapshot(
        {**official.TINY, **changed},
        generator_shapes,
        discriminator_shapes if discriminator else None,
    )


def save(networks: ImportedNetworks, folder: Path, source: Path) -> BundleInfo:
    return save_imported_bundle(
        folder,
        "lafite",
        networks.generator,
        networks.discriminator,
        source=source,
        images_seen=networks.images_seen,
        clip_fingerprint=CLIP,
        clip_weights="openai",
        provenance={},
    )


def write_tiny(folder: Path, tree: object, name: str = "tiny.pkl") -> Path:
    path = folder / name
    path.write_bytes(official.dump(tree))
    return path


@pytest.mark.parametrize(("tag", "protocol"), [(TAGS[0], 4), (TAGS[1], 3)])
@torch.no_grad()
def test_imported_networks_give_the_official_output(
    tag: str, protocol: int, tmp_path: Path
) -> None:
    source = write_reference(tag, tmp_path, protocol)
    networks = load_lafite_weights(source)
    assert networks.images_seen == 4_032_000
    info = save(networks, tmp_path / "out", source)
    assert info.provenance["imported_from"] == source.name
    bundle = load_bundle(tmp_path / "out")
    given = inputs(tag)
    assert_matches(bundle.generator(given["latents"], given["text_features"]), f"{tag}.img")
    assert bundle.discriminator is not None
    output = bundle.discriminator(given["images"])
    logits = bundle.discriminator.compute_logits(output, given["text_features"])
    assert_matches(logits[:, None], f"{tag}.D.real.logits_official")
    assert_matches(output.semantic_features, f"{tag}.D.real.fts")


@torch.no_grad()
def test_second_text_structure_gives_the_official_output(tmp_path: Path) -> None:
    config = {**facts()["config"]["r32"], "change": 16}
    shapes = facts()["state_dict_shapes"]["r32_change16"]["G"]
    source = write_tiny(tmp_path, official.build_snapshot(config, shapes, None))
    generator = load_lafite_weights(source).generator
    assert generator.architecture["text_concat_max_px"] == 16
    images = generator(inputs("r32")["latents"], inputs("r32")["text_features"])
    assert_matches(images[:, :, ::2, ::2], "r32.change16.img")


def test_architecture_names_every_official_form(tmp_path: Path) -> None:
    networks = load_lafite_weights(write_tiny(tmp_path, tiny_snapshot()))
    assert networks.generator.architecture == {
        "resolution_px": 8,
        "text_dim": 4,
        "text_gain": 1.0,
        "text_learning_rate_multiplier": 0.01,
        "style_input": "latent",
        "text_max_px": 1024,
        "text_concat_max_px": 256,
        "latent_dim": 3,
        "style_dim": 5,
        "text_hidden_dim": official.TINY_HIDDEN,
        "mapping_layers": 1,
        "channel_base": 16,
        "channel_max": 2,
    }
    assert networks.discriminator is not None
    assert networks.discriminator.architecture["semantic_logit"] == "batch_sum"
    assert networks.discriminator.architecture["normalize_semantic"] is False
    assert not networks.generator.training
    assert networks.images_seen == 0, "the name of the file does not say"


def test_official_profile_trains_the_same_forms(tmp_path: Path) -> None:
    networks = load_lafite_weights(write_tiny(tmp_path, tiny_snapshot()))
    train = load_profile(ROOT / "profiles" / "lafite-official.yaml").train
    sizes = {"latent_dim", "style_dim", "text_hidden_dim", "mapping_layers"}
    sizes |= {"channel_base", "channel_max", "kind", "projected"}
    assert networks.discriminator is not None
    assert train.lafite.discriminator.kind == "stylegan2"
    for module, section in (
        (networks.generator, train.lafite.generator),
        (networks.discriminator, train.lafite.discriminator),
    ):
        forms = set(section.model_dump()) - sizes
        assert len(forms) >= 3
        for key in forms:
            assert module.architecture[key] == getattr(section, key), key


def test_module_source_is_never_executed(tmp_path: Path) -> None:
    load_lafite_weights(write_tiny(tmp_path, tiny_snapshot()))
    assert official.CANARY not in sys.modules
    assert "torch_utils" not in sys.modules


def test_random_state_is_left_alone(tmp_path: Path) -> None:
    path = write_tiny(tmp_path, tiny_snapshot())
    before = torch.get_rng_state()
    load_lafite_weights(path)
    assert torch.equal(before, torch.get_rng_state())


def test_snapshot_without_discriminator_or_clamp(tmp_path: Path) -> None:
    tree = tiny_snapshot(discriminator=False)
    tree["G_ema"].state["_init_kwargs"]["synthesis_kwargs"]["conv_clamp"] = None
    networks = load_lafite_weights(write_tiny(tmp_path, tree))
    assert networks.discriminator is None
    assert not networks.has_clamp


def test_released_files_may_lack_options(tmp_path: Path) -> None:
    tree = tiny_snapshot()
    del tree["G_ema"].state["_init_kwargs"]["synthesis_kwargs"]["change"]
    del tree["D"].state["_init_kwargs"]["use_norm"]
    networks = load_lafite_weights(write_tiny(tmp_path, tree))
    assert networks.generator.architecture["text_concat_max_px"] == 256


def test_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    first = write_tiny(tmp_path, tiny_snapshot(), "first.pkl")
    second = write_tiny(tmp_path, tiny_snapshot(discriminator=False), "second.pkl")
    out = tmp_path / "out"

    save(load_lafite_weights(first), out, first)
    save(load_lafite_weights(first), out, first)  # the same again is no mistake
    with pytest.raises(ImportWeightsError, match="holds another generator"):
        save(load_lafite_weights(second), out, second)
    assert load_bundle(out).discriminator is not None


def break_weight(tree: dict[str, Any]) -> None:
    parameters = tree["G_ema"].state["_modules"]["mapping"].state["_modules"]["fc0"].state
    parameters["_parameters"]["weight"] = torch.nn.Parameter(torch.zeros(6, 3))


def remove_text(tree: dict[str, Any]) -> None:
    layer = tree["G_ema"].state["_modules"]["synthesis"].state["_modules"]["b4"]
    del layer.state["_modules"]["conv1"].state["_modules"]["pre_0"]


def option(network: str, name: str, value: object) -> Any:
    def change(tree: dict[str, Any]) -> None:
        tree[network].state["_init_kwargs"][name] = value

    return change


def layer_attribute(name: str, value: object) -> Any:
    def change(tree: dict[str, Any]) -> None:
        synthesis = tree["G_ema"].state["_modules"]["synthesis"].state["_modules"]
        synthesis["b8"].state["_modules"]["conv0"].state[name] = value

    return change


def shrink_discriminator(tree: dict[str, Any]) -> None:
    modules = tree["D"].state["_modules"]
    modules["b16"] = modules.pop("b8")


def blur_filter(tree: dict[str, Any]) -> None:
    synthesis = tree["G_ema"].state["_modules"]["synthesis"].state["_modules"]
    layer = synthesis["b8"].state["_modules"]["conv0"]
    layer.state["_buffers"]["resample_filter"] = torch.full((4, 4), 1 / 16)


def slow_layer(tree: dict[str, Any]) -> None:
    fc = tree["G_ema"].state["_modules"]["mapping"].state["_modules"]["fc0"]
    fc.state["bias_gain"] = 0.02


def share_layer(tree: dict[str, Any]) -> None:
    modules = tree["G_ema"].state["_modules"]["synthesis"].state["_modules"]
    modules["b16"] = modules["b8"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_weight, r"mapping.fc0.bias is \(5,\), its options ask for \(6,\)"),
        (remove_text, r"synthesis.b4.conv1.pre_0.weight is missing; plain StyleGAN2"),
        (option("G_ema", "class_embedding", 7), "option class_embedding is unknown"),
        (option("G_ema", "c_dim", 10), "option c_dim is not 0"),
        (option("D", "use_fts", False), "option use_fts is not True"),
        (option("D", "channel_max", 2**40), "option channel_max is out of range"),
        (option("D", "channel_base", 8), "weight .* its options ask for"),
        (layer_attribute("activation", "relu"), "activation = relu is not LAFITE's"),
        (layer_attribute("conv_clamp", 64), "conv_clamp is not 256"),
        (slow_layer, "is not 0.01 as in LAFITE"),
        (blur_filter, r"resample_filter is not \[1, 3, 3, 1\]"),
        (shrink_discriminator, "discriminator is for 16 px, its generator for 8 px"),
        (share_layer, "one layer in two places"),
    ],
)
def test_networks_that_are_not_lafites_are_refused(
    change: Any, message: str, tmp_path: Path
) -> None:
    tree = tiny_snapshot()
    change(tree)
    path = write_tiny(tmp_path, tree)
    with pytest.raises(ImportWeightsError, match=message) as caught:
        load_lafite_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
