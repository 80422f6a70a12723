"""Section `train` of params.yaml: what every family reads, and a section for each; no defaults."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    ValidatorFunctionWrapHandler,
    create_model,
    model_validator,
)

from clipgan.config.fields import (
    Device,
    FamilySection,
    Fraction,
    ImageSide,
    NonNegative,
    Positive,
    PositiveInt,
    Section,
    Seed,
    tuple_of,
)
from clipgan.families.registry import FAMILIES, FamilySpec

Augmentation = Literal["color", "translation", "cutout"]
MAX_CODES = 192
"""Numbers of an 8 px thumbnail."""
TrainingPrecision = Literal["fp32", "bf16", "fp16"]


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


class EmaConfig(Section):
    """The moving average that becomes the generator, and those kept for post-hoc EMA."""

    half_life_kimg: Positive
    ramp_up_fraction: Annotated[NonNegative, Field(description="0 switches the ramp off")]
    snapshot_interval_images: Annotated[
        int, Field(ge=0, description="between snapshots for post-hoc EMA, ADR 0033; 0: none")
    ]
    snapshot_sigmas: Annotated[
        tuple_of(Annotated[float, Field(gt=0.0, lt=0.288)], min_length=2),  # type: ignore[valid-type]
        Field(description="relative lengths of the averages that they hold"),
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


class DriftingConfig(Section):
    """A warm-up by drifting (arXiv 2602.04770); read where ``warm_up_loss`` is ``drifting``."""

    latents: Annotated[
        int, Field(ge=2, description="generated images of each condition, which repel each other")
    ]
    positives: Annotated[
        int,
        Field(ge=1, description="the condition's image and its nearest neighbours in CLIP"),
    ]
    depths: Annotated[int, Field(ge=1, description="of CLIP's image trunk, whose maps are read")]
    temperatures: Annotated[
        tuple_of(Positive, min_length=1),  # type: ignore[valid-type]
        Field(description="of the kernel, over the mean distance; 0.02, 0.05, 0.2 in the paper"),
    ]


def _check_family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"{name!r} is no family: use {' or '.join(FAMILIES)}")
    return name


class TrainConfig(Section):
    """Image shards and features -> generator. Every key here changes the result.

    These keys serve every family. Beside them stands one section for each, under its name
    (``train.lafite``): the one that ``family`` names is read, the others change nothing.
    """

    family: Annotated[
        str,
        AfterValidator(_check_family),
        Field(description="the paper whose networks and losses are trained"),
    ]
    seed: Seed
    device: Device
    precision: TrainingPrecision
    initial_weights: Annotated[
        str,
        Field(
            min_length=1,
            description="none, or the address of a generator: clipgan.models.addresses",
        ),
    ]
    total_images: PositiveInt
    warm_up_images: Annotated[
        int, Field(ge=0, description="of the generator alone; 0 in the papers")
    ]
    warm_up_loss: Annotated[
        Literal["reconstruction", "drifting"],
        Field(description="of the warm-up: ADR 0008 and ADR 0034"),
    ]
    latent_codes: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_CODES,
            description="latents that carry the image they reconstruct, ADR 0032; 0: none",
        ),
    ]
    drifting: DriftingConfig
    batch_size: Annotated[
        int, Field(ge=2, description="of all processes together; contrast needs two images")
    ]
    resolution_px: Annotated[ImageSide, Field(description="a power of two for lafite")]
    mirror: bool
    augmentation: AugmentationConfig
    pseudo_text: PseudoTextConfig
    ema: EmaConfig

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The families' sections, by name: see :func:`build_train_config`."""

    @property
    def section(self) -> FamilySection:
        """The section of the chosen family."""
        section: FamilySection = getattr(self, self.family)
        return section

    @model_validator(mode="after")
    def _family_fits(self) -> Self:
        if self.warm_up_loss == "drifting":
            self._check_drifting()
        self.section.check(self)
        return self

    def _check_drifting(self) -> None:
        if self.latent_codes:
            raise ValueError(
                f"latent_codes = {self.latent_codes} are of the one image that a latent should "
                "draw, and warm_up_loss = drifting has no such image: set latent_codes to 0, or "
                "warm_up_loss to reconstruction"
            )


def build_train_config() -> type[TrainConfig]:
    """:class:`TrainConfig` with a section for each registered family.

    Made at the first use and not with the module, because the sections' own modules import this
    package.
    """
    return _build_train_config(tuple(FAMILIES.values()))


@cache
def _build_train_config(families: tuple[FamilySpec, ...]) -> type[TrainConfig]:
    sections: dict[str, Any] = {spec.name: (spec.load("config"), ...) for spec in families}
    return create_model("TrainConfig", __base__=TrainConfig, **sections)


def validate_train(value: Any, handler: ValidatorFunctionWrapHandler) -> TrainConfig:
    """Section ``train`` with its families, for pydantic."""
    del handler  # knows the shared keys alone
    return build_train_config().model_validate(value)
