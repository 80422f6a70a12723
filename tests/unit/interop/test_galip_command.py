"""``clipgan import-weights galip``: a released ``.pth`` becomes a model that draws prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from clipgan.cli.app import app
from clipgan.clip.encoder import ClipEncoder, load_clip
from clipgan.errors import ClipError, ImportWeightsError
from clipgan.families.galip.networks.vit_features import build_vit_tower
from clipgan.families.registry import find_family
from clipgan.generation.sampler import load_sampler
from clipgan.generation.styles import draw_latents
from clipgan.images import to_uint8
from clipgan.models.bundle import load_bundle, load_bundle_info
from tests.galip_parts import EMBED_DIM, SIDE_PX, WIDTH
from tests.unit.interop.test_galip import (
    DEPTH,
    networks,
    official_tree,
    write_lafite,
    write_truncated,
)

CPU = torch.device("cpu")
VIT: dict[str, Any] = {
    "image_size": SIDE_PX,
    "patch_size": 8,
    "width": WIDTH,
    "head_width": WIDTH,
    "layers": DEPTH,
}
CLIPS: dict[str, tuple[int, dict[str, Any]]] = {
    "clipgan-test-galip": (EMBED_DIM, VIT),
    "clipgan-test-galip-wide": (EMBED_DIM + 4, VIT),
    "clipgan-test-galip-shallow": (EMBED_DIM, VIT | {"layers": 4}),
    "clipgan-test-galip-resnet": (
        EMBED_DIM,
        {"image_size": SIDE_PX, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    ),
}
NAME = "clipgan-test-galip"


def make_clip(folder: Path, name: str = NAME) -> Path:
    """Make open_clip know the model; the file of its weights."""
    embed_dim, vision = CLIPS[name]
    tree = {
        "embed_dim": embed_dim,
        "vision_cfg": vision,
        "text_cfg": {"width": 64, "heads": 1, "layers": 1},
    }
    config = folder / f"{name}.json"
    config.write_text(json.dumps(tree))
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    weights = folder / f"{name}.safetensors"
    save_file(open_clip.create_model(name).state_dict(), weights)
    return weights


def load_tiny_clip(weights: Path) -> ClipEncoder:
    return load_clip(weights.stem, str(weights), precision="fp32", device=CPU)


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    return make_clip(tmp_path)


@pytest.fixture
def released(tmp_path: Path, clip_file: Path) -> Path:
    path = tmp_path / "pre_coco.pth"
    torch.save(official_tree(build_vit_tower(load_tiny_clip(clip_file))), path)
    return path


def invoke(file: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["import-weights", "galip", str(file), "--out", str(out), *more])


def import_tiny(file: Path, out: Path, weights: Path) -> str:
    import_weights = find_family("galip").load("importer")
    return str(import_weights(file, out, clip_model=weights.stem, clip_weights=str(weights)))


def test_imported_bundle_draws_what_the_official_networks_draw(
    tmp_path: Path, clip_file: Path, released: Path
) -> None:
    out = tmp_path / "bundle"
    said = invoke(released, out, "--clip-model", NAME, "--clip-weights", str(clip_file))
    assert said.exit_code == 0, said.stderr
    assert "GALIP generator, 224 px, raw text features of 12 numbers" in said.stdout
    info = load_bundle_info(out)
    assert (info.family, info.provenance["official_epoch"]) == ("galip", 1480)
    assert info.provenance["imported_from"] == "pre_coco.pth"

    clip = load_tiny_clip(clip_file)
    generator, discriminator = networks(build_vit_tower(clip))
    raw = clip.encode_texts(["a red apple"], normalize=False)
    assert abs(float(raw.norm()) - 1) > 0.01, "the test could not tell raw from unit features"
    with torch.no_grad():
        wanted = to_uint8(generator(draw_latents(3, 1, 6), raw))
    found = load_sampler(out, device=CPU).sample(["a red apple"], seed=3)
    assert torch.equal(found, wanted)
    bundle = load_bundle(out)
    assert bundle.discriminator is not None
    for name, tensor in discriminator.state_dict().items():
        assert torch.equal(bundle.discriminator.state_dict()[name], tensor)
    # The same file again is welcome, another one is not written over it.
    assert import_tiny(released, out, clip_file)
    torch.save(torch.load(released, weights_only=True) | {"epoch": 1}, released)
    with pytest.raises(ImportWeightsError, match="holds another generator"):
        import_tiny(released, out, clip_file)


def test_what_a_file_lacks_is_said(tmp_path: Path, clip_file: Path) -> None:
    tree = official_tree(build_vit_tower(load_tiny_clip(clip_file)))
    del tree["model"]["netD"], tree["model"]["netC"]
    torch.save(tree, tmp_path / "generator.pth")
    said = import_tiny(tmp_path / "generator.pth", tmp_path / "bundle", clip_file)
    assert "has no discriminator" in said


def test_a_wrong_file_is_named_before_any_clip_is_loaded(tmp_path: Path, clip_file: Path) -> None:
    """The CLIP of the released weights could not be had here: nobody asks for it."""
    tower = build_vit_tower(load_tiny_clip(clip_file))
    lafite, cut, plain = (tmp_path / name for name in ("lafite.pkl", "cut.pth", "clip.pth"))
    write_lafite(lafite, tower)
    write_truncated(cut, tower)
    torch.save({"visual.conv1.weight": torch.zeros(1)}, plain)
    for file, message in (
        (lafite, "a LAFITE pickle, no GALIP file"),
        (cut, "damaged"),
        (plain, "a plain CLIP, no GALIP file"),
        (tmp_path / "missing.pth", "no such file"),
    ):
        result = invoke(file, tmp_path / "bundle")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {file}: {message}")
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "bundle").exists()


def test_another_clip_is_refused(tmp_path: Path, released: Path) -> None:
    out = tmp_path / "bundle"
    for name, error, message in (
        # The text width is the tower's last projection: the blocks before it still agree.
        ("clipgan-test-galip-wide", ImportWeightsError, "are 12 wide, those of .*-wide 16|differs"),
        ("clipgan-test-galip-shallow", ImportWeightsError, "its CLIP differs from .*-shallow"),
        ("clipgan-test-galip-resnet", ClipError, "has a ModifiedResNet as vision tower.*ViT-B-32"),
    ):
        with pytest.raises(error, match=message) as refusal:
            import_tiny(released, out, make_clip(tmp_path, name))
        assert "\n" not in str(refusal.value)
    assert not out.exists()
