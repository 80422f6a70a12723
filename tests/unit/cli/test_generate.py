"""`clipgan generate`: names, no picture lost, settings inside, the champion where there is one."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from clipgan.cli.generate import check_out, generate_files, load_model, slug
from clipgan.errors import ConfigError
from clipgan.generation.styles import StyleChoice, StyleMix
from clipgan.models.built_in import list_built_in
from clipgan.models.bundle import load_bundle_info
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.workspace import Workspace
from tests.metric_values import value_of
from tests.mlflow_stores import register_values, save_tiny_bundle
from tests.params import params_with
from tests.unit.cli.commands import run_clipgan

LONG = "a very long prompt that goes on and on, and names an"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator for the built-in CLIP."""
    return save_for_built_in_clip(tmp_path_factory.mktemp("models") / "tiny")


def save_for_built_in_clip(folder: Path, seed: int = 0) -> Path:
    built_in = list_built_in().get("built-in")
    assert built_in is not None
    return save_tiny_bundle(folder, seed, text_dim=256, clip=load_bundle_info(built_in).clip)


def generate(
    prompts: list[str],
    out: Path,
    model: Path,
    *,
    seed: int = 0,
    num_images: int = 1,
    choice: StyleChoice | None = None,
    force: bool = False,
    precision: str = "fp32",
) -> list[Path]:
    return generate_files(
        prompts,
        seed=seed,
        num_images=num_images,
        choice=choice or StyleChoice(),
        out=out,
        model=str(model),
        device="cpu",
        force=force,
        precision=precision,
    )


class TestNames:
    @pytest.mark.parametrize(
        ("prompt", "name"),
        [
            ("a red apple", "a-red-apple"),
            ("Äpfel/../x", "äpfel-x"),
            (LONG, "a-very-long-prompt-that-goes-on-and-on-a"),
            ("🍎", "red-apple"),
            ("🚀🌙", "rocket-crescent-moon"),
            ("?!", "question-mark-exclamation-mark"),
            ("\t", "image"),
        ],
    )
    def test_a_name_says_the_prompt(self, prompt: str, name: str) -> None:
        assert slug(prompt) == name

    @pytest.mark.parametrize(
        ("out", "count", "message"),
        [
            ("a.png", 2, "2 images do not fit in one file"),
            ("a.gif", 1, r"\.gif is no format that can be written; end the name in \.png, \.jpg"),
            ("v1.2", 1, "name a folder without a dot"),
            ("file", 1, "is a file; name a folder"),
            ("file/x", 1, "file is a file, not a folder"),
            ("file/x.png", 1, "file is a file, not a folder"),
            ("folder.png", 1, "is a folder; name a file"),
            ("there.png", 1, "is there already; --force replaces it"),
        ],
    )
    def test_out_that_does_not_fit(
        self, tmp_path: Path, out: str, count: int, message: str
    ) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "there.png").touch()
        (tmp_path / "folder.png").mkdir()
        with pytest.raises(ConfigError, match=message):
            check_out(tmp_path / out, num_images=count)

    def test_force_is_for_files(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no picture replaces another; leave it out"):
            check_out(tmp_path / "folder", num_images=1, force=True)
        check_out(tmp_path / "a.png", num_images=1, force=True)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
    def test_a_folder_that_may_not_be_written_is_named_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ConfigError, match="closed is not writable; name another place"):
            check_out(tmp_path / "closed" / "new", num_images=1)


class TestNothingIsLost:
    def test_prompts_of_one_name_get_files_of_their_own(self, tmp_path: Path, bundle: Path) -> None:
        first = generate([f"{LONG} apple"], tmp_path, bundle)
        before = first[0].read_bytes()
        second = generate([f"{LONG} pear", f"{LONG} fig"], tmp_path, bundle)
        stem = f"{slug(LONG)}-seed0-0"
        names = [path.name for path in (*first, *second)]
        assert names == [f"{stem}.png", f"{stem}-2.png", f"{stem}-3.png"]
        assert first[0].read_bytes() == before
        assert len({path.read_bytes() for path in (*first, *second)}) == 3

    def test_other_settings_and_other_models_go_beside_the_earlier_picture(
        self, tmp_path: Path, bundle: Path
    ) -> None:
        other = save_for_built_in_clip(tmp_path / "other", seed=1)
        folder = tmp_path / "out"
        paths = generate(["a dog"], folder, bundle)
        paths += generate(["a dog"], folder, bundle, choice=StyleChoice(truncation=0.5))
        paths += generate(["a dog"], folder, other)
        assert len(set(paths)) == 3

    def test_the_same_request_gives_the_same_files_again(
        self, tmp_path: Path, bundle: Path
    ) -> None:
        first = generate(["a dog", "🍎"], tmp_path, bundle, num_images=2)
        before = {path: path.read_bytes() for path in first}
        again = generate(["a dog", "🍎"], tmp_path, bundle, num_images=2)
        assert again == first
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        elsewhere = generate(["a dog", "🍎"], tmp_path / "x" / "y", bundle, num_images=2)
        assert [path.read_bytes() for path in elsewhere] == list(before.values())

    def test_a_file_is_replaced_on_request_only(self, tmp_path: Path, bundle: Path) -> None:
        out = tmp_path / "a.png"
        assert generate(["a dog"], out, bundle) == [out]
        before = out.read_bytes()
        with pytest.raises(ConfigError, match="--force replaces it"):
            generate(["a cat"], out, bundle)
        assert out.read_bytes() == before
        assert generate(["a cat"], out, bundle, force=True) == [out]
        assert out.read_bytes() != before


class TestSettings:
    def test_a_png_says_how_it_was_made(self, tmp_path: Path, bundle: Path) -> None:
        choice = StyleChoice(truncation=0.7, mixes=(StyleMix(7, 0, 1),))
        path = generate(["ein Äpfelchen 🍎"], tmp_path, bundle, seed=5, choice=choice)[0]
        weights = load_bundle_info(bundle).files["generator.safetensors"]
        with Image.open(path) as picture:
            assert set(picture.info) == {"parameters", "clipgan"}
            stored = json.loads(picture.info["clipgan"])
            text = picture.info["parameters"]
        assert stored.pop("clipgan")
        assert stored == {
            "prompt": "ein Äpfelchen 🍎",
            "seed": 5,
            "image": 0,
            "side_px": 8,
            "truncation": 0.7,
            "truncation_layers": None,
            "latent_truncation": None,
            "mix": ["7:0-1"],
            "model": "tiny",
            "model_sha256": weights,
            "clip": "clipgan-vit-h32-96",
            "precision": "fp32",
        }
        prompt, line = text.splitlines()
        assert prompt == "ein Äpfelchen 🍎"
        assert line.startswith("Seed: 5, Image: 0, Size: 8x8, Truncation: 0.7, Mix: 7:0-1, Model: ")
        assert str(tmp_path) not in path.read_bytes().decode("latin-1")

    def test_only_another_precision_than_the_default_is_named_for_people(
        self, tmp_path: Path, bundle: Path
    ) -> None:
        texts = []
        for precision in ("fp32", "bf16"):
            path = generate(["a dog"], tmp_path / precision, bundle, precision=precision)[0]
            with Image.open(path) as picture:
                assert json.loads(picture.info["clipgan"])["precision"] == precision
                texts.append(picture.info["parameters"])
        assert "Precision" not in texts[0]
        assert "Precision: bf16" in texts[1]

    @pytest.mark.parametrize(
        ("name", "kind"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP")]
    )
    def test_other_formats(self, tmp_path: Path, bundle: Path, name: str, kind: str) -> None:
        path = generate(["🍎"], tmp_path / name, bundle)[0]
        png = generate(["🍎"], tmp_path / "a.png", bundle)[0]
        with Image.open(path) as picture, Image.open(png) as exact:
            assert picture.format == kind
            stored = picture.getexif()[ExifTags.Base.ImageDescription]
            assert json.loads(stored) == json.loads(exact.info["clipgan"])
            pixels, wanted = np.asarray(picture).astype(int), np.asarray(exact).astype(int)
        assert np.abs(pixels - wanted).max() <= (0 if kind == "WEBP" else 24)
        again = generate(["🍎"], tmp_path / f"again-{name}", bundle)[0]
        assert again.read_bytes() == path.read_bytes()


class TestChoiceOfModel:
    def test_prompts_that_clip_takes_for_one_are_named(self, bundle: Path) -> None:
        sampler, _ = load_model(str(bundle), "cpu")
        assert sampler.describe_alike(["a dog", "a cat", "a dog"]) == []
        assert sampler.describe_alike(["a dog", "A Dog", "🍎", "🚀"]) == [
            "the CLIP knows no word of '🍎', '🚀': use other words",
            "the CLIP sees no difference between 'a dog', 'A Dog': same pictures",
        ]

    def test_without_a_project_or_a_champion_the_built_in_one_is_taken_and_named(
        self, project: Workspace, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        for folder, reason in (
            (tmp_path / "elsewhere", "outside a project; --model names another"),
            (project.root, "clipgan-emoji has no champion yet; --model names another"),
        ):
            done = run_clipgan("generate", "a dog", "--out", "a.png", folder=folder)
            assert done.returncode == 0, done.stderr
            assert done.stdout == "a.png\n"
            assert done.stderr == f"model: built-in ({reason})\n"
            with Image.open(folder / "a.png") as picture:
                assert json.loads(picture.info["clipgan"])["model"] == "built-in"

    def test_the_champion_is_taken_and_named(
        self, project: Workspace, tracking_uri: str, tmp_path: Path, bundle: Path
    ) -> None:
        register_values(
            params_with(
                {"register.gate_metric": "fd", "register.first_version": "always"}
            ).register_model,
            GeneratorPackage(bundle, "clipgan.generation.sampler:load_sampler"),
            tracking_uri,
            {"fd": value_of("fd", 1.0)},
        )
        os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
        done = run_clipgan("generate", "a dog", "--seed", "3", folder=project.root)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "model: models:/clipgan-emoji/1 (champion of this project)\n"
        assert done.stdout == "generated/a-dog-seed3-0.png\n"
        with Image.open(project.root / "generated" / "a-dog-seed3-0.png") as picture:
            stored = json.loads(picture.info["clipgan"])
        assert stored["model"] == "models:/clipgan-emoji/1"
        wanted = generate(["a dog"], tmp_path / "wanted.png", bundle, seed=3)[0].read_bytes()
        with Image.open(io.BytesIO(wanted)) as exact:
            assert json.loads(exact.info["clipgan"])["model_sha256"] == stored["model_sha256"]
