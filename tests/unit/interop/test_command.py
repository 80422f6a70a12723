"""``clipgan import-weights``: an official file becomes a model that draws prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from clipgan.cli.app import app
from clipgan.errors import ClipError, ImportWeightsError
from clipgan.families.registry import find_family
from clipgan.generation.sampler import load_sampler
from tests.unit.clip import tiny_open_clip
from tests.unit.interop import official_pickle as official

TEXT_DIM = 16


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    tiny_open_clip.register(tmp_path)
    path = tmp_path / "clip.safetensors"
    save_file(tiny_open_clip.build(quick_gelu=False).state_dict(), path)
    return path


IMPORT = find_family("lafite").load("importer")


def write_snapshot(folder: Path, text_dim: int = TEXT_DIM, clamp: int | None = 256) -> Path:
    tree = official.build_snapshot(
        {**official.TINY, "f_dim": text_dim}, *official.tiny_shapes(text_dim)
    )
    if clamp is None:
        tree["D"] = None
        tree["G_ema"].state["_init_kwargs"]["synthesis_kwargs"]["conv_clamp"] = None
    path = folder / "lafite.pkl"
    path.write_bytes(official.dump(tree))
    return path


def import_tiny(source: Path, out: Path, clip_file: Path) -> str:
    return str(IMPORT(source, out, clip_model=tiny_open_clip.NAME, clip_weights=str(clip_file)))


def test_imported_bundle_draws_prompts(
    tmp_path: Path, clip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    monkeypatch.chdir(tmp_path)
    said = import_tiny(write_snapshot(tmp_path), out, Path(clip_file.name))
    assert "8 px" in said
    assert len(said.splitlines()) == 1
    monkeypatch.chdir("/")
    sampler = load_sampler(out, device=torch.device("cpu"))
    images = sampler.sample(["a red apple", "a dog"], seed=0)
    assert images.shape == (2, 3, 8, 8)
    assert not torch.equal(images[0], images[1])


def test_what_a_file_lacks_is_said(tmp_path: Path, clip_file: Path) -> None:
    said = import_tiny(write_snapshot(tmp_path, clamp=None), tmp_path / "bundle", clip_file)
    assert "has no discriminator" in said
    assert "without a clamp" in said


def test_clip_of_another_width_is_refused(tmp_path: Path, clip_file: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(ImportWeightsError, match=r"text features of 4 numbers.* gives 16"):
        import_tiny(write_snapshot(tmp_path, text_dim=4), out, clip_file)
    with pytest.raises(ClipError, match="neither a file nor a pretrained tag"):
        IMPORT(
            write_snapshot(tmp_path),
            out,
            clip_model=tiny_open_clip.NAME,
            clip_weights="missing.pt",
        )
    assert not out.exists()


def test_web_page_ends_in_one_line(tmp_path: Path) -> None:
    page = tmp_path / "network.pkl"
    page.write_text("<html>Sign in</html>")
    result = CliRunner().invoke(
        app, ["import-weights", "lafite", str(page), "--out", str(tmp_path / "bundle")]
    )
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {page}: is a web page")
    assert len(result.stderr.splitlines()) == 1
