"""What a training step is in either paper: conditions, warm-up or game, average, state.

The papers' own parts are :class:`clipgan.training.lafite_step.LafiteStep` and
:class:`clipgan.training.galip_step.GalipStep`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from clipgan.config import OptimizerConfig, TrainConfig
from clipgan.data.batches import Batch
from clipgan.losses.reconstruction import compute_reconstruction_loss
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.models.pseudo_text import compute_training_text
from clipgan.training.augmenter import build_augmenter
from clipgan.training.distributed import Processes
from clipgan.training.ema import compute_ema_decay, update_ema
from clipgan.training.fine_tuning import Networks
from clipgan.training.random_streams import StepRandom
from clipgan.training.state import StateTensors, StepLosses
from clipgan.training.updates import (
    LossScale,
    NetworkUpdates,
    capture_updates,
    restore_updates,
)


class GameStep(ABC):
    """Networks, optimizers and average of a training; see the protocol ``TrainingStep``."""

    advice: str

    def __init__(
        self,
        networks: Networks[Any, Any],
        config: TrainConfig,
        *,
        rates: OptimizerConfig,
        reconstruction_weight: float,
        build_loss_scale: Callable[[], LossScale | None],
        lazy_intervals: tuple[int | None, int | None],
        mapper: NoiseMapper | None,
        processes: Processes,
    ) -> None:
        """
        Args:
            networks: on their device.
            rates, reconstruction_weight: of the family's own section.
            build_loss_scale: a new scale for each network; None for a precision without one.
            lazy_intervals: of the generator's and the discriminator's lazy regularisation.
            mapper: makes the pseudo text where ``pseudo_text.kind`` is ``mapper``.
            processes: train these networks together, each with its rows of the batch.
        """
        self.generator = networks.generator
        self.discriminator = networks.discriminator
        self.generator_ema = networks.generator_ema
        self.config, self.mapper, self.processes = config, mapper, processes
        self.reconstruction_weight = reconstruction_weight
        self.augmenter = build_augmenter(
            config.augmentation, config.batch_size, next(networks.generator.parameters()).device
        )
        self.generator_updates, self.discriminator_updates = (
            NetworkUpdates(
                network,
                rate,
                rates,
                loss_scale=build_loss_scale(),
                lazy_interval=interval,
                processes=processes,
            )
            for network, rate, interval in zip(
                (networks.generator, networks.discriminator),
                (rates.generator_learning_rate, rates.discriminator_learning_rate),
                lazy_intervals,
                strict=True,
            )
        )

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        """Update both networks and the average; see the protocol ``TrainingStep``."""
        text_features = compute_training_text(
            batch.image_features,
            batch.text_features,
            self.config.pseudo_text,
            random.device,
            self.mapper,
        )
        if images_seen < self.config.warm_up_images:
            values = self._warm_up(batch.feature_images, text_features, random)
        else:
            values = self._play(batch, text_features, images_seen, random)
        ema = self.config.ema
        decay = compute_ema_decay(
            images_seen, self.config.batch_size, ema.half_life_kimg, ema.ramp_up_fraction
        )
        update_ema(self.generator_ema, self.generator, decay)
        return values

    def _warm_up(self, images: Tensor, text_features: Tensor, random: StepRandom) -> StepLosses:
        """Reconstruction alone, before the game starts (not in the papers; see ADR 0008)."""
        fake = self._draw_fakes(text_features, random)
        terms = {"reconstruction": compute_reconstruction_loss(fake.float(), images)}
        total = self.reconstruction_weight * terms["reconstruction"]
        return self.generator_updates.apply(total, terms, "generator")

    @abstractmethod
    def _draw_fakes(self, text_features: Tensor, random: StepRandom) -> Tensor:
        """(N, 3, R, R) with a graph to the generator, which learns."""

    @abstractmethod
    def _play(
        self, batch: Batch, text_features: Tensor, images_seen: int, random: StepRandom
    ) -> StepLosses:
        """The paper's step."""

    def capture_state(self) -> StateTensors:
        """Networks, average and both Adams; where there are such, loss scales and the state of
        the augmentation."""
        state: StateTensors = {
            "generator": dict(self.generator.state_dict()),
            "discriminator": dict(self.discriminator.state_dict()),
            "generator_ema": dict(self.generator_ema.state_dict()),
            **capture_updates(self._list_updates()),
        }
        if augmentation := self.augmenter.capture_state():
            state["augmentation"] = augmentation
        return state

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        self.generator.load_state_dict(tensors["generator"])
        self.discriminator.load_state_dict(tensors["discriminator"])
        self.generator_ema.load_state_dict(tensors["generator_ema"])
        restore_updates(self._list_updates(), tensors)
        self.augmenter.restore_state(tensors.get("augmentation", {}))

    def _list_updates(self) -> dict[str, NetworkUpdates]:
        return {"generator": self.generator_updates, "discriminator": self.discriminator_updates}
