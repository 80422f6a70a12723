"""The parameters of LAFITE (arXiv 2111.13792), frozen and typed; no defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clipgan.config.fields import (
    AdversarialKind,
    ContrastiveAxis,
    ContrastiveKind,
    FamilySection,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    ReconstructionTerm,
    Section,
    check_power_of_two,
)
from clipgan.errors import ConfigError

if TYPE_CHECKING:
    from clipgan.config.training import TrainConfig

StyleInput = Literal["latent", "affine"]
SemanticLogit = Literal["per_sample", "batch_sum"]
LatentAverage = Literal["per_step", "per_phase"]
DiscriminatorKind = Literal["stylegan2", "projected"]


class GeneratorConfig(Section):
    """StyleGAN2 skip generator with text in every layer (LAFITE, section 3.1)."""

    latent_dim: PositiveInt
    style_dim: PositiveInt
    text_hidden_dim: Annotated[
        int, Field(ge=1, description="width of the text path of every layer")
    ]
    text_gain: Annotated[
        Positive, Field(description="factor on unit text features; 1 in the paper")
    ]
    text_learning_rate_multiplier: Annotated[
        Positive, Field(description="of the text paths; 0.01 in the paper")
    ]
    style_input: Annotated[
        StyleInput, Field(description="what meets the text: w (latent, released code) or affine(w)")
    ]
    text_max_px: Annotated[int, Field(ge=4, le=1024, description="text in blocks up to here")]
    text_concat_max_px: Annotated[
        int, Field(ge=0, le=1024, description="concatenated up to here, above scale and shift")
    ]
    mapping_layers: PositiveInt
    channel_base: PositiveInt
    channel_max: PositiveInt

    @model_validator(mode="after")
    def _text_ends_at_a_block(self) -> Self:
        check_power_of_two("text_max_px", self.text_max_px)
        if self.text_concat_max_px:
            check_power_of_two("text_concat_max_px", self.text_concat_max_px)
        return self


class ProjectedConfig(Section):
    """Heads on maps of the frozen CLIP (Sauer et al., arXiv 2111.01007 and 2301.09515)."""

    heads: Annotated[PositiveInt, Field(description="depths of CLIP's image trunk that are read")]
    channels: Annotated[PositiveInt, Field(description="of every head")]


class DiscriminatorConfig(Section):
    """StyleGAN2 residual discriminator with a semantic projection (LAFITE, section 3.1), or heads
    on maps of CLIP."""

    kind: DiscriminatorKind
    projected: ProjectedConfig
    channel_base: PositiveInt
    channel_max: PositiveInt
    minibatch_std_group: PositiveInt
    semantic_logit: Annotated[
        SemanticLogit, Field(description="batch_sum: one sum for the whole batch, released code")
    ]
    normalize_semantic: Annotated[
        bool, Field(description="unit semantic features in the logit; false in the paper")
    ]


class ClipViewConfig(Section):
    """What CLIP sees of a generated image (LAFITE, L_ConG)."""

    kind: Literal["random_crop", "full", "multi_crop"]
    min_side: Annotated[
        float, Field(gt=0.0, le=1.0, description="smallest side of a crop over the image's")
    ]
    crops: Annotated[PositiveInt, Field(description="of multi_crop")]
    small_images: Annotated[
        Literal["resize", "pad_white"],
        Field(
            description="images below CLIP's side: enlarged, or on white as in the released code"
        ),
    ]
    antialias: Annotated[bool, Field(description="when resizing; false in the released code")]


class LossConfig(ReconstructionTerm):
    """Weights and schedules of the adversarial, contrastive and regularising terms."""

    adversarial: Annotated[AdversarialKind, Field(description="logistic in the paper")]
    mismatched_share: Annotated[
        Fraction,
        Field(description="of real images with others' texts among D's negatives; 0 in the paper"),
    ]
    discriminator_contrastive_weight: NonNegative
    clip_contrastive_weight: NonNegative
    gather_negatives: Annotated[
        bool, Field(description="contrast with the images of all processes, not one's own")
    ]
    discriminator_image_contrastive_weight: Annotated[
        NonNegative, Field(description="fakes with their real images; 0 in the paper")
    ]
    clip_image_contrastive_weight: Annotated[
        NonNegative, Field(description="the same in CLIP's space; 0 in the paper")
    ]
    contrastive: Annotated[ContrastiveKind, Field(description="sharpened: the released code")]
    contrastive_axis: Annotated[
        ContrastiveAxis, Field(description="what the softmax runs over; image in the paper")
    ]
    temperature: Positive
    r1_gamma: NonNegative
    r1_interval: PositiveInt
    path_length_weight: NonNegative
    path_length_interval: PositiveInt
    path_length_decay: Fraction
    path_length_batch_fraction: Annotated[float, Field(gt=0.0, le=1.0)]
    style_mixing_probability: Fraction


class LafiteConfig(FamilySection):
    """What LAFITE needs beside the parameters that every training has."""

    grows = True

    reduced_precision_resolutions: Annotated[
        int, Field(ge=1, le=8, description="of the highest, in bf16 or fp16; never the 4x4 block")
    ]
    freeze_discriminator_blocks: Annotated[
        int, Field(ge=0, description="Freeze-D: of the highest resolutions; 0 freezes none")
    ]
    latent_average: Annotated[
        LatentAverage,
        Field(description="when the mean latent moves; per_phase: the released code"),
    ]
    clip_view: ClipViewConfig
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    losses: LossConfig

    @property
    def frozen_blocks(self) -> int:
        """See :class:`FamilySection`."""
        return self.freeze_discriminator_blocks

    def check(self, train: TrainConfig) -> None:
        """See :class:`FamilySection`."""
        check_power_of_two("resolution_px", train.resolution_px)
        self.check_codes(train.latent_codes, self.generator.latent_dim)
        if self.discriminator.kind == "projected":
            self._check_heads(train)
            return
        self._check_frozen_blocks(train)
        if self.losses.adversarial == "relativistic":
            self._check_pairs()
        group = self.discriminator.minibatch_std_group
        if train.batch_size % min(group, train.batch_size):
            raise ValueError(
                f"batch_size = {train.batch_size} is not divisible by "
                f"lafite.discriminator.minibatch_std_group = {group}: change one of them"
            )

    def _check_heads(self, train: TrainConfig) -> None:
        """What belongs to StyleGAN2's discriminator and would be left out without a word."""
        losses = self.losses
        for key, value in (
            ("losses.r1_gamma", losses.r1_gamma),
            ("losses.discriminator_contrastive_weight", losses.discriminator_contrastive_weight),
            (
                "losses.discriminator_image_contrastive_weight",
                losses.discriminator_image_contrastive_weight,
            ),
            ("freeze_discriminator_blocks", self.freeze_discriminator_blocks),
        ):
            if value:
                raise ValueError(
                    f"lafite.{key} = {value} is of StyleGAN2's discriminator, and "
                    "lafite.discriminator.kind = projected has no use for it: set it to 0"
                )
        if train.augmentation.kind == "ada":
            raise ValueError(
                "augmentation.kind = ada steers by the logits of StyleGAN2's discriminator: set it "
                "to diffaugment or none for lafite.discriminator.kind = projected"
            )

    def _check_pairs(self) -> None:
        """A difference of two logits says something where each is of its own image alone."""
        network = self.discriminator
        if network.minibatch_std_group > 1:
            raise ValueError(
                "lafite.losses.adversarial = relativistic compares single images, and "
                f"lafite.discriminator.minibatch_std_group = {network.minibatch_std_group} mixes "
                "them: set it to 1"
            )
        if network.semantic_logit == "batch_sum":
            raise ValueError(
                "lafite.losses.adversarial = relativistic compares single images, and "
                "lafite.discriminator.semantic_logit = batch_sum mixes them: set it to per_sample"
            )

    def _check_frozen_blocks(self, train: TrainConfig) -> None:
        frozen, num_blocks = self.freeze_discriminator_blocks, train.resolution_px.bit_length() - 3
        if frozen > num_blocks:
            raise ValueError(
                f"lafite.freeze_discriminator_blocks = {frozen}, but the discriminator of "
                f"{train.resolution_px} px has {num_blocks} blocks: use at most {num_blocks}"
            )
        if frozen and train.initial_weights == "none":
            raise ValueError(
                f"lafite.freeze_discriminator_blocks = {frozen} would freeze random weights, "
                "because initial_weights = none: set it to 0, or start from trained weights"
            )

    def select(self, train: TrainConfig) -> dict[str, Any]:
        """See :class:`FamilySection`."""
        selected = super().select(train)
        if train.precision == "fp32":
            del selected["reduced_precision_resolutions"]
        network = selected["discriminator"]
        if self.discriminator.kind == "projected":
            selected["discriminator"] = {key: network[key] for key in ("kind", "projected")}
            # CLIP sees what the heads see.
            del selected["clip_view"]
            return selected
        del network["projected"]
        if self.clip_view.kind == "full":
            del selected["clip_view"]["min_side"]
        if self.clip_view.kind != "multi_crop":
            del selected["clip_view"]["crops"]
        return selected

    def check_share(self, batch_size: int, num_processes: int) -> None:
        """A share must hold whole minibatch groups, and two images to contrast."""
        rows, group = batch_size // num_processes, self.discriminator.minibatch_std_group
        if self.discriminator.kind == "stylegan2" and rows % min(group, rows):
            raise ConfigError(
                f"train.batch_size = {batch_size} gives each of {num_processes} processes {rows} "
                f"images, which lafite.discriminator.minibatch_std_group = {group} does not "
                f"divide: use a batch_size of {group * num_processes}, or another group"
            )
        if rows == 1 and not self.losses.gather_negatives:
            raise ConfigError(
                f"train.batch_size = {batch_size} gives each of {num_processes} processes one "
                f"image, and contrast needs two: use {2 * num_processes}, or "
                "lafite.losses.gather_negatives: true"
            )

    def build_warm_up(self, *, learning_rate: float, beta1: float) -> dict[str, Any]:
        """See :class:`FamilySection`."""
        # Nothing is learned from the discriminator here.
        return super().build_warm_up(learning_rate=learning_rate, beta1=beta1) | {
            "freeze_discriminator_blocks": 0
        }


SPEC = LafiteConfig
