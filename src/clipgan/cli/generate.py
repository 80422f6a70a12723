"""``clipgan generate``: prompts -> picture files, none of which replaces another unasked."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from clipgan.artifacts import write_bytes
from clipgan.cli.models import find_champion
from clipgan.config import load_params
from clipgan.errors import ConfigError
from clipgan.models.addresses import is_in_mlflow
from clipgan.models.built_in import BUILT_IN, list_built_in
from clipgan.tracking.mlflow_store import resolve_tracking_uri
from clipgan.workspace import find_workspace

if TYPE_CHECKING:
    import torch

    from clipgan.config import FeaturesConfig
    from clipgan.generation.picture_files import PictureSettings
    from clipgan.generation.sampler import Sampler
    from clipgan.generation.styles import StyleChoice

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Of ``clipgan.generation.picture_files.FORMATS``, which would import torch."""
_SLUG_CHARACTERS = 40


def generate_files(
    prompts: Sequence[str],
    *,
    seed: int,
    num_images: int,
    choice: StyleChoice,
    out: Path,
    model: str | None,
    device: str,
    precision: str = "fp32",
    force: bool = False,
) -> list[Path]:
    """Write a file for each image; returns their paths, in the sampler's order.

    ``out`` is a file when it ends in one of :data:`SUFFIXES` (one image only), else a folder, in
    which files are named after prompt, seed and number. An image that differs from an existing file
    of its name gets ``-2``, ``-3``, ... appended; an equal file stays as it is.

    Args:
        model: see :func:`load_model`; None: the project's champion, else the built-in generator.
            The choice is printed on stderr, and so are prompts that CLIP cannot tell apart.
        precision: ``fp32`` or ``bf16``, of the generator.
        force: replace ``out`` where it is a file.

    Raises:
        ConfigError: a prompt or number is out of range, or ``out`` does not fit.
        CheckpointError, RegistryError: the model cannot be loaded.
    """
    check_out(out, num_images=len(prompts) * num_images, force=force)
    from clipgan.generation.sampler import check_request

    check_request(prompts, seed=seed, num_images=num_images, choice=choice)
    if model is None:
        model = choose_model()
    sampler, name = load_model(model, device, precision)
    for warning in sampler.describe_alike(prompts):
        print(f"note: {warning}", file=sys.stderr)
    images = sampler.sample(
        prompts,
        seed=seed,
        num_images=num_images,
        truncation=choice.truncation,
        truncation_layers=choice.truncation_layers,
        latent_truncation=choice.latent_truncation,
        mixes=choice.mixes,
    )
    settings = [
        _describe(sampler, name, prompt, (seed, index), choice)
        for prompt in prompts
        for index in range(num_images)
    ]
    try:
        return [
            _save(image, described, out, force)
            for image, described in zip(images, settings, strict=True)
        ]
    except OSError as error:
        raise ConfigError(
            f"--out {out}: cannot be written ({error.strerror or error}); name another place"
        ) from error


def check_out(out: Path, *, num_images: int, force: bool = False) -> None:
    """Refuse an ``--out`` that cannot take so many images, before anything is loaded.

    Raises:
        ConfigError: several images and one file, a file that is there, another format, or a place
            that cannot be written to.
    """
    if out.suffix.lower() in SUFFIXES:
        if num_images > 1:
            raise ConfigError(
                f"--out {out}: {num_images} images do not fit in one file; name a folder"
            )
        if out.is_dir():
            raise ConfigError(
                f"--out {out}: is a folder; name a file, or a folder without {out.suffix}"
            )
        if out.exists() and not force:
            raise ConfigError(f"--out {out}: is there already; --force replaces it")
        check_writable(out, out.parent)
        return
    if out.suffix and not out.is_dir():
        raise ConfigError(
            f"--out {out}: {out.suffix} is no format that can be written; end the name in "
            f"{', '.join(SUFFIXES)}, or name a folder without a dot"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file; name a folder, or a file ending in .png")
    if force:
        raise ConfigError(
            f"--force: --out {out} is a folder, in which no picture replaces another; leave it out"
        )
    check_writable(out, out)


def choose_model() -> str:
    """The address of the champion of the project around the working directory, or the built-in
    generator where there is none. Prints on stderr which one, and why.

    Raises:
        ConfigError: params.yaml is wrong.
        RegistryError: the registry cannot be used.
    """
    address, reason = _find_champion()
    print(f"model: {address} ({reason})", file=sys.stderr)
    return address


def _find_champion() -> tuple[str, str]:
    try:
        workspace = find_workspace(Path.cwd())
    except ConfigError:
        return BUILT_IN, "outside a project; --model names another"
    params = load_params(workspace.params_file)
    name, champion = params.register_model.model_name, find_champion(params, workspace)
    if champion is not None:
        return f"models:/{name}/{champion}", "champion of this project"
    return BUILT_IN, f"{name} has no champion yet; --model names another"


def load_model(model: str, device: str, precision: str = "fp32") -> tuple[Sampler, str]:
    """The generator at an address, and its name: the address, or a folder's last part.

    Raises:
        CheckpointError: no such folder, or what is in it cannot be loaded.
        RegistryError: no such model, version, alias or run.
        ConfigError: it is in MLflow, and there is no project here that names the store.
    """
    from clipgan.devices import resolve_device
    from clipgan.generation.sampler import find_clip_weights, load_sampler
    from clipgan.models.bundle import load_bundle_info
    from clipgan.stages.model_addresses import opened_bundle

    chosen, name, uri = resolve_device(device), model, ""
    if is_in_mlflow(model):
        uri = resolve_tracking_uri(find_workspace(Path.cwd()).root, os.environ)
    elif model not in list_built_in():
        name = Path(model).expanduser().resolve().name
        name = name.encode(errors="backslashreplace").decode()
    with opened_bundle(model, tracking_uri=uri) as (bundle, registered_clip):
        info = load_bundle_info(bundle)
        weights: str | Path | None = registered_clip
        if weights is None and "clip_weights" not in info.provenance:
            weights = find_clip_weights(info, _read_features())
        sampler = load_sampler(bundle, device=chosen, clip_weights=weights, precision=precision)
        return sampler, name


def _read_features() -> FeaturesConfig | None:
    """Section ``features`` of the project around the working directory; None: there is none."""
    try:
        workspace = find_workspace(Path.cwd())
    except ConfigError:
        return None
    return load_params(workspace.params_file).features


def _describe(
    sampler: Sampler, model: str, prompt: str, place: tuple[int, int], choice: StyleChoice
) -> PictureSettings:
    """``place``: seed and number of the image."""
    from clipgan.generation.picture_files import PictureSettings
    from clipgan.models.bundle import GENERATOR_FILE

    return PictureSettings(
        prompt=prompt,
        seed=place[0],
        image=place[1],
        side_px=sampler.info.resolution_px,
        truncation=choice.truncation,
        truncation_layers=choice.truncation_layers,
        latent_truncation=choice.latent_truncation,
        mix=tuple(f"{mix.seed}:{mix.first}-{mix.last}" for mix in choice.mixes),
        model=model,
        model_sha256=sampler.info.files[GENERATOR_FILE],
        clip=sampler.info.clip.get("model", ""),
        precision=sampler.precision,
        clipgan=version("clipgan"),
    )


def _save(image: torch.Tensor, settings: PictureSettings, out: Path, force: bool) -> Path:
    from clipgan.generation.picture_files import encode_picture

    if (suffix := out.suffix.lower()) in SUFFIXES:
        data = encode_picture(image, suffix, settings)
        if force:
            write_bytes(out, data)
        elif not _write_new(out, data):
            raise ConfigError(f"--out {out}: is there by now; --force replaces it")
        return out
    data = encode_picture(image, ".png", settings)
    stem = f"{slug(settings.prompt)}-seed{settings.seed}-{settings.image}"
    for number in count(1):
        path = out / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        if _write_new(path, data) or (path.is_file() and path.read_bytes() == data):
            break
    return path


def _write_new(path: Path, data: bytes) -> bool:
    """Write a file that is not there yet, whole or not at all; False: something is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The name is reserved before the file is written: another process takes the next name.
        path.open("xb").close()
    except FileExistsError:
        return False
    try:
        write_bytes(path, data)
    except BaseException:
        path.unlink()
        raise
    return True


def check_writable(out: Path, folder: Path) -> None:
    """Refuse an ``--out`` whose ``folder`` cannot be made or written to.

    Raises:
        ConfigError: names what is in the way.
    """
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise ConfigError(f"--out {out}: {nearest} is a file, not a folder; name another place")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {out}: {nearest} is not writable; name another place")


def slug(prompt: str) -> str:
    """A file name made of the prompt: its letters and digits in any script, with dashes between;
    where there are none, as in emoji, the characters' Unicode names."""
    words = re.findall(r"\w+", prompt.lower())
    if not words:
        names = " ".join(unicodedata.name(character, "") for character in prompt)
        words = re.findall(r"\w+", names.lower())
    return "-".join(words)[:_SLUG_CHARACTERS].strip("-") or "image"
