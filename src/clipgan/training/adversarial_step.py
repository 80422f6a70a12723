"""What the training steps of all papers share: conditions, average, state.

Each paper's algorithm is the method ``step`` of its own class, ``families/NAME/training/step.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.losses.adversarial import mismatch_texts
from clipgan.losses.reconstruction import compute_reconstruction_loss, fade_weight
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.models.pseudo_text import compute_training_text
from clipgan.random_draws import StepRandom, draw_normal
from clipgan.training.augment import build_augmenter
from clipgan.training.distributed import Processes
from clipgan.training.drifting_warm_up import DriftingWarmUp
from clipgan.training.ema import compute_ema_decay, update_ema
from clipgan.training.fine_tuning import Networks
from clipgan.training.latent_codes import LatentCodes
from clipgan.training.power_averages import PowerAverages
from clipgan.training.state import StateTensors, StepLosses
from clipgan.training.updates import NetworkUpdates, capture_updates, restore_updates


class AdversarialStep(ABC):
    """Networks, average, augmentation and two optimizers; see the protocol ``TrainingStep``.

    Subclasses set ``generator_updates`` and ``discriminator_updates``. Of the warm-up are
    ``latent_codes`` (None: its latents are noise alone) and ``drifting`` (None: it is by
    reconstruction). ``power_averages`` are those for post-hoc EMA; None: there are none.
    """

    advice: str
    generator_updates: NetworkUpdates
    discriminator_updates: NetworkUpdates

    def __init__(
        self,
        networks: Networks[Any, Any],
        config: TrainConfig,
        *,
        mapper: NoiseMapper | None,
        processes: Processes,
    ) -> None:
        """
        Args:
            networks: on their device.
            mapper: makes the pseudo text where ``pseudo_text.kind`` is ``mapper``.
            processes: train these networks together, each with its rows of the batch.
        """
        self.generator = networks.generator
        self.discriminator = networks.discriminator
        self.generator_ema = networks.generator_ema
        self.config, self.mapper, self.processes = config, mapper, processes
        self.device = next(networks.generator.parameters()).device
        self.augmenter = build_augmenter(config.augmentation, config.batch_size, self.device)
        self.latent_codes: LatentCodes | None = None
        self.power_averages: PowerAverages | None = None
        self.drifting: DriftingWarmUp | None = None

    @abstractmethod
    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        """Update both networks and the average; see the protocol ``TrainingStep``."""

    @abstractmethod
    def compute_logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        """(N,) logits of the discriminator for images (N, 3, R, R) in [-1, 1] as they are, and
        (N, D) unit text features."""

    @abstractmethod
    def draw_images(self, texts: Tensor, random: StepRandom, codes: Tensor | None = None) -> Tensor:
        """Generated images (N, 3, R, R) of new latents, with a graph to the generator.

        For ``texts`` (N, D) and ``codes`` see :meth:`draw_conditions` and :meth:`draw_latents`.
        """

    def warm_up(
        self, batch: Batch, texts: Tensor, images_seen: int, random: StepRandom
    ) -> StepLosses:
        """The generator alone, before the two networks meet: not in the papers (ADR 0008, 0034)."""
        if self.drifting is None:
            codes = self.encode_latents(batch, images_seen)
            fake = self.draw_images(texts, random, codes)
            total = self.compute_reconstruction(fake, batch, codes)
            terms = {"reconstruction": total}
        else:
            # Copy after copy of the batch, so that every process draws the latents of its rows.
            copies = texts.repeat(self.drifting.num_latents, 1)
            terms = self.drifting.compute_terms(self.draw_images(copies, random), images_seen)
            total = terms["drifting"]
        values = self.generator_updates.apply(total, terms, "generator")
        self.update_average(images_seen)
        return values

    def draw_conditions(self, batch: Batch, random: StepRandom) -> Tensor:
        """(N, D) unit text features, pseudo or true ones as ``train.pseudo_text`` says."""
        return compute_training_text(
            batch.image_features,
            batch.text_features,
            self.config.pseudo_text,
            random.rng,
            self.mapper,
        )

    def draw_latents(self, count: int, random: StepRandom, codes: Tensor | None = None) -> Tensor:
        """(count, latent_dim) standard normal; ``codes`` (M, K) stand in the first K places of the
        first M."""
        shape = (count, self.generator.latent_dim)
        latents = draw_normal(shape, random.rng, device=random.rng.device)
        if codes is not None:
            latents[: len(codes), : codes.shape[1]] = codes
        return latents

    def encode_latents(self, batch: Batch, images_seen: int) -> Tensor | None:
        """What latents carry of the images that they are to reconstruct: (M, K), of the first M.

        All in the warm-up, half of them afterwards: the discriminator must meet what free latents
        draw, too. None where no reconstruction is asked of them, or they are noise all the same.
        """
        warms_up = images_seen < self.config.warm_up_images
        reconstructs = warms_up or self.compute_reconstruction_weight(images_seen) > 0
        if self.latent_codes is None or not reconstructs:
            return None
        count = len(batch.images) if warms_up else (len(batch.images) + 1) // 2
        return self.latent_codes.encode(batch.feature_images[:count], batch.image_features[:count])

    def compute_reconstruction(self, fake: Tensor, batch: Batch, codes: Tensor | None) -> Tensor:
        """Distance (scalar) to the images of the conditions: of the rows that carry ``codes``, or
        of all where none does."""
        count = len(fake) if codes is None else len(codes)
        return compute_reconstruction_loss(fake[:count].float(), batch.feature_images[:count])

    def mismatch(self, texts: Tensor) -> Tensor:
        """Each row's text from the next row of the whole batch, whoever holds it; detached."""
        everybodys = self.processes.all_gather(texts.detach())
        return self.processes.keep_own_rows(mismatch_texts(everybodys))

    def compute_reconstruction_weight(self, images_seen: int) -> float:
        """Of the distance to the condition's image, after the warm-up."""
        losses = self.config.section.losses
        images = images_seen - self.config.warm_up_images
        return fade_weight(losses.reconstruction_weight, images, losses.reconstruction_fade_images)

    def update_average(self, images_seen: int) -> None:
        """Move the averages of the generator's weights by one step."""
        ema, batch_size = self.config.ema, self.config.batch_size
        decay = compute_ema_decay(images_seen, batch_size, ema.half_life_kimg, ema.ramp_up_fraction)
        update_ema(self.generator_ema, self.generator, decay)
        if self.power_averages is not None:
            self.power_averages.update(self.generator, images_seen)

    def capture_state(self) -> StateTensors:
        """Networks, averages, both Adams; loss scales and augmentation where they have state."""
        state: StateTensors = {
            "generator": dict(self.generator.state_dict()),
            "discriminator": dict(self.discriminator.state_dict()),
            "generator_ema": dict(self.generator_ema.state_dict()),
            **capture_updates(self._list_updates()),
        }
        if augmentation := self.augmenter.capture_state():
            state["augmentation"] = augmentation
        if self.power_averages is not None:
            state["power_averages"] = self.power_averages.capture_state()
        return state

    def restore_state(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Undo of :meth:`capture_state`."""
        self.generator.load_state_dict(tensors["generator"])
        self.discriminator.load_state_dict(tensors["discriminator"])
        self.generator_ema.load_state_dict(tensors["generator_ema"])
        restore_updates(self._list_updates(), tensors)
        self.augmenter.restore_state(tensors.get("augmentation", {}))
        if self.power_averages is not None:
            self.power_averages.restore_state(tensors["power_averages"])

    def _list_updates(self) -> dict[str, NetworkUpdates]:
        return {"generator": self.generator_updates, "discriminator": self.discriminator_updates}
