"""The parts of a LAFITE step that are the same with either discriminator.

Updates of both networks, fakes with mixed styles, path length regularisation, and the state that
all of it needs.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.lafite.config import LafiteConfig
from clipgan.families.lafite.training.losses import LossSum
from clipgan.losses.penalties import PathLengthPenalty
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import StepRandom
from clipgan.training.adversarial_step import AdversarialStep
from clipgan.training.distributed import Processes
from clipgan.training.fine_tuning import Networks
from clipgan.training.state import StateTensors, StepLosses
from clipgan.training.updates import LossScale, NetworkUpdates


class GeneratorPhases(AdversarialStep, ABC):
    """Networks, optimizers and running means of a LAFITE training."""

    def __init__(
        self,
        networks: Networks[Any, Any],
        config: TrainConfig,
        *,
        mapper: NoiseMapper | None,
        processes: Processes,
    ) -> None:
        """``mapper`` makes the pseudo text where ``pseudo_text.kind`` is ``mapper``; ``processes``
        train these networks together, each with its rows of the batch."""
        super().__init__(networks, config, mapper=mapper, processes=processes)
        lafite: LafiteConfig = config.lafite
        weights, rates = lafite.losses, lafite.optimizer
        self.lafite, fp16 = lafite, config.precision == "fp16"
        self.generator_updates = NetworkUpdates(
            self.generator,
            rates.generator_learning_rate,
            rates,
            loss_scale=LossScale() if fp16 else None,
            lazy_interval=weights.path_length_interval if weights.path_length_weight > 0 else None,
            processes=processes,
        )
        self.discriminator_updates = NetworkUpdates(
            self.discriminator,
            rates.discriminator_learning_rate,
            rates,
            loss_scale=LossScale() if fp16 else None,
            lazy_interval=weights.r1_interval if weights.r1_gamma > 0 else None,
            processes=processes,
        )
        self.averages_every_phase = lafite.latent_average == "per_phase"
        self.path_length = PathLengthPenalty(weights.path_length_decay, processes.average).to(
            self.device
        )

    def draw_images(self, texts: Tensor, random: StepRandom, codes: Tensor | None = None) -> Tensor:
        """See :class:`AdversarialStep`; the mean latent moves."""
        return self.draw_fakes(texts, random, update_average=True, codes=codes)[0]

    def add_reconstruction(
        self, loss: LossSum, fake: Tensor, batch: Batch, codes: Tensor | None, images_seen: int
    ) -> None:
        """Add the distance to the image whose feature the pseudo text comes from, while it has a
        weight."""
        if (weight := self.compute_reconstruction_weight(images_seen)) > 0:
            distance = self.compute_reconstruction(fake, batch, codes)
            loss.add("reconstruction", distance, weight)

    def regularize_path_length(self, texts: Tensor, random: StepRandom) -> StepLosses:
        """One update by the path lengths of a part of the batch."""
        weights, generator = self.lafite.losses, self.generator_updates
        few = texts[: max(1, int(len(texts) * weights.path_length_batch_fraction))]
        fake, styles = self.draw_fakes(few, random, update_average=self.averages_every_phase)
        mean, before = self.path_length.mean_length, self.path_length.mean_length.clone()
        penalty = self.path_length(fake, styles, rng=random.rng, scale=generator.scale).mean()
        total = weights.path_length_weight * weights.path_length_interval * penalty
        values = generator.apply(total, {"path_length_penalty": penalty}, "path_length")
        # Where the lengths overflowed the running mean must not keep them.
        finite = torch.isfinite(values.get_on_device("path_length_penalty"))
        mean.copy_(torch.where(finite, mean, before))
        return values

    def draw_fakes(
        self,
        texts: Tensor,
        random: StepRandom,
        *,
        update_average: bool,
        codes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Images (N, 3, R, R) of new latents, and their styles; for ``codes`` see
        :meth:`draw_latents`."""
        styles = self._draw_styles(len(texts), random, codes, update_average=update_average)
        fake: Tensor = self.generator.synthesis(styles, texts, noise="random", rng=random.rng)
        return fake, styles

    def _draw_styles(
        self, count: int, random: StepRandom, codes: Tensor | None = None, *, update_average: bool
    ) -> Tensor:
        """(count, num_layers, style_dim); with style mixing, one cutoff for the batch."""
        generator = self.generator
        styles: Tensor = generator.mapping(self.draw_latents(count, random, codes))
        if update_average:
            generator.update_latent_average(self.processes.all_gather(styles.detach()))
        if random.draw_fraction() < self.lafite.losses.style_mixing_probability:
            cutoff = random.draw_integer(1, generator.num_layers - 1)
            other = generator.mapping(self.draw_latents(count, random, codes))
            styles = torch.cat([styles[:, :cutoff], other[:, cutoff:]], dim=1)
        return styles

    def capture_state(self) -> StateTensors:
        """All of :class:`AdversarialStep`, and the path-length mean."""
        return {**super().capture_state(), "path_length": dict(self.path_length.state_dict())}

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        super().restore_state(tensors)
        self.path_length.load_state_dict(tensors["path_length"])
