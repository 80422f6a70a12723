"""Official GALIP files: the layouts people have, and files that are something else."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipgan.errors import ImportWeightsError
from clipgan.families.galip.importer.weights import (
    TOWER_PREFIX,
    build_official_galip,
    read_galip_file,
)
from clipgan.families.galip.networks.discriminator import GalipDiscriminator
from clipgan.families.galip.networks.generator import GalipGenerator
from clipgan.families.galip.networks.vit_features import VitTower
from tests.galip_parts import EMBED_DIM, GRID, WIDTH, build_tower

DEPTH = 9
INVERSE_GENERATOR = (
    (r"^latent_projection", "fc_code"),
    (r"^prompt_predictor", "mapping.fc_prompt"),
    (r"^bridge_projection", "mapping.conv_fuse"),
    (r"^merge", "mapping.conv"),
    (r"^to_rgb", "to_rgb.1"),
    (r"^bridge_blocks\.(\d)\.conv_in", r"mapping.FBlocks.\1.conv1"),
    (r"^bridge_blocks\.(\d)\.conv_out", r"mapping.FBlocks.\1.conv2"),
    (r"^bridge_blocks", "mapping.FBlocks"),
    (r"^blocks\.(\d)\.conv_in", r"GBlocks.\1.c1"),
    (r"^blocks\.(\d)\.conv_out", r"GBlocks.\1.c2"),
    (r"^blocks\.(\d)\.shortcut", r"GBlocks.\1.c_sc"),
    (r"^blocks", "GBlocks"),
    (r"fuse_in", "fuse1"),
    (r"fuse_out", "fuse2"),
    (r"\.first", ".affine0"),
    (r"\.second", ".affine1"),
    (r"scale\.0", "fc_gamma.linear1"),
    (r"scale\.2", "fc_gamma.linear2"),
    (r"shift\.0", "fc_beta.linear1"),
    (r"shift\.2", "fc_beta.linear2"),
)
INVERSE_DISCRIMINATOR = (
    (r"^blocks", "netD.DBlocks"),
    (r"^output\.shortcut", "netD.main.conv_s"),
    (r"^output", "netD.main"),
    (r"^head\.conv_in", "netC.joint_conv.0"),
    (r"^head\.conv_out", "netC.joint_conv.2"),
    (r"residual\.", "conv_r."),
    (r"residual_gain", "gamma"),
    (r"skip_gain", "beta"),
)


def rename(state: dict[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)  # noqa: PLW2901
        renamed[name] = tensor.clone()
    return renamed


@pytest.fixture(scope="module")
def tower() -> VitTower:
    return build_tower(depth=DEPTH)


def networks(tower: VitTower) -> tuple[GalipGenerator, GalipDiscriminator]:
    """What the official classes would be over the tiny tower, with every weight counting."""
    torch.manual_seed(3)
    generator = GalipGenerator(
        resolution_px=224,
        text_dim=EMBED_DIM,
        latent_dim=6,
        base_channels=1,
        bridge_channels=4,
        bridge_blocks=2,
        prompt_tokens=8,
        first_prompted_block=1,
        bridge_weight=1.0,
        vit_weight=0.1,
        text_gain=1.0,
        text_norm="raw",
        vit_width=WIDTH,
        vit_grid_side=GRID,
    )
    discriminator = GalipDiscriminator(
        text_dim=EMBED_DIM,
        tapped_blocks=[1, 4, 8],
        channels=10,
        head_channels=6,
        text_gain=1.0,
        clip_input="official",
        vit_width=WIDTH,
        vit_grid_side=GRID,
    )
    with torch.no_grad():
        for parameter in [*generator.parameters(), *discriminator.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return generator.attach_tower(tower), discriminator


def official_tree(tower: VitTower) -> dict[str, Any]:
    generator, discriminator = networks(tower)
    frozen = {
        TOWER_PREFIX + name: tensor.half()
        for name, tensor in tower.visual.state_dict().items()
        if not name.startswith("ln_post") and name != "proj"
    }
    both = rename(dict(discriminator.state_dict()), INVERSE_DISCRIMINATOR)
    net_d = {k.removeprefix("netD."): v for k, v in both.items() if k.startswith("netD.")}
    net_c = {k.removeprefix("netC."): v for k, v in both.items() if k.startswith("netC.")}
    for index in range(2):
        net_d[f"DBlocks.{index}.conv_s.weight"] = torch.randn(WIDTH, WIDTH, 1, 1)
        net_d[f"DBlocks.{index}.conv_s.bias"] = torch.randn(WIDTH)
    net_g = rename(dict(generator.state_dict()), INVERSE_GENERATOR) | frozen
    optimizers = {"optimizer_G": {"state": {}, "param_groups": [{"lr": 1e-4}]}}
    return {
        "model": {"netG": net_g, "netD": net_d, "netC": net_c},
        "optimizers": optimizers,
        "epoch": 1480,
    }


def save(tmp_path: Path, tree: Any) -> Path:
    path = tmp_path / "state.pth"
    torch.save(tree, path)
    return path


def add_prefix(tree: dict[str, Any]) -> dict[str, Any]:
    prefixed = {
        net: {f"module.{name}": tensor for name, tensor in state.items()}
        for net, state in tree["model"].items()
    }
    return {"model": prefixed}


@pytest.mark.parametrize("parallel", [False, True])
def test_file_gives_the_networks_it_was_written_from(
    tower: VitTower, tmp_path: Path, parallel: bool
) -> None:
    tree = official_tree(tower)
    path = save(tmp_path, add_prefix(tree) if parallel else tree)
    generator, discriminator = networks(tower)
    state = torch.get_rng_state()
    found = build_official_galip(read_galip_file(path), tower)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.epoch == (None if parallel else 1480)
    latents, texts = torch.randn(1, 6), 5.0 * torch.randn(1, EMBED_DIM)
    assert torch.equal(found.generator(latents, texts), generator(latents, texts))
    assert found.generator.architecture == generator.architecture
    intermediates = torch.randn(2, 3, WIDTH, GRID, GRID)
    assert found.discriminator is not None
    assert torch.equal(found.discriminator(intermediates), discriminator(intermediates))
    assert found.discriminator.architecture == discriminator.architecture


def test_a_generator_alone_is_enough(tower: VitTower, tmp_path: Path) -> None:
    tree = official_tree(tower)
    del tree["model"]["netD"], tree["model"]["netC"]
    assert build_official_galip(read_galip_file(save(tmp_path, tree)), tower).discriminator is None


def drop(net: str, key: str) -> Callable[[dict[str, Any]], Any]:
    def change(tree: dict[str, Any]) -> Any:
        del tree["model"][net][key]
        return tree

    return change


def put(net: str, key: str, value: Tensor) -> Callable[[dict[str, Any]], Any]:
    def change(tree: dict[str, Any]) -> Any:
        tree["model"][net][key] = value
        return tree

    return change


def without_tower(tree: dict[str, Any]) -> Any:
    net = tree["model"]["netG"]
    tree["model"]["netG"] = {k: v for k, v in net.items() if not k.startswith(TOWER_PREFIX)}
    return tree


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree["model"], "model.netG is missing, it holds netC, netD, netG"),
        (lambda tree: [1, 2], "holds a list"),
        (lambda tree: {"model": {"netG": {"a": 1}}}, r"model\.netG is no state dict"),
        (lambda tree: {"visual.conv1.weight": torch.zeros(1)}, "a plain CLIP, no GALIP file"),
        (lambda tree: {"G_ema": {}, "D": {}}, "a LAFITE file, no GALIP file"),
        (drop("netG", "GBlocks.2.c1.bias"), r"weight blocks\.2\.conv_in\.bias .* missing"),
        (drop("netG", "fc_code.weight"), r"weight fc_code\.weight of netG is missing"),
        (
            drop("netC", "joint_conv.0.weight"),
            r"weight netC\.joint_conv\.0\.weight of netD is missing",
        ),
        (put("netG", "extra.weight", torch.zeros(1)), "extra.weight belongs to another network"),
        (put("netG", "mapping.conv.bias", torch.zeros(3)), r"mapping\.conv\.bias is \(3,\)"),
        (put("netD", "main.gamma", torch.full((1,), torch.nan)), r"main\.gamma is not finite"),
        (
            put("netG", f"{TOWER_PREFIX}ln_pre.weight", torch.zeros(WIDTH)),
            r"its CLIP differs from tiny-vit at hand in ln_pre\.weight",
        ),
        (
            put("netG", f"{TOWER_PREFIX}transformer.resblocks.9.x", torch.zeros(1)),
            r"differs from tiny-vit at hand in transformer\.resblocks\.9\.x",
        ),
        (
            put("netG", "GBlocks.9.c1.weight", torch.zeros(1, 1, 3, 3)),
            "it has 8 blocks, and 224 px over a grid of 4 patches take 7",
        ),
        (without_tower, "its CLIP cannot be checked"),
        (
            put("netG", "mapping.fc_prompt.weight", torch.zeros(8 * WIDTH, 9)),
            "its text features are 3 wide, those of tiny-vit 12",
        ),
    ],
)
def test_other_contents_are_refused_in_one_line(
    change: Callable[[dict[str, Any]], Any], message: str, tower: VitTower, tmp_path: Path
) -> None:
    path = save(tmp_path, change(official_tree(tower)))
    with pytest.raises(ImportWeightsError, match=message) as refusal:
        build_official_galip(read_galip_file(path), tower)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)


class Poisoned:
    """Something a weights-only loader must not run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("poisoned"),)


def write_truncated(path: Path, tower: VitTower) -> None:
    torch.save(official_tree(tower), path)
    path.write_bytes(path.read_bytes()[:5000])


def write_poisoned(path: Path, tower: VitTower) -> None:
    torch.save({"model": {"netG": Poisoned()}}, path)


def write_pickle(path: Path, tower: VitTower) -> None:
    path.write_bytes(pickle.dumps({"G": Poisoned()}))


def write_module(path: Path, tower: VitTower) -> None:
    torch.save(nn.Linear(1, 1), path)


def write_lafite(path: Path, tower: VitTower) -> None:
    # What LAFITE's own pickles begin with: a class of its persistence module.
    path.write_bytes(b"\x80\x02}q\x00ctorch_utils.persistence\n_reconstruct_persistent_obj\n.")


def write_torchscript(path: Path, tower: VitTower) -> None:
    torch.jit.script(nn.Linear(1, 1)).save(str(path))  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path, tower: None, "no such file"),
        (lambda path, tower: path.mkdir(), "is a folder, not a file"),
        (lambda path, tower: path.write_bytes(b""), "damaged"),
        (lambda path, tower: path.write_bytes(b"<html>not found</html>"), "damaged"),
        (write_truncated, "damaged"),
        (write_poisoned, "holds other things than weights, which loading would execute"),
        (write_pickle, "damaged, or no file of weights"),
        (write_module, "holds other things than weights, which loading would execute"),
        (write_lafite, "a LAFITE pickle"),
        (write_torchscript, "a TorchScript archive, such as a plain CLIP"),
    ],
)
def test_files_that_are_no_weights_are_refused_and_not_run(
    write: Callable[[Path, VitTower], None],
    message: str,
    tower: VitTower,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    write(path, tower)
    with pytest.raises(ImportWeightsError, match=message) as refusal:
        build_official_galip(read_galip_file(path), tower)
    assert "\n" not in str(refusal.value)
    assert "can still be loaded" not in str(refusal.value), "torch's advice is to run it"
    assert "weights_only" not in str(refusal.value)
    assert not (tmp_path / "poisoned").exists()
