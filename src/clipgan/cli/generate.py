"""``clipgan generate``: prompts -> PNG files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from clipgan.artifacts import write_bytes
from clipgan.errors import CheckpointError, ConfigError
from clipgan.models.built_in import BUILT_IN_NAMES, find_built_in
from clipgan.stages.catalog import find_workspace
from clipgan.tracking.environment import resolve_tracking_uri

if TYPE_CHECKING:
    import torch

    from clipgan.generation.sampler import Sampler
    from clipgan.generation.styles import StyleChoice

_MODEL_URI = re.compile(r"^models:/")
_SLUG_CHARACTERS = 40


def generate_files(
    prompts: Sequence[str],
    *,
    seed: int,
    num_images: int,
    choice: StyleChoice,
    out: Path,
    model: str,
    device: str,
) -> list[Path]:
    """Write one PNG file an image; gives their paths.

    ``out`` is a file when it ends in .png (one image only), else a folder, in which files are named
    after prompt, seed and number.

    Raises:
        ConfigError: a prompt or number is out of range, or ``out`` does not fit.
        CheckpointError, RegistryError: the model cannot be loaded.
    """
    paths = plan_files(prompts, seed=seed, num_images=num_images, out=out)
    from clipgan.generation.sampler import check_request, encode_png

    check_request(prompts, seed=seed, num_images=num_images, choice=choice)
    sampler = load_model(model, device)
    images = sampler.sample(
        prompts,
        seed=seed,
        num_images=num_images,
        truncation=choice.truncation,
        truncation_layers=choice.truncation_layers,
        latent_truncation=choice.latent_truncation,
        mixes=choice.mixes,
    )
    for path, image in zip(paths, images, strict=True):
        write_bytes(path, encode_png(image))
    return paths


def plan_files(prompts: Sequence[str], *, seed: int, num_images: int, out: Path) -> list[Path]:
    """The path of every image, in the sampler's order.

    Raises:
        ConfigError: several images and one file, or a file stands where the folder should be.
    """
    total = len(prompts) * num_images
    if out.suffix.lower() == ".png":
        if total > 1:
            raise ConfigError(f"--out {out}: {total} images do not fit in one file; name a folder")
        if out.is_dir():
            raise ConfigError(f"--out {out}: is a folder; name a file, or a folder without .png")
        return [out]
    if out.suffix and not out.is_dir():
        raise ConfigError(f"--out {out}: images are PNG files; end the name in .png")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; name a folder, or a file ending in .png")
    names = [
        f"{_slug(prompt)}-seed{seed}-{index}.png"
        for prompt in prompts
        for index in range(num_images)
    ]
    # Two prompts that differ in punctuation only would write the same file.
    if len(set(names)) < len(names):
        width = len(str(total - 1))
        names = [f"{number:0{width}}-{name}" for number, name in enumerate(names)]
    return [out / name for name in names]


def load_model(model: str, device: str) -> Sampler:
    """The sampler of a built-in generator, a bundle folder, or a version in the registry.

    Raises:
        CheckpointError: no such folder, or what is in it cannot be loaded.
        RegistryError: no such model, version or alias.
    """
    from clipgan.devices import resolve_device
    from clipgan.generation.sampler import load_sampler

    chosen = resolve_device(device)
    if (folder := find_built_in(model)) is not None:
        return load_sampler(folder, device=chosen)
    if _MODEL_URI.match(model):
        return _load_registered(model, chosen)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise CheckpointError(
            f"--model {model}: no such folder; use {' or '.join(BUILT_IN_NAMES)}, a bundle folder "
            "such as data/training, or models:/NAME@champion"
        )
    return load_sampler(folder, device=chosen)


def _load_registered(address: str, device: torch.device) -> Sampler:
    from clipgan.generation.sampler import load_sampler
    from clipgan.tracking.download import download_generator

    workspace = find_workspace(Path.cwd())
    with TemporaryDirectory(prefix="clipgan-model-") as scratch:
        bundle, clip_weights = download_generator(
            address,
            tracking_uri=resolve_tracking_uri(workspace.root, os.environ),
            target=Path(scratch),
        )
        return load_sampler(bundle, device=device, clip_weights=clip_weights)


def _slug(prompt: str) -> str:
    """A file name that says the prompt: letters and digits of any script, dashes between."""
    return "-".join(re.findall(r"\w+", prompt.lower()))[:_SLUG_CHARACTERS].strip("-") or "image"
