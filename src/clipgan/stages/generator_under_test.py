"""A generator bundle as the evaluator sees it: captions in, batches of images out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from clipgan.evaluation.metrics.inputs import LatentAccess
from clipgan.evaluation.study.driver import ImageSource
from clipgan.generation.styles import draw_latents
from clipgan.images import resize, to_uint8
from clipgan.models.bundle import GeneratorBundle, TextEncoder
from clipgan.stages.stored_features import StoredFeatures

CPU_BATCH = 8
"""Images at once through the generator on the CPU: 37 ms each at 64 px, against 43 with 64."""

FindConditions = Callable[[Sequence[str]], Tensor]


def find_stored_conditions(
    bundle: GeneratorBundle, stored: StoredFeatures, clip: TextEncoder
) -> FindConditions:
    """Stored features of captions, or of images by sample id, in the generator's own space."""

    def find(conditions: Sequence[str]) -> Tensor:
        if bundle.takes_raw_texts and stored.are_captions(conditions):
            # Stored features are of unit length.
            return bundle.encode_texts(clip, conditions)
        features = stored.find(conditions)
        if stored.are_captions(conditions):
            return bundle.prepare_texts(features)
        return bundle.prepare_images(features)

    return find


def encode_conditions(bundle: GeneratorBundle, clip: TextEncoder) -> FindConditions:
    """Captions through the CLIP, in the generator's own space."""
    return lambda captions: bundle.encode_texts(clip, captions)


class GeneratorUnderTest:
    """Text features and latents in batches; the seed gives image i the latent i.

    Args:
        bundle: its generator is moved to ``device``.
        find_conditions: captions or sample ids -> what the generator takes them as, (N, D).
        batch_size: at most so many images at once.
        side_px: of the images given; smaller ones are enlarged, bicubic.
    """

    def __init__(
        self,
        bundle: GeneratorBundle,
        find_conditions: FindConditions,
        *,
        seed: int,
        truncation: float,
        batch_size: int,
        side_px: int,
        device: torch.device,
    ) -> None:
        bundle.generator.to(device).eval()
        self._bundle = bundle
        self._find_conditions, self._device = find_conditions, device
        self._seed, self._truncation, self._side_px = seed, truncation, side_px
        self._batch_size = min(batch_size, CPU_BATCH) if device.type == "cpu" else batch_size

    @property
    def source(self) -> ImageSource:
        """This generator for :meth:`Driver.measure`."""
        latents = LatentAccess(self._generate_float, self._find_conditions, self._bundle.latent_dim)
        return ImageSource(self.generate, latents)

    def generate(self, conditions: Sequence[str]) -> Iterator[Tensor]:
        """Batches of (n, 3, R, R) uint8, each image from a latent of its own."""
        latents = draw_latents(self._seed, len(conditions), self._bundle.latent_dim)
        return self._run(conditions, latents)

    def generate_grid(self, prompts: Sequence[str], columns: int) -> Tensor:
        """(prompts, columns, 3, R, R) uint8; the columns share their latents."""
        latents = draw_latents(self._seed, columns, self._bundle.latent_dim)
        repeated = [prompt for prompt in prompts for _ in range(columns)]
        images = torch.cat(list(self._run(repeated, latents.repeat(len(prompts), 1))))
        return images.view(len(prompts), columns, *images.shape[1:])

    def _run(self, conditions: Sequence[str], latents: Tensor) -> Iterator[Tensor]:
        texts = self._find_conditions(conditions)
        size = self._batch_size
        for z, text in zip(torch.split(latents, size), torch.split(texts, size), strict=True):
            yield to_uint8(self._generate_float(z, text)).cpu()

    @torch.inference_mode()
    def _generate_float(self, latents: Tensor, texts: Tensor) -> Tensor:
        images = self._bundle.generate(
            latents.to(self._device), texts.to(self._device), truncation=self._truncation
        )
        return resize(images, self._side_px)
