"""Section `train` of params.yaml and its parts; no defaults."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clipgan.config.fields import (
    Device,
    Fraction,
    ImageSide,
    NonNegative,
    OptimizerConfig,
    Positive,
    PositiveInt,
    Section,
    Seed,
    check_power_of_two,
    tuple_of,
)
from clipgan.config.galip import GalipConfig

ContrastiveKind = Literal["infonce", "sharpened"]
ContrastiveAxis = Literal["image", "text", "both"]
StyleInput = Literal["latent", "affine"]
SemanticLogit = Literal["per_sample", "batch_sum"]
LatentAverage = Literal["per_step", "per_phase"]
Augmentation = Literal["color", "translation", "cutout"]
TrainingPrecision = Literal["fp32", "bf16", "fp16"]
Family = Literal["lafite", "galip"]


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


class DiscriminatorConfig(Section):
    """StyleGAN2 residual discriminator with a semantic projection (LAFITE, section 3.1)."""

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


class PseudoTextConfig(Section):
    """Pseudo text features from image features (LAFITE, equation 2), and which captions count."""

    kind: Annotated[
        Literal["gaussian", "mapper", "centred_gaussian"],
        Field(description="LAFITE-G, LAFITE-NN, or C3: without modality gap, then Gaussian"),
    ]
    mapper: Annotated[
        str, Field(min_length=1, description="none, or the folder of a trained noise mapper")
    ]
    noise_level: Annotated[
        NonNegative, Field(description="xi: norm of the noise over the feature's")
    ]
    true_text_noise_level: Annotated[NonNegative, Field(description="xi for true text features")]
    pseudo_text_probability: Annotated[
        Fraction, Field(description="1: language-free, 0: captions only")
    ]
    caption_fraction: Annotated[
        Fraction,
        Field(description="of the training images may show their captions, chosen by train.seed"),
    ]

    @model_validator(mode="after")
    def _mapper_is_named(self) -> Self:
        if self.kind == "mapper" and self.mapper == "none":
            raise ValueError(
                "kind = mapper, but mapper = none: name the folder of a trained one, such as "
                "data/mapper (`clipgan pretrain-mapper` makes it)"
            )
        return self


class LossConfig(Section):
    """Weights and schedules of the adversarial, contrastive and regularising terms."""

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
    reconstruction_weight: Annotated[NonNegative, Field(description="0 in the paper; see ADR 0008")]
    temperature: Positive
    r1_gamma: NonNegative
    r1_interval: PositiveInt
    path_length_weight: NonNegative
    path_length_interval: PositiveInt
    path_length_decay: Fraction
    path_length_batch_fraction: Annotated[float, Field(gt=0.0, le=1.0)]
    style_mixing_probability: Fraction


class EmaConfig(Section):
    """Exponential moving average of the generator."""

    half_life_kimg: Positive
    ramp_up_fraction: Annotated[NonNegative, Field(description="0 switches the ramp off")]
    latent_average: Annotated[
        LatentAverage,
        Field(description="when LAFITE's mean latent moves; per_phase: the released code"),
    ]


class AugmentationConfig(Section):
    """Changes to all images that the discriminator sees: none, DiffAugment or ADA."""

    kind: Literal["none", "diffaugment", "ada"]
    policies: Annotated[
        tuple_of(Augmentation),  # type: ignore[valid-type]
        Field(description="of diffaugment"),
    ]
    ada_target: Annotated[
        float, Field(gt=0.0, lt=1.0, description="mean sign of the real logits to hold")
    ]
    ada_interval_steps: Annotated[
        int, Field(ge=1, description="the probability moves once in so many steps")
    ]
    ada_kimg: Annotated[Positive, Field(description="thousand images from probability 0 to 1")]

    @model_validator(mode="after")
    def _policies_are_named(self) -> Self:
        if self.kind == "diffaugment" and not self.policies:
            raise ValueError(
                "augmentation.kind = diffaugment, but augmentation.policies is empty: "
                "name policies, or set the kind to none"
            )
        return self


class TrainConfig(Section):
    """Image shards and features -> generator. Every key here changes the result.

    ``reduced_precision_resolutions``, ``freeze_discriminator_blocks``,
    ``clip_view``, ``generator``, ``discriminator``, ``losses`` and ``optimizer`` are LAFITE's;
    ``galip`` stands in their place where ``family`` is galip. The rest serves both.
    """

    family: Annotated[Family, Field(description="the paper whose networks and losses are trained")]
    seed: Seed
    device: Device
    precision: TrainingPrecision
    reduced_precision_resolutions: Annotated[
        int, Field(ge=1, le=8, description="of the highest, in bf16 or fp16; never the 4x4 block")
    ]
    initial_weights: Annotated[
        str,
        Field(
            min_length=1,
            description="none, or the address of a generator: clipgan.models.addresses",
        ),
    ]
    freeze_discriminator_blocks: Annotated[
        int, Field(ge=0, description="Freeze-D: of the highest resolutions; 0 freezes none")
    ]
    total_images: PositiveInt
    warm_up_images: Annotated[int, Field(ge=0, description="reconstruction only; 0 in the paper")]
    batch_size: Annotated[
        int, Field(ge=2, description="of all processes together; contrast needs two images")
    ]
    resolution_px: Annotated[ImageSide, Field(description="a power of two for lafite")]
    mirror: bool
    augmentation: AugmentationConfig
    clip_view: ClipViewConfig
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    pseudo_text: PseudoTextConfig
    losses: LossConfig
    optimizer: OptimizerConfig
    galip: GalipConfig
    ema: EmaConfig

    @model_validator(mode="after")
    def _family_fits(self) -> Self:
        if self.family == "galip":
            self._check_galip()
        else:
            self._check_lafite()
        return self

    def _check_lafite(self) -> None:
        check_power_of_two("resolution_px", self.resolution_px)
        self._check_warm_up("losses", self.losses.reconstruction_weight)
        self._check_frozen_blocks()
        group = self.discriminator.minibatch_std_group
        if self.batch_size % min(group, self.batch_size):
            raise ValueError(
                f"batch_size = {self.batch_size} is not divisible by "
                f"discriminator.minibatch_std_group = {group}: change one of them"
            )

    def _check_warm_up(self, section: str, reconstruction_weight: float) -> None:
        if self.warm_up_images and not reconstruction_weight:
            raise ValueError(
                f"warm_up_images = {self.warm_up_images} trains by reconstruction alone, but "
                f"{section}.reconstruction_weight = 0: set one of them"
            )

    def _check_galip(self) -> None:
        """What somebody switched on and GALIP would leave out without a word.

        LAFITE's sections stand in every file and say nothing here.
        """
        if frozen := self.freeze_discriminator_blocks:
            raise ValueError(
                f"freeze_discriminator_blocks = {frozen} is LAFITE's alone: set it to 0 for family "
                "galip"
            )
        self._check_warm_up("galip.losses", self.galip.losses.reconstruction_weight)
        if self.augmentation.kind == "ada":
            raise ValueError(
                "augmentation.kind = ada is LAFITE's alone, its aim is a share of unpaired logits: "
                "set it to diffaugment or none for family galip"
            )

    def _check_frozen_blocks(self) -> None:
        frozen, num_blocks = self.freeze_discriminator_blocks, self.resolution_px.bit_length() - 3
        if frozen > num_blocks:
            raise ValueError(
                f"freeze_discriminator_blocks = {frozen}, but the discriminator of "
                f"{self.resolution_px} px has {num_blocks} blocks: use at most {num_blocks}"
            )
        if frozen and self.initial_weights == "none":
            raise ValueError(
                f"freeze_discriminator_blocks = {frozen} would freeze random weights, because "
                "initial_weights = none: set it to 0, or start from trained weights"
            )
