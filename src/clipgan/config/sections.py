"""The sections of params.yaml, frozen and typed, one a stage; no defaults."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, Literal, Self

from PIL import ImageColor
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    WrapValidator,
    model_validator,
)

from clipgan.config.evaluation import EvaluateConfig
from clipgan.config.fields import (
    Device,
    ImageSide,
    NonNegative,
    Positive,
    PositiveInt,
    Precision,
    Section,
    Seed,
    Threads,
    check_power_of_two,
    tuple_of,
)
from clipgan.config.training import TrainConfig, validate_train

Fit = Literal["crop", "pad", "squash"]


def _check_colour(value: str) -> str:
    try:
        channels: tuple[int, ...] | None = ImageColor.getrgb(value)
    except ValueError:
        channels = None
    if channels is None or len(channels) != 3:
        raise ValueError(
            f'{value!r} is no colour: use a name such as white, or "#rrggbb" in quotes'
        )
    return value


def load_source_registry() -> Any:
    """The module :mod:`clipgan.data.sources.registry`, which defines the keys of each source.

    Imported by name, because it lies in a layer above this one.
    """
    return import_module("clipgan.data.sources.registry")


class IngestConfig(Section):
    """Images and captions -> image shards. Every source has keys of its own beside these."""

    model_config = ConfigDict(extra="allow")

    source: Annotated[str, Field(description="one of clipgan.data.sources")]
    resolution_px: Annotated[int, Field(ge=16, le=2048, description="stored square side")]
    fit: Annotated[Fit, Field(description="how an image that is not square becomes one")]
    background: Annotated[
        str,
        AfterValidator(_check_colour),
        Field(description="behind transparent pixels and beside padded images"),
    ]
    min_side_px: Annotated[int, Field(ge=1, description="smaller images are rejected")]
    max_megapixels: Annotated[
        float, Field(gt=0, description="larger images are rejected unread (decompression bombs)")
    ]
    captions_per_image: Annotated[int, Field(ge=0, description="at most so many; 0: all")]
    encoding: Annotated[Literal["png", "jpeg"], Field(description="of the stored images")]
    jpeg_quality: Annotated[int, Field(ge=50, le=100)]
    shard_size_mb: Annotated[float, Field(gt=0, le=1024)]
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0, description="of the concepts")]
    split_seed: Seed

    @property
    def source_keys(self) -> dict[str, Any]:
        """The keys of all sources."""
        return self.model_extra or {}

    @model_validator(mode="after")
    def _sources_check_their_keys(self) -> Self:
        registry = load_source_registry()
        registry.build_keys().model_validate(self.source_keys)
        registry.open_source(self.source, self.source_keys)
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


class MonitoringConfig(Section):
    """How often training reports and saves; these keys change no result and retrain nothing."""

    log_interval_images: PositiveInt
    sample_interval_images: PositiveInt
    evaluation_interval_images: Annotated[
        int, Field(ge=0, description="evaluate during training too; 0: only after it")
    ]
    checkpoint_interval_images: PositiveInt
    keep_checkpoints: Annotated[
        int, Field(ge=2, description="a damaged one falls back to the one before")
    ]
    sample_prompts: tuple_of(str, min_length=1)  # type: ignore[valid-type]
    samples_per_prompt: PositiveInt


NO_GATE = ("recall", "coverage", "path_length")
"""Prefixes of the metrics whose intervals hold the truth too rarely, or were not measured:
``python -m bench.intervals``."""


class RegisterConfig(Section):
    """Model registry and the gate between challenger and champion."""

    model_name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")]
    gate_metric: Annotated[str, Field(min_length=1)]
    first_version: Annotated[
        Literal["beat_start", "always"],
        Field(description="what a version must do to become champion where there is none"),
    ]
    min_improvement: Annotated[
        NonNegative, Field(description="the challenger must win by this much")
    ]

    @model_validator(mode="after")
    def _gate_has_an_interval_to_trust(self) -> Self:
        if self.gate_metric.rpartition("/")[2].startswith(NO_GATE):
            raise ValueError(
                f"gate_metric = {self.gate_metric!r} has no interval to decide by "
                f"(docs/evaluation.md): name one that begins with none of {', '.join(NO_GATE)}"
            )
        return self


class PretrainGeneratorConfig(Section):
    """Warm-up of a fresh generator by reconstruction, at growing resolutions (ADR 0008).

    One entry a resolution in each list; the rest is section ``train``.
    """

    resolutions_px: tuple_of(ImageSide, min_length=1)  # type: ignore[valid-type]
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
            check_power_of_two("resolutions_px", side)
        if sorted(set(sides)) != list(sides):
            raise ValueError(f"resolutions_px = {list(sides)} does not grow: order it upwards")
        return self


class PretrainMapperConfig(Section):
    """Recipe of LAFITE-NN's noise mapper, from any captioned images."""

    seed: Seed
    device: Device
    hidden_dim: PositiveInt
    caption_fraction: Annotated[
        float, Field(gt=0.0, le=1.0, description="as in train.pseudo_text; the same images by seed")
    ]
    steps: PositiveInt
    batch_size: Annotated[int, Field(ge=2, description="the contrast needs two pairs")]
    learning_rate: Positive
    temperature: Positive
    contrastive: Annotated[
        Literal["infonce", "sharpened"], Field(description="sharpened: the official form")
    ]
    checkpoint_interval_steps: PositiveInt


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

    threads: Annotated[Threads, Field(description="of PyTorch on the CPU; retrains nothing")]
    ingest: IngestConfig
    features: FeaturesConfig
    train: Annotated[SerializeAsAny[TrainConfig], WrapValidator(validate_train)]
    monitoring: MonitoringConfig
    evaluate: EvaluateConfig
    register_model: Annotated[RegisterConfig, Field(alias="register")]
    pretrain_generator: PretrainGeneratorConfig
    pretrain_mapper: PretrainMapperConfig
    pretrain_clip: PretrainClipConfig
