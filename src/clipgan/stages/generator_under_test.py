"""A generator bundle in an evaluation: it makes batches of images from captions."""

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
"""Batch of the generator on the CPU, where an image of 64 px takes 37 ms; with 64 it takes 43."""

FindConditions = Callable[[Sequence[str]], Tensor]


def find_stored_conditions(
    bundle: GeneratorBundle, stored: StoredFeatures, clip: TextEncoder
) -> FindConditions:
    """Find stored features of captions or sample ids, prepared as the generator takes them."""

    def find(conditions: Sequence[str]) -> Tensor:
        if bundle.takes_raw_texts and stored.are_captions(conditions):
            # Stored features are of unit length.
            return bundle.encode_texts(clip, conditions)
        features = stored.find(conditions)
        if stored.are_captions(conditions):
            return bundle.prepare_texts(features)
        return bundle.prepare_images(features)

    return find


class GeneratorUnderTest:
    """Generates images in batches; latent i of the seed makes image i.

    Args:
        bundle: its generator is moved to ``device``.
        find_conditions: captions or sample ids -> (N, D), as the generator takes them.
        batch_size: the largest batch.
        side_px: of the images; smaller ones are enlarged (bicubic).
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
        """The generator as :meth:`Driver.measure` takes it."""
        latents = LatentAccess(self._generate_float, self._find_conditions, self._bundle.latent_dim)
        return ImageSource(self.generate, latents)

    def generate(self, conditions: Sequence[str]) -> Iterator[Tensor]:
        """Generate batches of (n, 3, R, R) uint8, each image from a latent of its own."""
        latents = draw_latents(self._seed, len(conditions), self._bundle.latent_dim)
        return self._run(conditions, latents)

    def generate_grid(self, prompts: Sequence[str], columns: int) -> Tensor:
        """Generate (prompts, columns, 3, R, R) uint8; all images in a column share their latent."""
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
