"""One training step of LAFITE's generator against heads on maps of CLIP (see
:mod:`clipgan.families.lafite.networks.projected`).

CLIP looks at every batch once, after augmentation: its maps serve both losses, its embedding the
contrastive term. So both networks are updated on the same fakes, the heads first, where LAFITE
draws new ones for the discriminator. There is no gradient penalty: the heads are spectrally
normalised.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clipgan.config import TrainConfig
from clipgan.data.batches import Batch
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.families.lafite.networks.projected import ProjectedDiscriminator
from clipgan.families.lafite.training.generator_phases import GeneratorPhases
from clipgan.families.lafite.training.projected_losses import ProjectedLosses
from clipgan.models.noise_mapper import NoiseMapper
from clipgan.random_draws import StepRandom
from clipgan.training.clip_maps import ClipMaps, ClipView
from clipgan.training.distributed import SINGLE, Processes
from clipgan.training.fine_tuning import Networks
from clipgan.training.state import StepLosses


class ProjectedStep(GeneratorPhases):
    """LAFITE's generator against a projected discriminator."""

    advice = (
        "lower train.lafite.optimizer's learning rates or "
        "train.lafite.losses.clip_contrastive_weight"
    )

    def __init__(
        self,
        networks: Networks[LafiteGenerator, ProjectedDiscriminator],
        clip: ClipMaps,
        config: TrainConfig,
        *,
        mapper: NoiseMapper | None = None,
        processes: Processes = SINGLE,
    ) -> None:
        """``clip`` is the frozen CLIP; for the rest see :class:`GeneratorPhases`."""
        super().__init__(networks, config, mapper=mapper, processes=processes)
        self.clip = clip
        self.losses = ProjectedLosses(
            networks.discriminator, config, all_gather=processes.all_gather
        )

    def step(self, batch: Batch, images_seen: int, random: StepRandom) -> StepLosses:
        """See the protocol ``TrainingStep``."""
        weights, index = self.lafite.losses, images_seen // self.config.batch_size

        # Conditions h': pseudo text features of the real images.
        texts = self.draw_conditions(batch, random)

        self.generator.requires_grad_(True)
        if images_seen < self.config.warm_up_images:
            return self.warm_up(batch, texts, images_seen, random)

        # Fakes x' = G(z, h'), with a graph to G.
        codes = self.encode_latents(batch, images_seen)
        fake = self.draw_images(texts, random, codes)

        # What CLIP sees of fakes and real images.
        view = self._look(fake, random)
        with torch.no_grad():
            real_maps = self._look(batch.images, random).maps

        # Loss of D on the maps of both, and on the real ones with others' texts.
        self.discriminator.requires_grad_(True)
        others = self.mismatch(texts) if weights.mismatched_share > 0 else None
        fake_maps = [maps.detach() for maps in view.maps]
        loss = self.losses.compute_discriminator_loss(fake_maps, real_maps, texts, others)
        values = self.discriminator_updates.apply(loss.total, loss.terms, "discriminator")

        # Loss of G on the same maps, its contrastive term on the embeddings, and (not in the paper)
        # the distance to the image of the condition.
        self.discriminator.requires_grad_(False)
        loss = self.losses.compute_generator_loss(view, real_maps, batch, texts)
        self.add_reconstruction(loss, fake, batch, codes, images_seen)
        values |= self.generator_updates.apply(loss.total, loss.terms, "generator")

        # Path length regularisation of G on a part of the batch (Karras et al. 2020, equation 4).
        if weights.path_length_weight > 0 and index % weights.path_length_interval == 0:
            values |= self.regularize_path_length(texts, random)

        # Average of G's weights (Karras et al. 2018, section 4.2).
        self.update_average(images_seen)
        return values

    def compute_logits(self, images: Tensor, text_features: Tensor) -> Tensor:
        """See :class:`AdversarialStep`; the mean over all places of all depths."""
        output = self.discriminator(self.clip.encode(images).maps)
        logits: Tensor = self.discriminator.compute_logits(output, text_features)
        return logits.mean(1)

    def _look(self, images: Tensor, random: StepRandom) -> ClipView:
        return self.clip.encode(self.augmenter.augment(images, random.rng))
