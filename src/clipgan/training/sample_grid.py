"""Samples of fixed prompts and latents: the same grid again and again while a generator learns."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from clipgan.config import MonitoringConfig, TrainConfig
from clipgan.grids import save_grid
from clipgan.images import to_uint8
from clipgan.models.networks import Generator
from clipgan.training.conditions import Conditions
from clipgan.training.early_signs import SampleWatch
from clipgan.training.random_streams import derive_seed

SAMPLE_SCALE_SIDE_PX = 128
"""Samples smaller than this are shown enlarged by a whole factor."""


class SampleGrid:
    """The averaged generator's images of fixed prompts and latents, prompts by rows."""

    def __init__(
        self,
        generator_ema: Generator,
        conditions: Conditions,
        config: TrainConfig,
        monitoring: MonitoringConfig,
        folder: Path,
        *,
        is_untrained: bool,
    ) -> None:
        """``is_untrained``: see :class:`SampleWatch`, which looks at every grid."""
        self.watch = SampleWatch(monitoring.samples_per_prompt, is_untrained=is_untrained)
        self.generator = generator_ema
        self.prompts = monitoring.sample_prompts
        self.columns = monitoring.samples_per_prompt
        self.batch_size = config.batch_size
        self.folder = folder
        self.scale = max(1, SAMPLE_SCALE_SIDE_PX // config.resolution_px)
        rng = torch.Generator().manual_seed(derive_seed(config.seed, "sample grid"))
        latents = torch.randn(self.columns, generator_ema.latent_dim, generator=rng)
        device = next(self.generator.parameters()).device
        self.latents = latents.repeat(len(self.prompts), 1).to(device)
        text_features = conditions.encode_texts(self.prompts).to(device)
        self.text_features = text_features.repeat_interleave(self.columns, dim=0)

    def save(self, images_seen: int) -> Path:
        """Write ``images-<images_seen>.png`` into the grid's folder."""
        path = self.folder / f"images-{images_seen:08d}.png"
        images = to_uint8(self.draw()).cpu()
        self.watch.look(images, images_seen)
        save_grid(path, images, self.columns, row_labels=self.prompts, scale=self.scale)
        return path

    @torch.no_grad()
    def draw(self) -> Tensor:
        """(prompts * columns, 3, R, R) in about [-1, 1]."""
        starts = range(0, len(self.latents), self.batch_size)
        parts = [slice(start, start + self.batch_size) for start in starts]
        return torch.cat([self.generator(self.latents[p], self.text_features[p]) for p in parts])
