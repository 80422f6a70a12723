"""The generator bundle: a folder with everything that sampling and further training need.

::

    bundle.json                 description: format, family, architecture, CLIP, provenance, hashes
    generator.safetensors       weights and buffers of the (averaged) generator
    discriminator.safetensors   optional: further training needs it, sampling does not
    modality_means.safetensors  optional: subtracted from CLIP features before the generator takes
                                them (see clipgan.models.modality_gap)

Weights are stored in fp16 or fp32 and always loaded as fp32. There is no pickle. ``bundle.json`` is
removed before the weights are replaced and written last, and each file is written atomically. A
save that is interrupted therefore leaves a folder that is refused as incomplete, never a mixture of
two bundles. Other files of the folder are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clipgan.artifacts import atomic_path, hash_file, write_json
from clipgan.errors import CheckpointError, ConfigError
from clipgan.families.registry import FAMILIES, find_family
from clipgan.models.modality_gap import ModalityMeans
from clipgan.models.networks import Discriminator, Generator, NetworkSpec
from clipgan.models.stored_weights import (
    FORMAT_VERSION,
    check_shapes,
    convert_weights,
    load_weights,
    read_description,
)

INFO_FILE = "bundle.json"
GENERATOR_FILE = "generator.safetensors"
DISCRIMINATOR_FILE = "discriminator.safetensors"
MEANS_FILE = "modality_means.safetensors"
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class BundleInfo:
    """Description and provenance of a bundle.

    Attributes:
        family: the paper's network, a name in :data:`~clipgan.families.registry.FAMILIES`.
        clip: fingerprint of the CLIP model whose text features the generator understands.
        resolution_px: side of the images.
        images_seen: real images shown in training so far.
        provenance: how it was made (data fingerprint, seed, ...); JSON values.
        architecture: keyword arguments of ``generator`` and, if stored, ``discriminator``; filled
            in by :func:`save_bundle`.
        files: SHA-256 of each weights file; filled in by :func:`save_bundle`.
    """

    family: str
    clip: dict[str, str]
    resolution_px: int
    images_seen: int
    provenance: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class TextEncoder(Protocol):
    """A CLIP's text tower."""

    def encode_texts(self, captions: Sequence[str], *, normalize: bool = True) -> Tensor:
        """Captions -> (N, D) float32, of unit norm if ``normalize``."""


@dataclass(frozen=True)
class GeneratorBundle:
    """A loaded bundle: modules in fp32 and in evaluation mode, whose parameters require gradients.

    A generator that draws through a CLIP needs :meth:`Generator.attach_clip` first. ``means`` is
    None where the generator takes CLIP features as they are.
    """

    generator: Generator
    discriminator: Discriminator | None
    info: BundleInfo
    means: ModalityMeans | None = None

    @property
    def latent_dim(self) -> int:
        """Numbers in a latent."""
        return self.generator.latent_dim

    @property
    def takes_raw_texts(self) -> bool:
        """Whether the generator takes CLIP's text features without normalisation to unit length."""
        return self.generator.takes_raw_texts

    def encode_texts(self, clip: TextEncoder, texts: Sequence[str]) -> Tensor:
        """Texts -> (N, D) float32 conditions, as the generator was trained to take them."""
        if self.takes_raw_texts:
            return clip.encode_texts(texts, normalize=False)
        return self.prepare_texts(clip.encode_texts(texts))

    def prepare_texts(self, text_features: Tensor) -> Tensor:
        """(N, D) float32 of unit norm -> conditions, as the generator was trained to take them.

        Raises:
            ConfigError: it takes features that are not normalised, whose length is lost here.
        """
        self._refuse_unit_features()
        return text_features if self.means is None else self.means.centre_texts(text_features)

    def prepare_images(self, image_features: Tensor) -> Tensor:
        """Do the same for image features that take the place of text features."""
        self._refuse_unit_features()
        return image_features if self.means is None else self.means.centre_images(image_features)

    def generate(self, latents: Tensor, texts: Tensor, *, truncation: float = 1.0) -> Tensor:
        """Generate images from latents and prepared texts, with the stored noise if there is any.

        Args:
            latents: (N, latent_dim) standard normal.
            texts: (N, D) from :meth:`encode_texts`, :meth:`prepare_texts` or
                :meth:`prepare_images`.
            truncation: psi of the styles; 1 does not change them.

        Returns:
            (N, 3, R, R) float32, about [-1, 1], not clamped.

        Raises:
            ConfigError: a truncation other than 1 of a generator without styles.
        """
        images: Tensor = self.generator(latents, texts, truncation=truncation)
        return images

    def _refuse_unit_features(self) -> None:
        if self.takes_raw_texts:
            raise ConfigError(
                "the generator takes CLIP's text features raw, of any length, and stored features "
                "are of unit length: give it texts, or a generator of our own training"
            )


def save_bundle(
    folder: Path,
    generator: Generator,
    discriminator: Discriminator | None,
    info: BundleInfo,
    *,
    dtype: Literal["fp16", "fp32"],
    means: ModalityMeans | None = None,
) -> BundleInfo:
    """Write a bundle into ``folder`` (made if missing) and return its completed description.

    The means, if any, are stored in fp32.

    Raises:
        CheckpointError: a weight is not finite, or too large for ``dtype``; nothing is changed.
    """
    modules: dict[str, Generator | Discriminator] = {"generator": generator}
    if discriminator is not None:
        modules["discriminator"] = discriminator
    if info.resolution_px != generator.resolution_px:
        raise CheckpointError(
            f"resolution_px = {info.resolution_px} does not fit the generator of "
            f"{generator.resolution_px} px: state its own"
        )
    weights = {name: convert_weights(name, module, dtype) for name, module in modules.items()}
    if means is not None:
        weights[Path(MEANS_FILE).stem] = {"image": means.image.cpu(), "text": means.text.cpu()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INFO_FILE).unlink(missing_ok=True)
    for optional in (DISCRIMINATOR_FILE, MEANS_FILE):
        (folder / optional).unlink(missing_ok=True)
    files = {}
    for name, tensors in weights.items():
        path = folder / f"{name}.safetensors"
        with atomic_path(path) as temporary:
            save_file(tensors, temporary)
        files[path.name] = hash_file(path)
    architecture = {name: dict(module.architecture) for name, module in modules.items()}
    whole = replace(info, architecture=architecture, files=files)
    write_json(folder / INFO_FILE, {"format_version": FORMAT_VERSION, **asdict(whole)})
    return whole


def load_bundle_info(folder: Path) -> BundleInfo:
    """Read and check ``bundle.json`` alone.

    Raises:
        CheckpointError: it is missing, damaged, of another format, or names an unknown family.
    """
    path = folder / INFO_FILE
    tree = read_description(
        path,
        {
            "family": str,
            "clip": dict,
            "resolution_px": int,
            "images_seen": int,
            "provenance": dict,
            "architecture": dict,
            "files": dict,
        },
        missing="no complete generator bundle; train one or name another",
        remedy="restore or retrain the bundle",
    )
    unknown = sorted(set(tree) - set(BundleInfo.__dataclass_fields__))
    if unknown:
        raise CheckpointError(f"{path}: unknown key {unknown[0]}; restore the bundle")
    info = BundleInfo(**tree)
    if info.family not in FAMILIES:
        raise CheckpointError(
            f"{path}: family = {info.family!r} is unknown; known: {', '.join(FAMILIES)}"
        )
    return info


def load_bundle(folder: Path, *, with_discriminator: bool = True) -> GeneratorBundle:
    """Load a bundle on the CPU in fp32.

    Args:
        with_discriminator: load it too where the bundle has one.

    Raises:
        CheckpointError: a file is missing, truncated or changed (SHA-256), the architecture cannot
            be built, or the weights do not fit it. The message names the value and the fix.
    """
    info = load_bundle_info(folder)
    networks: NetworkSpec = find_family(info.family).load("networks")
    generator = _load_module(folder, info, "generator", networks.generator)
    if generator.resolution_px != info.resolution_px:
        raise CheckpointError(
            f"{folder / INFO_FILE}: resolution_px = {info.resolution_px}, but its generator makes "
            f"{generator.resolution_px} px; restore the bundle"
        )
    discriminator = None
    if with_discriminator and "discriminator" in info.architecture:
        discriminator = _load_module(folder, info, "discriminator", networks.discriminator)
    return GeneratorBundle(generator, discriminator, info, _load_means(folder, info, generator))


def check_bundle_fits(info: BundleInfo, *, clip: Mapping[str, str]) -> None:
    """Refuse a bundle that was trained with another CLIP.

    Raises:
        CheckpointError: names both values and the fix.
    """
    for key in sorted({*info.clip, *clip}):
        ours, theirs = info.clip.get(key), clip.get(key)
        if ours != theirs:
            raise CheckpointError(
                f"the generator bundle was trained with CLIP {key} = {ours}, here it is {theirs}: "
                "use that CLIP, or train from initial_weights: none"
            )


def _load_module(folder: Path, info: BundleInfo, name: str, build: Callable[..., Module]) -> Module:
    tensors = load_weights(folder / f"{name}.safetensors", info.files)
    arguments = info.architecture.get(name)
    try:
        # The initial numbers are thrown away: leave the caller's random state alone. (The meta
        # device would do so too, but its first use costs a second.)
        with torch.random.fork_rng(devices=[]):
            module = build(**(arguments or {}))
    except (TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{folder / INFO_FILE}: no {info.family} {name} can be built from {arguments}: {error}"
        ) from None
    check_shapes(folder / f"{name}.safetensors", module.state_dict(), tensors)
    module.load_state_dict(tensors, assign=True)
    return module.eval()


def _load_means(folder: Path, info: BundleInfo, generator: Generator) -> ModalityMeans | None:
    if MEANS_FILE not in info.files:
        return None
    tensors = load_weights(folder / MEANS_FILE, info.files)
    wanted = {name: torch.empty(generator.text_dim) for name in ("image", "text")}
    check_shapes(folder / MEANS_FILE, wanted, tensors)
    return ModalityMeans(**tensors)
