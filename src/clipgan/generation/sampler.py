"""Sampling of images from prompts; the same seed makes the same bytes.

Image ``j`` of a prompt comes from a latent of its own, drawn from (seed, j) by a counter-based rng,
and from the stored noise. It therefore does not depend on the other prompts and images of the same
call, and all images in a column of a grid share their latent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipgan.config import FeaturesConfig
from clipgan.devices import DTYPES
from clipgan.errors import ClipError, ConfigError
from clipgan.families.registry import FAMILIES, find_family
from clipgan.generation.family_sampling import FamilySampling
from clipgan.generation.picture_files import encode_picture
from clipgan.generation.styles import (
    StyleChoice,
    StyleMix,
    draw_latents,
    parse_style_mixes,
)
from clipgan.images import to_uint8
from clipgan.models.built_in import BUILT_IN, get_base_folder
from clipgan.models.bundle import BundleInfo, GeneratorBundle, load_bundle

if TYPE_CHECKING:
    # open_clip takes seconds to import: bad prompts are refused without it.
    from clipgan.clip.encoder import ClipEncoder

MAX_PROMPT_CHARACTERS = 500
"""CLIP reads the first few dozen words only, so a longer text must be a mistake."""
_GPU_BATCH = 32
_UNKNOWN_WORD = "\U00010380"
"""A letter of Ugaritic, which no vocabulary of words contains; one of bytes reads it as bytes."""


class Sampler:
    """A trained generator and the CLIP that it was trained with.

    Args:
        bundle: the generator, which is moved to ``device`` and set to evaluation mode.
        clip: the encoder whose fingerprint the bundle names.
        device: on the CPU images are made one by one, because kernels of another batch size may
            round differently; a GPU makes the same bytes for the same call only.
        precision: ``fp32``, or ``bf16`` for the generator's convolutions: other bytes, faster on a
            CPU that has bf16 instructions and slower on one that has none.
    """

    def __init__(
        self,
        bundle: GeneratorBundle,
        clip: ClipEncoder,
        device: torch.device,
        *,
        precision: str = "fp32",
    ) -> None:
        self.info = bundle.info
        self._bundle = bundle
        self.device = device
        self._generator = bundle.generator.to(device).eval().requires_grad_(False)
        self._clip = clip.to(device)
        self._generator.attach_clip(self._clip)
        self._family: FamilySampling = find_family(self.info.family).load("sampling")(
            self._generator
        )
        self.precision = precision
        self._family.compute_in(DTYPES[precision])
        self._batch_size = _GPU_BATCH if device.type == "cuda" else 1

    @property
    def num_layers(self) -> int:
        """Number of layers whose styles can be mixed or truncated separately; 0: no styles."""
        return self._family.num_layers

    @property
    def latent_average(self) -> Tensor:
        """(style_dim,) float32 on the CPU, the mean style of the training, which truncation moves
        to.

        Raises:
            ConfigError: the family has no styles.
        """
        return self._family.latent_average

    @torch.inference_mode()
    def sample(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        num_images: int = 1,
        truncation: float = 1.0,
        truncation_layers: int | None = None,
        latent_truncation: float | None = None,
        mixes: Sequence[StyleMix] = (),
    ) -> Tensor:
        """Make images.

        Args:
            prompts: one or more texts of 1..500 characters.
            seed: any integer from 0; the same seed makes the same images.
            num_images: for each prompt.
            truncation: 1 does not change the styles. Smaller numbers move them towards their
                average, for less variety and fewer failures; 0 makes the average image of the text.
            truncation_layers, latent_truncation: see :class:`StyleChoice`.
            mixes: image j takes the styles of the named layers from image j of the named seed.

        Returns:
            (len(prompts) * num_images, 3, R, R) uint8 on the CPU, the first prompt's images first.

        Raises:
            ConfigError: a prompt is empty or too long, a number is out of range, or the choice
                needs styles and the generator has none.
        """
        choice = StyleChoice(truncation, truncation_layers, latent_truncation, tuple(mixes))
        check_request(prompts, seed=seed, num_images=num_images, choice=choice)
        self._family.check(choice)
        # One by one, because the rows of a batch may round differently.
        texts = torch.cat([self._bundle.encode_texts(self._clip, [prompt]) for prompt in prompts])
        texts = texts.to(self.device)
        latents, *mixed = (
            self._draw_latents(source, num_images, len(prompts), choice)
            for source in (seed, *(mix.seed for mix in choice.mixes))
        )
        parts = []
        for rows in torch.split(torch.arange(len(latents)), self._batch_size):
            others = [other[rows] for other in mixed]
            images = self._family.generate(latents[rows], others, texts[rows // num_images], choice)
            parts.append(to_uint8(images).cpu())
        return torch.cat(parts)

    def describe_alike(self, prompts: Sequence[str]) -> list[str]:
        """Name prompts that make the same images, and prompts of which CLIP knows no word.

        There is a sentence for each group of different prompts with the same text features.
        """
        groups: dict[bytes, list[str]] = {}
        for prompt in dict.fromkeys((_UNKNOWN_WORD, *prompts)):
            # One by one, as they are sampled, so that equal tokens have features of equal bits.
            features = self._bundle.encode_texts(self._clip, [prompt])
            groups.setdefault(features.cpu().numpy().tobytes(), []).append(prompt)
        sentences = []
        for group in groups.values():
            names = ", ".join(repr(prompt) for prompt in group if prompt != _UNKNOWN_WORD)
            if _UNKNOWN_WORD in group and len(group) > 1:
                sentences.append(f"the CLIP knows no word of {names}: use other words")
            elif len(group) > 1:
                sentences.append(f"the CLIP sees no difference between {names}: same pictures")
        return sentences

    def sample_png(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        num_images: int = 1,
        truncation: float = 1.0,
        truncation_layers: int | None = None,
        latent_truncation: float | None = None,
        mix: str = "",
    ) -> list[bytes]:
        """Do as :meth:`sample`, with plain values that can be sent over a network, and return PNGs.

        Args:
            mix: style mixes as ``SEED:FIRST-LAST``, separated by commas.
        """
        images = self.sample(
            prompts,
            seed=seed,
            num_images=num_images,
            truncation=truncation,
            truncation_layers=truncation_layers,
            latent_truncation=latent_truncation,
            mixes=parse_style_mixes(mix.split(",") if mix.strip() else ()),
        )
        return [encode_picture(image, ".png", None) for image in images]

    def _draw_latents(
        self, seed: int, num_images: int, repeats: int, choice: StyleChoice
    ) -> Tensor:
        drawn = draw_latents(seed, num_images, self._generator.latent_dim, choice.latent_truncation)
        return drawn.to(self.device).repeat(repeats, 1)


def load_sampler(
    bundle_dir: Path | None,
    *,
    device: torch.device,
    clip_weights: str | Path | None = None,
    precision: str = "fp32",
) -> Sampler:
    """Load a generator bundle and the CLIP that its ``bundle.json`` names.

    Args:
        bundle_dir: folder of the bundle; None: the first family's built-in generator.
        clip_weights: as ``features.clip_weights``; None: those of the bundle's provenance, or the
            built-in CLIP where it names none.
        precision: of the generator, see :class:`Sampler`; CLIP's is fp32.

    Raises:
        CheckpointError: the bundle is missing or damaged.
        ClipError: the CLIP at hand is not the one the generator was trained with; names both.
    """
    folder = bundle_dir or get_base_folder(next(iter(FAMILIES)))
    bundle = load_bundle(folder, with_discriminator=False)
    weights = str(clip_weights or find_clip_weights(bundle.info))
    clip = load_matching_clip(bundle.info.clip, weights, device)
    return Sampler(bundle, clip, device, precision=precision)


def find_clip_weights(info: BundleInfo, features: FeaturesConfig | None = None) -> str:
    """Find the weights of a bundle's CLIP, as ``features.clip_weights`` names them.

    A bundle that was made from a checkpoint does not name them. They are then those of the project
    (``features``), if these are of the bundle's model.
    """
    named = info.provenance.get("clip_weights")
    if named is None and features is not None and info.clip.get("model") == features.clip_model:
        named = features.clip_weights
    return str(named or BUILT_IN)


def load_matching_clip(
    fingerprint: Mapping[str, str],
    clip_weights: str,
    device: torch.device,
    precision: str = "fp32",
) -> ClipEncoder:
    """Load the CLIP of ``fingerprint`` in ``precision``, which may differ from the training's.

    Raises:
        ClipError: it cannot be loaded, or its weights are not those of the training; names both.
    """
    from clipgan.clip.encoder import load_clip

    model = fingerprint.get("model", "")
    clip = load_clip(model, clip_weights, precision=precision, device=device)
    for key in sorted(set(fingerprint) | set(clip.fingerprint)):
        wanted, loaded = fingerprint.get(key), clip.fingerprint.get(key)
        if key != "precision" and wanted != loaded:
            raise ClipError(
                f"the generator was trained with CLIP {model!r} of {key} = {wanted}, but "
                f"{clip_weights} has {loaded}: use the weights it was trained with"
            )
    return clip


def check_request(
    prompts: Sequence[str], *, seed: int, num_images: int, choice: StyleChoice
) -> None:
    """Refuse what cannot be sampled, before any weights are loaded.

    Raises:
        ConfigError: names the value and the range.
    """
    if not prompts:
        raise ConfigError("no prompt: say what to draw, such as 'a red apple'")
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ConfigError(
                f"prompt {prompt!r} is empty: say what to draw, such as 'a red apple'"
            )
        if prompt.encode(errors="ignore").decode() != prompt:
            raise ConfigError(f"prompt {prompt!r} is no UTF-8 text: type it in a UTF-8 terminal")
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise ConfigError(
                f"prompt {prompt[:30]!r}... has {len(prompt)} characters: "
                f"use at most {MAX_PROMPT_CHARACTERS}"
            )
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed = {seed}: use a whole number from 0 to 2^63 - 1")
    if num_images < 1:
        raise ConfigError(f"number of images = {num_images}: use at least 1")
    choice.check()
