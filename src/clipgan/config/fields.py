"""The types of parameters that several sections share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

if TYPE_CHECKING:
    from clipgan.config.training import TrainConfig

Precision = Literal["fp32", "bf16"]
ContrastiveKind = Literal["infonce", "sharpened"]
ContrastiveAxis = Literal["image", "text", "both"]
AdversarialKind = Literal["logistic", "hinge", "relativistic"]

PositiveInt = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
ImageSide = Annotated[int, Field(ge=8, le=1024)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


def _check_threads(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"{value!r} is no number of threads: use auto, or a whole number from 1")


Threads = Annotated[int | Literal["auto"], PlainValidator(_check_threads)]


def check_power_of_two(key: str, side: int) -> None:
    """ValueError that names ``key`` and two fitting values where ``side`` is no power of two."""
    if side & (side - 1):
        below = 1 << (side.bit_length() - 1)
        raise ValueError(f"{key} = {side} is no power of two: use {below} or {below * 2}")


class Section(BaseModel):
    """A frozen group of parameters; refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def tuple_of(item: Any, **constraints: Any) -> Any:
    """The type of a YAML list, kept as a tuple so that the section stays hashable."""
    return Annotated[tuple[item, ...], Field(strict=False, **constraints)]


class OptimizerConfig(Section):
    """Adam; rates and betas are corrected for lazy regularisation."""

    generator_learning_rate: Positive
    discriminator_learning_rate: Positive
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)]
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)]
    epsilon: Positive


class ReconstructionTerm(Section):
    """The distance to the image of the condition among a loss's terms; in no paper (ADR 0008)."""

    reconstruction_weight: NonNegative
    reconstruction_fade_images: Annotated[
        int, Field(ge=0, description="of adversarial training until the weight is 0; 0: it stays")
    ]


class FamilySection(Section):
    """One family's section of ``train``; a subclass for each family adds keys and methods."""

    grows: ClassVar[bool] = False
    """Whether a generator of this family can start from one for smaller images."""

    losses: Any
    optimizer: OptimizerConfig

    @property
    def frozen_blocks(self) -> int:
        """Blocks of the discriminator that do not learn, and so must start from trained weights."""
        return 0

    def check(self, train: TrainConfig) -> None:
        """Refuse shared keys that do not fit this family.

        Raises:
            ValueError: names the key, its value and the fix.
        """

    def check_codes(self, num_codes: int, latent_dim: int) -> None:
        """Refuse more codes of the warm-up than the generator has latents.

        Raises:
            ValueError: names both.
        """
        if num_codes > latent_dim:
            raise ValueError(
                f"latent_codes = {num_codes}, but the generator's latent_dim = {latent_dim}: "
                "lower the first or raise the second"
            )

    def select(self, train: TrainConfig) -> dict[str, Any]:
        """The keys that a training with these shared ones reads, with their values."""
        del train
        return self.model_dump(mode="json")

    def check_share(self, batch_size: int, num_processes: int) -> None:
        """Refuse a batch of which one process would get too few images.

        Raises:
            ConfigError: names the numbers and a batch size that fits.
        """

    def build_warm_up(self, *, learning_rate: float, beta1: float) -> dict[str, Any]:
        """The section for a training by reconstruction alone."""
        tree = self.model_dump(mode="json")
        tree["optimizer"] |= {"generator_learning_rate": learning_rate, "beta1": beta1}
        return tree
