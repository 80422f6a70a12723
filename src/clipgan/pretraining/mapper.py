"""Training of LAFITE-NN's noise mapper: pseudo text that finds its own caption in the batch.

The objective is the paper's. Temperature, batch size and learning rate are those of the mapper in
the released code, which has no trainer for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipgan.clip.feature_store import FeatureTable
from clipgan.config import PretrainMapperConfig
from clipgan.errors import DataError
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import StepRandom, derive_seed
from clipgan.training.conditions import list_caption_rows
from clipgan.training.state import StateTensors, capture_optimizer, restore_optimizer

MEASURED_PAIRS = 4096
"""Enough for two digits of a mean cosine."""


@dataclass(frozen=True)
class CaptionedFeatures:
    """Image features (N, D) float16, unit norm; each image's captions are rows ``offsets[i]:
    offsets[i + 1]`` of the text features (M, D), at least one."""

    image_features: NDArray[np.float16]
    text_features: NDArray[np.float16]
    offsets: NDArray[np.int64]

    @classmethod
    def select(cls, table: FeatureTable, images: NDArray[np.int64]) -> Self:
        """The captioned ones of these rows of the table."""
        counts = np.diff(table.caption_offsets)[images]
        captioned = images[counts > 0]
        return cls(
            table.image_features[captioned],
            table.text_features[list_caption_rows(table, captioned)],
            np.concatenate([[0], np.cumsum(counts[counts > 0])]).astype(np.int64),
        )

    @property
    def num_images(self) -> int:
        return len(self.image_features)

    def draw_pairs(self, count: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Different images with a caption each, as a function of ``seed``: (count, D) float32."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
        rows = rng.choice(self.num_images, size=count, replace=False)
        captions = rng.integers(self.offsets[rows], self.offsets[rows + 1])
        images = torch.from_numpy(self.image_features[rows].astype(np.float32))
        texts = torch.from_numpy(self.text_features[captions].astype(np.float32))
        return images.to(device), texts.to(device)


class MapperTraining:
    """Mapper and optimizer; every step is a function of the weights, the seed and its number."""

    advice = "lower pretrain_mapper.learning_rate or raise its temperature"

    def __init__(
        self,
        config: PretrainMapperConfig,
        pairs: CaptionedFeatures,
        device: torch.device,
    ) -> None:
        """
        Raises:
            DataError: fewer captioned images than a batch.
        """
        if pairs.num_images < config.batch_size:
            raise DataError(
                f"pretrain_mapper.batch_size = {config.batch_size}, but {pairs.num_images} "
                "captioned images may be used: lower it, raise caption_fraction, or caption images"
            )
        self.config, self.pairs, self.device = config, pairs, device
        dim = pairs.image_features.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "noise mapper"))
            self.mapper = NoiseMapper(dim=dim, hidden_dim=config.hidden_dim).to(device)
        self.optimizer = torch.optim.Adam(self.mapper.parameters(), lr=config.learning_rate)
        self.random = StepRandom(device)

    def step(self, number: int) -> dict[str, Tensor]:
        """See :class:`~clipgan.training.resumable.SmallTraining`."""
        config = self.config
        self.random.seed("noise mapper", config.seed, number)
        seed = derive_seed("noise mapper batch", config.seed, number)
        images, texts = self.pairs.draw_pairs(config.batch_size, seed, self.device)
        pseudo = self.mapper(images, _draw_noise(images, self.random.rng))
        loss = compute_contrastive_loss(
            pseudo, texts, config.temperature, kind=config.contrastive, axis="both"
        )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return {"loss": loss.detach()}

    def capture_state(self) -> StateTensors:
        """See :class:`~clipgan.training.resumable.Resumable`."""
        optimizer = capture_optimizer(self.optimizer)
        return {"mapper": dict(self.mapper.state_dict()), "optimizer": optimizer}

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        self.mapper.load_state_dict(tensors["mapper"])
        restore_optimizer(self.optimizer, tensors["optimizer"])


@torch.no_grad()
def compute_mapper_metrics(
    mapper: NoiseMapper, pairs: CaptionedFeatures, config: PretrainMapperConfig
) -> dict[str, float]:
    """How close pseudo text is to true text, over at most 4,096 pairs; empty where there is none.

    Mean cosines of a pair: ``image_text`` (what there is to gain on), ``pseudo_text``,
    ``pseudo_image``; ``r_at_1``: share of pseudo texts whose own caption is the nearest of all.
    """
    count = min(pairs.num_images, MEASURED_PAIRS)
    if count == 0:
        return {}
    device = next(mapper.parameters()).device
    images, texts = pairs.draw_pairs(count, derive_seed("measured pairs", config.seed), device)
    rng = torch.Generator(device).manual_seed(derive_seed("measured noise", config.seed))
    pseudo = mapper(images, _draw_noise(images, rng))
    nearest = (pseudo @ texts.t()).argmax(dim=1)
    metrics = {
        "image_text": F.cosine_similarity(images, texts).mean(),
        "pseudo_text": F.cosine_similarity(pseudo, texts).mean(),
        "pseudo_image": F.cosine_similarity(pseudo, images).mean(),
        "r_at_1": (nearest == torch.arange(count, device=device)).float().mean(),
    }
    return {"pairs": count, **{name: round(float(value), 4) for name, value in metrics.items()}}


def _draw_noise(features: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(features.shape, device=features.device, generator=rng)
