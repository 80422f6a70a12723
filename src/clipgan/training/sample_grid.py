"""Samples of fixed prompts and latents: the same grid again and again while a generator learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from clipgan.config import MonitoringConfig, TrainConfig
from clipgan.grids import save_grid
from clipgan.images import to_uint8, to_unit_range
from clipgan.models.networks import Generator
from clipgan.random_draws import derive_seed
from clipgan.training.history import Samples

SAMPLE_SCALE_SIDE_PX = 128
"""Samples smaller than this are shown enlarged by a whole factor."""


class Encoder(Protocol):
    """The CLIP of the training, in its space."""

    def encode_images(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, D) float32, unit norm."""

    def encode_texts(self, captions: Sequence[str]) -> Tensor:
        """Captions -> (N, D) float32, unit norm."""


class SampleGrid:
    """The averaged generator's images of fixed prompts and latents, prompts by rows."""

    def __init__(
        self,
        generator_ema: Generator,
        encoder: Encoder,
        config: TrainConfig,
        monitoring: MonitoringConfig,
        folder: Path,
        *,
        probe: Callable[[], dict[str, float]],
    ) -> None:
        """``probe`` measures the discriminator whenever samples are drawn."""
        self.generator, self.encoder, self.probe = generator_ema, encoder, probe
        self.prompts = monitoring.sample_prompts
        self.columns = monitoring.samples_per_prompt
        self.batch_size = config.batch_size
        self.folder = folder
        self.scale = max(1, SAMPLE_SCALE_SIDE_PX // config.resolution_px)
        rng = torch.Generator().manual_seed(derive_seed(config.seed, "sample grid"))
        latents = torch.randn(self.columns, generator_ema.latent_dim, generator=rng)
        device = next(self.generator.parameters()).device
        self.latents = latents.repeat(len(self.prompts), 1).to(device)
        self.prompt_features = encoder.encode_texts(self.prompts).to(device)
        self.text_features = self.prompt_features.repeat_interleave(self.columns, dim=0)

    def save(self, images_seen: int) -> Samples:
        """Write ``images-<images_seen>.png`` into the grid's folder, and measure it."""
        path = self.folder / f"images-{images_seen:08d}.png"
        images = to_uint8(self.draw()).cpu()
        save_grid(
            path,
            images,
            self.columns,
            row_labels=self.prompts,
            scale=self.scale,
        )
        values = measure_differences(images, self.columns)
        if len(self.prompts) > 1:
            found = torch.cat([self._encode(part) for part in torch.split(images, self.batch_size)])
            values["sample_retrieval"] = compute_retrieval(found, self.prompt_features)
        return Samples(path, values | self.probe())

    @torch.no_grad()
    def _encode(self, images_uint8: Tensor) -> Tensor:
        return self.encoder.encode_images(to_unit_range(images_uint8.to(self.latents.device)))

    @torch.no_grad()
    def draw(self) -> Tensor:
        """(prompts * columns, 3, R, R) in about [-1, 1]."""
        starts = range(0, len(self.latents), self.batch_size)
        parts = [slice(start, start + self.batch_size) for start in starts]
        return torch.cat([self.generator(self.latents[p], self.text_features[p]) for p in parts])


def measure_differences(images_uint8: Tensor, columns: int) -> dict[str, float]:
    """How far pictures are from each other, in steps of 255: mean distance of their pixels to the
    group's mean.

    Args:
        images_uint8: (prompts * columns, 3, R, R), prompt after prompt.

    Returns:
        ``sample_diversity``, of one prompt from different latents, and ``prompt_difference``, of
        one latent under different prompts; each where there are several of them.
    """
    pictures = images_uint8.float().flatten(1).view(-1, columns, images_uint8[0].numel())
    values = {}
    if columns > 1:
        values["sample_diversity"] = _measure_spread(pictures)
    if len(pictures) > 1:
        values["prompt_difference"] = _measure_spread(pictures.transpose(0, 1))
    return values


def _measure_spread(pictures: Tensor) -> float:
    """Mean distance of (G, N, P) pictures to the mean of their group."""
    return float((pictures - pictures.mean(dim=1, keepdim=True)).abs().mean())


def compute_retrieval(image_features: Tensor, prompt_features: Tensor) -> float:
    """Share of images whose own prompt is the nearest of all, on a scale that is 0 by chance and 1
    where it always is.

    Args:
        image_features: (P * N, D) unit vectors, N images a prompt, prompt after prompt.
        prompt_features: (P, D) unit vectors.
    """
    num_prompts = len(prompt_features)
    own = torch.arange(num_prompts).repeat_interleave(len(image_features) // num_prompts)
    nearest = (image_features @ prompt_features.T).argmax(dim=1).cpu()
    share = float((nearest == own).float().mean())
    return (share * num_prompts - 1) / (num_prompts - 1)
