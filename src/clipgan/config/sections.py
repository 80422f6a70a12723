"""The sections of params.yaml, frozen and typed, one a stage; no defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

EmojiStyle = Literal["openmoji", "noto", "fluent"]
Precision = Literal["fp32", "bf16"]
Augmentation = Literal["color", "translation", "cutout"]

PositiveInt = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
PowerOfTwoResolution = Annotated[int, Field(ge=8, le=1024)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


def _check_power_of_two(key: str, side: int) -> None:
    if side & (side - 1):
        below = 1 << (side.bit_length() - 1)
        raise ValueError(f"{key} = {side} is no power of two: use {below} or {below * 2}")


class Section(BaseModel):
    """A frozen group of parameters; refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def tuple_of(item: Any, **constraints: Any) -> Any:
    """The type of a YAML list, kept as a tuple so that the section stays hashable."""
    return Annotated[tuple[item, ...], Field(strict=False, **constraints)]


class IngestConfig(Section):
    """Images and captions -> image shards."""

    source: Literal["emoji", "folder"]
    folder: Annotated[str, Field(description="root of the image tree; used when source is folder")]
    emoji_styles: tuple_of(EmojiStyle, min_length=1)  # type: ignore[valid-type]
    resolution_px: Annotated[int, Field(ge=16, le=2048, description="stored square side")]
    min_side_px: Annotated[int, Field(ge=1, description="smaller images are rejected")]
    max_megapixels: Annotated[
        float, Field(gt=0, description="larger images are rejected unread (decompression bombs)")
    ]
    encoding: Annotated[Literal["png", "jpeg"], Field(description="of the stored images")]
    jpeg_quality: Annotated[int, Field(ge=50, le=100)]
    shard_size_mb: Annotated[float, Field(gt=0, le=1024)]
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0, description="of the concepts")]
    split_seed: Seed

    @model_validator(mode="after")
    def _folder_is_named(self) -> Self:
        if self.source == "folder" and not self.folder:
            raise ValueError("source is folder: set ingest.folder to the folder of your images")
        return self


class FeaturesConfig(Section):
    """Image shards -> unit-norm CLIP features."""

    clip_model: Annotated[
        str,
        Field(min_length=1, description="clipgan-vit-h32-96 (built in) or an open_clip model name"),
    ]
    clip_weights: Annotated[
        str,
        Field(min_length=1, description="built-in, an open_clip pretrained tag or a local file"),
    ]
    precision: Precision
    batch_size: PositiveInt
    device: Device


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
    mapping_layers: PositiveInt
    channel_base: PositiveInt
    channel_max: PositiveInt


class DiscriminatorConfig(Section):
    """StyleGAN2 residual discriminator with a semantic projection (LAFITE, section 3.1)."""

    channel_base: PositiveInt
    channel_max: PositiveInt
    minibatch_std_group: PositiveInt


class PseudoTextConfig(Section):
    """Pseudo text features from image features (LAFITE, equation 2)."""

    noise_level: Annotated[
        NonNegative, Field(description="xi: norm of the noise over the feature's")
    ]
    true_text_noise_level: Annotated[NonNegative, Field(description="xi for true text features")]
    pseudo_text_probability: Annotated[
        Fraction, Field(description="1: language-free, 0: captions only")
    ]


class LossConfig(Section):
    """Weights and schedules of the adversarial, contrastive and regularising terms."""

    discriminator_contrastive_weight: NonNegative
    clip_contrastive_weight: NonNegative
    reconstruction_weight: Annotated[NonNegative, Field(description="0 in the paper; see ADR 0008")]
    temperature: Positive
    r1_gamma: NonNegative
    r1_interval: PositiveInt
    path_length_weight: NonNegative
    path_length_interval: PositiveInt
    path_length_decay: Fraction
    path_length_batch_fraction: Annotated[float, Field(gt=0.0, le=1.0)]
    style_mixing_probability: Fraction


class OptimizerConfig(Section):
    """Adam; rates and betas are corrected for lazy regularisation."""

    generator_learning_rate: Positive
    discriminator_learning_rate: Positive
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)]
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)]
    epsilon: Positive


class EmaConfig(Section):
    """Exponential moving average of the generator."""

    half_life_kimg: Positive
    ramp_up_fraction: Annotated[NonNegative, Field(description="0 switches the ramp off")]


class TrainConfig(Section):
    """Image shards and features -> generator. Every key here changes the result."""

    seed: Seed
    device: Device
    precision: Precision
    initial_weights: Annotated[
        str, Field(min_length=1, description="built-in, none, or the folder of a generator bundle")
    ]
    total_images: PositiveInt
    warm_up_images: Annotated[int, Field(ge=0, description="reconstruction only; 0 in the paper")]
    batch_size: Annotated[int, Field(ge=2, description="the contrastive terms need two images")]
    resolution_px: PowerOfTwoResolution
    mirror: bool
    augmentations: tuple_of(Augmentation)  # type: ignore[valid-type]
    clip_view_min_side: Annotated[
        float,
        Field(
            gt=0.0, le=1.0, description="smallest side of the random crop CLIP sees; 1: whole image"
        ),
    ]
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    pseudo_text: PseudoTextConfig
    losses: LossConfig
    optimizer: OptimizerConfig
    ema: EmaConfig

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        _check_power_of_two("resolution_px", self.resolution_px)
        if self.warm_up_images and not self.losses.reconstruction_weight:
            raise ValueError(
                f"warm_up_images = {self.warm_up_images} trains by reconstruction alone, but "
                "losses.reconstruction_weight = 0: set one of them"
            )
        group = self.discriminator.minibatch_std_group
        if self.batch_size % min(group, self.batch_size):
            raise ValueError(
                f"batch_size = {self.batch_size} is not divisible by "
                f"discriminator.minibatch_std_group = {group}: change one of them"
            )
        return self


class MonitoringConfig(Section):
    """How often training reports and saves; these keys change no result and retrain nothing."""

    log_interval_images: PositiveInt
    sample_interval_images: PositiveInt
    checkpoint_interval_images: PositiveInt
    keep_checkpoints: Annotated[
        int, Field(ge=2, description="a damaged one falls back to the one before")
    ]
    sample_prompts: tuple_of(str, min_length=1)  # type: ignore[valid-type]
    samples_per_prompt: PositiveInt


class EvaluateConfig(Section):
    """Generator -> metric values, each with its protocol."""

    seed: Seed
    device: Device
    batch_size: PositiveInt
    num_generated: Annotated[int, Field(ge=2)]
    reference_split: Literal["train", "validation", "all"]
    truncation: Annotated[float, Field(gt=0.0, le=1.0)]
    retrieval_candidates: Annotated[int, Field(ge=2)]
    num_concepts: Annotated[int, Field(ge=2)]
    samples_per_concept: PositiveInt
    kid_subset_size: Annotated[int, Field(ge=2)]
    kid_subsets: PositiveInt
    neighbourhood: Annotated[int, Field(ge=1, description="k of precision and recall")]
    inception: Annotated[
        Literal["auto", "off"], Field(description="auto: FID where its weights are found")
    ]
    compare_initial: Annotated[bool, Field(description="evaluate the initial generator too")]
    grid_prompts: PositiveInt
    grid_samples: PositiveInt


class RegisterConfig(Section):
    """Model registry and the gate between challenger and champion."""

    model_name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")]
    gate_metric: Annotated[str, Field(min_length=1)]
    gate_direction: Literal["lower", "higher"]
    min_improvement: Annotated[
        NonNegative, Field(description="the challenger must win by this much")
    ]


class PretrainGeneratorConfig(Section):
    """Warm-up of a fresh generator by reconstruction, at growing resolutions (ADR 0008).

    One entry a resolution in each list; the rest is section ``train``.
    """

    resolutions_px: tuple_of(PowerOfTwoResolution, min_length=1)  # type: ignore[valid-type]
    images: tuple_of(PositiveInt, min_length=1)  # type: ignore[valid-type]
    learning_rates: tuple_of(Positive, min_length=1)  # type: ignore[valid-type]
    batch_size: PositiveInt
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)]
    half_life_kimg: Positive

    @model_validator(mode="after")
    def _resolutions_grow(self) -> Self:
        sides = self.resolutions_px
        for key in ("images", "learning_rates"):
            values = getattr(self, key)
            if len(sides) != len(values):
                raise ValueError(
                    f"{key} = {list(values)} and resolutions_px = {list(sides)} have different "
                    "lengths: give each resolution its own value"
                )
        for side in sides:
            _check_power_of_two("resolutions_px", side)
        if sorted(set(sides)) != list(sides):
            raise ValueError(f"resolutions_px = {list(sides)} does not grow: order it upwards")
        return self


class PretrainClipConfig(Section):
    """Recipe of the built-in small CLIP."""

    seed: Seed
    device: Device
    precision: Precision
    embed_dim: PositiveInt
    image_side_px: Annotated[int, Field(ge=32, le=512, multiple_of=32)]
    vision_width: PositiveInt
    vision_layers: PositiveInt
    vision_head_width: PositiveInt
    text_projection: Literal["linear", "mlp"]
    temperature: Annotated[Positive, Field(description="start value; it is learned")]
    views: Annotated[PositiveInt, Field(description="cached views an image; 1: unchanged only")]
    teacher_steps: Annotated[int, Field(ge=1, description="of the two heads on the frozen trunks")]
    teacher_batch_size: Annotated[int, Field(ge=2)]
    teacher_hidden_dim: PositiveInt
    teacher_dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    teacher_learning_rate: Positive
    teacher_weight_decay: NonNegative
    steps: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    weight_decay: NonNegative
    warmup_steps: PositiveInt
    map_dropout: Annotated[float, Field(ge=0.0, lt=1.0, description="of the trunk's features")]
    distillation_weight: Annotated[NonNegative, Field(description="teacher head's embedding")]
    contrastive_weight: NonNegative
    checkpoint_interval_steps: PositiveInt

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.vision_width % self.vision_head_width:
            raise ValueError(
                f"vision_width = {self.vision_width} is no multiple of "
                f"vision_head_width = {self.vision_head_width}"
            )
        return self


class Params(Section):
    """The whole of params.yaml."""

    ingest: IngestConfig
    features: FeaturesConfig
    train: TrainConfig
    monitoring: MonitoringConfig
    evaluate: EvaluateConfig
    register_model: Annotated[RegisterConfig, Field(alias="register")]
    pretrain_generator: PretrainGeneratorConfig
    pretrain_clip: PretrainClipConfig
