"""Training of LAFITE-NN's noise mapper: pseudo text that finds its own caption in the batch.

The paper names the objective, the released code the temperature, the batch and the rate of the
one mapper its authors used; no trainer was released.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipgan.clip.feature_store import FeatureTable
from clipgan.config import PretrainMapperConfig
from clipgan.errors import DataError, TrainingDivergedError
from clipgan.losses.contrastive import compute_contrastive_loss
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.progress import progress_bar
from clipgan.training.checkpoint import CheckpointStore
from clipgan.training.conditions import list_caption_rows
from clipgan.training.interrupts import defer_interrupts
from clipgan.training.random_streams import StepRandom, derive_seed
from clipgan.training.state import capture_optimizer, restore_optimizer

LOG_INTERVAL_STEPS = 50
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
        draws = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
        rows = draws.choice(self.num_images, size=count, replace=False)
        captions = draws.integers(self.offsets[rows], self.offsets[rows + 1])
        images = torch.from_numpy(self.image_features[rows].astype(np.float32))
        texts = torch.from_numpy(self.text_features[captions].astype(np.float32))
        return images.to(device), texts.to(device)


class MapperTraining:
    """Mapper, optimizer and the state to go on from; every step is a function of (seed, step)."""

    def __init__(
        self,
        config: PretrainMapperConfig,
        pairs: CaptionedFeatures,
        checkpoints: CheckpointStore,
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
        self.config, self.pairs, self.checkpoints = config, pairs, checkpoints
        self.device = device
        dim = pairs.image_features.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "noise mapper"))
            self.mapper = NoiseMapper(dim=dim, hidden_dim=config.hidden_dim).to(device)
        self.optimizer = torch.optim.Adam(self.mapper.parameters(), lr=config.learning_rate)
        self.random = StepRandom(device)
        self.steps_done = 0

    def run(self) -> int | None:
        """Train to the end; gives the step it went on from, None for a fresh start.

        Raises:
            TrainingDivergedError: the loss became NaN or infinite.
            KeyboardInterrupt, SystemExit: asked to stop; a checkpoint was written first.
        """
        resumed_from = self._resume()
        total = self.config.steps
        with (
            progress_bar("noise mapper", total, "steps", done=self.steps_done) as bar,
            defer_interrupts() as request,
        ):
            while self.steps_done < total:
                loss = self._step()
                stopping = request.signal is not None
                due = self.steps_done % self.config.checkpoint_interval_steps == 0
                if self.steps_done % LOG_INTERVAL_STEPS == 0 or self.steps_done == total:
                    self._check(loss)
                    bar.note(f"loss {float(loss):.3f}")
                if due or stopping:
                    self._check(loss)
                    self._save()
                bar.advance()
                if stopping:
                    request.raise_if_set()
        self.mapper.eval().requires_grad_(False)
        return resumed_from

    def _step(self) -> Tensor:
        config = self.config
        self.random.seed("noise mapper", config.seed, self.steps_done)
        seed = derive_seed("noise mapper batch", config.seed, self.steps_done)
        images, texts = self.pairs.draw_pairs(config.batch_size, seed, self.device)
        pseudo = self.mapper(images, _draw_noise(images, self.random.device))
        loss = compute_contrastive_loss(
            pseudo, texts, config.temperature, kind=config.contrastive, axis="both"
        )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.steps_done += 1
        return loss.detach()

    def _check(self, loss: Tensor) -> None:
        if not math.isfinite(float(loss)):
            raise TrainingDivergedError(
                f"the noise mapper's loss became {float(loss)} at step {self.steps_done:,}: lower "
                "pretrain_mapper.learning_rate or raise its temperature"
            )

    def _save(self) -> None:
        self.checkpoints.save(
            self.steps_done,
            {},
            {
                "mapper": dict(self.mapper.state_dict()),
                "optimizer": capture_optimizer(self.optimizer),
            },
        )

    def _resume(self) -> int | None:
        checkpoint = self.checkpoints.load_newest()
        if checkpoint is None:
            return None
        self.mapper.load_state_dict(checkpoint.tensors["mapper"])
        restore_optimizer(self.optimizer, checkpoint.tensors["optimizer"])
        self.steps_done = checkpoint.images_seen
        return self.steps_done


@torch.no_grad()
def compute_mapper_metrics(
    mapper: NoiseMapper, pairs: CaptionedFeatures, config: PretrainMapperConfig
) -> dict[str, float]:
    """How near pseudo text comes to true text, over at most 4,096 pairs; empty where there is none.

    Mean cosines of a pair: ``image_text`` (what there is to gain on), ``pseudo_text``,
    ``pseudo_image``; ``r_at_1``: share of pseudo texts whose own caption is the nearest of all.
    """
    count = min(pairs.num_images, MEASURED_PAIRS)
    if count == 0:
        return {}
    device = next(mapper.parameters()).device
    images, texts = pairs.draw_pairs(count, derive_seed("measured pairs", config.seed), device)
    draws = torch.Generator(device).manual_seed(derive_seed("measured noise", config.seed))
    pseudo = mapper(images, _draw_noise(images, draws))
    nearest = (pseudo @ texts.t()).argmax(dim=1)
    found = {
        "image_text": F.cosine_similarity(images, texts).mean(),
        "pseudo_text": F.cosine_similarity(pseudo, texts).mean(),
        "pseudo_image": F.cosine_similarity(pseudo, images).mean(),
        "r_at_1": (nearest == torch.arange(count, device=device)).float().mean(),
    }
    return {"pairs": count, **{name: round(float(value), 4) for name, value in found.items()}}


def _draw_noise(features: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(features.shape, device=features.device, generator=generator)
