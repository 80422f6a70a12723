"""Same seed, same bytes; requests that cannot be met are refused in one line."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipgan.clip.encoder import load_clip
from clipgan.errors import CheckpointError, ClipError, ConfigError
from clipgan.generation.picture_files import encode_picture
from clipgan.generation.sampler import (
    MAX_PROMPT_CHARACTERS,
    Sampler,
    draw_latents,
    load_sampler,
)
from clipgan.models.built_in import list_built_in
from clipgan.models.bundle import load_bundle_info
from tests.mlflow_stores import save_tiny_bundle
from tests.unit.clip import tiny_open_clip
from tests.unit.tracking.tiny_sampler import load_tiny_sampler

CPU = torch.device("cpu")


@pytest.fixture
def sampler(tmp_path: Path) -> Sampler:
    return load_tiny_sampler(save_tiny_bundle(tmp_path / "bundle"), device=CPU)


def test_an_image_depends_on_prompt_seed_and_number_only(sampler: Sampler) -> None:
    prompts = ["a red apple", "a dog", "a rocket"]
    together = sampler.sample(prompts, seed=5, num_images=4)
    assert together.shape == (12, 3, 8, 8)
    assert together.dtype == torch.uint8
    for row, prompt in enumerate(prompts):
        alone = sampler.sample([prompt], seed=5, num_images=2)
        assert torch.equal(alone, together[row * 4 : row * 4 + 2])
    assert len({image.numpy().tobytes() for image in together}) == 12
    assert not torch.equal(sampler.sample(["a dog"], seed=6), together[4:5])


def test_a_new_process_state_changes_nothing(sampler: Sampler, tmp_path: Path) -> None:
    first = sampler.sample_png(["a dog"], seed=1)
    torch.manual_seed(99)
    np.random.seed(99)
    again = load_tiny_sampler(tmp_path / "bundle", device=CPU).sample_png(["a dog"], seed=1)
    assert first == again


def test_truncation_narrows_variety(sampler: Sampler) -> None:
    def spread(truncation: float) -> float:
        images = sampler.sample(["a dog"], seed=0, num_images=16, truncation=truncation)
        return float(images.float().std(0).mean())

    assert spread(1.0) > spread(0.3) > spread(0.0) == 0.0


def test_latents_are_normal_and_independent() -> None:
    latents = draw_latents(7, 64, 256)
    assert torch.equal(latents[:3], draw_latents(7, 3, 256))
    assert abs(float(latents.mean())) < 0.03
    assert abs(float(latents.std()) - 1) < 0.03
    correlation = torch.corrcoef(latents) - torch.eye(64)
    assert float(correlation.abs().max()) < 0.35
    assert not torch.equal(draw_latents(8, 1, 256), latents[:1])


def test_png_keeps_every_pixel_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 5, 7), generator=generator, dtype=torch.uint8)
    data = encode_picture(image, ".png", None)
    with Image.open(io.BytesIO(data)) as read:
        assert read.mode == "RGB"
        assert read.info == {}
        assert np.array_equal(np.asarray(read), image.permute(1, 2, 0).numpy())
    assert data == encode_picture(image, ".png", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "no prompt"),
        ({"prompts": ["a dog", ""]}, "'' is empty"),
        ({"prompts": [" \n"]}, "is empty"),
        ({"prompts": ["x" * (MAX_PROMPT_CHARACTERS + 1)]}, "has 501 characters: use at most 500"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**63}, "seed = "),
        ({"num_images": 0}, "number of images = 0"),
        ({"truncation": 1.5}, "truncation = 1.5"),
        ({"truncation": float("nan")}, "truncation = nan"),
    ],
)
def test_bad_requests_name_value_and_fix(
    sampler: Sampler, changes: dict[str, Any], message: str
) -> None:
    request: dict[str, Any] = {"prompts": ["a dog"], "seed": 0} | changes
    with pytest.raises(ConfigError, match=message):
        sampler.sample(**request)


def test_a_generator_of_an_unknown_clip_names_it(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=r"'built-in' fits clipgan.* only; give 'tiny'"):
        load_sampler(save_tiny_bundle(tmp_path / "bundle"), device=CPU)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        load_sampler(tmp_path / "nowhere", device=CPU)


@pytest.fixture(scope="module")
def clip_weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two weights files of one small open_clip model."""
    folder = tmp_path_factory.mktemp("clip")
    tiny_open_clip.register(folder)
    paths = [folder / "weights0.safetensors", folder / "weights1.safetensors"]
    for seed, path in enumerate(paths):
        save_file(tiny_open_clip.build(quick_gelu=False, seed=seed).state_dict(), path)
    return paths


def read_fingerprint(weights: Path, precision: str = "fp32") -> dict[str, str]:
    name = tiny_open_clip.NAME
    return load_clip(name, str(weights), precision=precision, device=CPU).fingerprint


def test_a_bundle_is_sampled_with_the_clip_that_it_names(
    clip_weights: list[Path], tmp_path: Path
) -> None:
    # The training may have run in another precision.
    fingerprint = read_fingerprint(clip_weights[0], "bf16")
    named = save_tiny_bundle(
        tmp_path / "named",
        text_dim=16,
        clip=fingerprint,
        provenance={"clip_weights": str(clip_weights[0])},
    )
    silent = save_tiny_bundle(tmp_path / "silent", text_dim=16, clip=fingerprint)
    prompts = ["a red apple", "a dog"]
    first, second = load_sampler(named, device=CPU).sample(prompts, seed=0)
    assert not torch.equal(first, second)
    given = load_sampler(silent, device=CPU, clip_weights=clip_weights[0])
    assert torch.equal(given.sample(prompts, seed=0)[1], second)


def test_a_generator_of_other_clip_weights_is_refused_naming_both(
    clip_weights: list[Path], tmp_path: Path
) -> None:
    first, second = (read_fingerprint(path)["weights_sha256"] for path in clip_weights)
    bundle = save_tiny_bundle(
        tmp_path / "bundle", text_dim=16, clip=read_fingerprint(clip_weights[0])
    )
    with pytest.raises(ClipError, match=f"{first}.*{second}"):
        load_sampler(bundle, device=CPU, clip_weights=clip_weights[1])


GENERATE = """
import hashlib, sys, torch
from clipgan.generation.sampler import load_sampler
from clipgan.models.built_in import list_built_in
sampler = load_sampler(list_built_in()[sys.argv[1]], device=torch.device("cpu"))
files = sampler.sample_png(["a red apple"], seed=1)
print(hashlib.sha256(files[0]).hexdigest())
"""


def test_built_in_names_lead_to_their_families() -> None:
    folders = {name: list_built_in().get(name) for name in (*list_built_in(), "base_galip")}
    assert folders.pop("base_galip") is None
    families = {name: load_bundle_info(folder).family for name, folder in folders.items() if folder}
    assert families == {"built-in": "lafite", "built-in-galip": "galip"}


@pytest.mark.parametrize("name", list_built_in())
def test_a_built_in_generator_gives_the_same_bytes_in_two_processes(name: str) -> None:
    answers = {
        subprocess.run(
            [sys.executable, "-c", GENERATE, name], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(answers) == 1


def test_bad_prompts_are_refused_without_loading_clip() -> None:
    code = (
        "import sys; from clipgan.generation.sampler import check_request\n"
        "assert not {'open_clip', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
