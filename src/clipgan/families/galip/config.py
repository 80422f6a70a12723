"""The parameters of GALIP (arXiv 2301.12959), frozen and typed; no defaults."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clipgan.config.fields import (
    FamilySection,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    ReconstructionTerm,
    Section,
    tuple_of,
)

if TYPE_CHECKING:
    from clipgan.config.training import TrainConfig

BlockIndex = Annotated[int, Field(ge=0)]


class GalipGeneratorConfig(Section):
    """Mate generator: bridge predictor, prompts through the frozen ViT, drawing blocks."""

    latent_dim: PositiveInt
    base_channels: Annotated[int, Field(ge=1, description="of the last block; up to 8 times more")]
    bridge_channels: Annotated[int, Field(ge=2, multiple_of=2)]
    bridge_blocks: PositiveInt
    prompt_tokens: Annotated[int, Field(ge=0, description="one a block of the ViT; 0: none")]
    first_prompted_block: Annotated[BlockIndex, Field(description="zero-based")]
    bridge_weight: Annotated[
        NonNegative, Field(description="of the bridge features in what is drawn; 1 in the paper")
    ]
    vit_weight: Annotated[
        NonNegative, Field(description="of the ViT's output; 0.1 in the paper, 0: no ViT")
    ]

    @model_validator(mode="after")
    def _something_is_drawn(self) -> Self:
        if not self.bridge_weight and not self.vit_weight:
            raise ValueError("bridge_weight = 0 and vit_weight = 0 leave nothing to draw: set one")
        if not self.vit_weight and self.prompt_tokens:
            raise ValueError(
                f"vit_weight = 0 runs no ViT, and prompt_tokens = {self.prompt_tokens} have "
                "nothing to prompt: set prompt_tokens to 0"
            )
        return self


class GalipDiscriminatorConfig(Section):
    """Mate discriminator on tokens of the frozen ViT, and its conditional head."""

    tapped_blocks: tuple_of(BlockIndex, min_length=1)  # type: ignore[valid-type]
    channels: PositiveInt
    head_channels: PositiveInt

    @model_validator(mode="after")
    def _blocks_grow(self) -> Self:
        blocks = list(self.tapped_blocks)
        if any(after <= before for before, after in pairwise(blocks)):
            raise ValueError(f"tapped_blocks = {blocks} does not grow: order it upwards")
        return self


class GalipLossConfig(ReconstructionTerm):
    """Weights of GALIP's terms."""

    mismatched_share: Annotated[
        Fraction, Field(description="of real images with others' texts among the negatives; 0.5")
    ]
    ma_gp_weight: Annotated[NonNegative, Field(description="2 in the paper")]
    ma_gp_power: Annotated[float, Field(ge=2.0, description="6 in the paper")]
    clip_similarity_weight: Annotated[NonNegative, Field(description="4 in the paper")]


class LossScaleConfig(Section):
    """Dynamic loss scale under fp16; other precisions have none."""

    initial_scale: Annotated[float, Field(ge=1.0, le=2.0**24)]
    growth_interval_steps: PositiveInt


class GalipConfig(FamilySection):
    """What GALIP needs beside the parameters that every training has."""

    clip_input: Annotated[
        Literal["correct", "official"],
        Field(description="how CLIP sees images; official: resized and scaled as the paper's code"),
    ]
    text_gain: Annotated[Positive, Field(description="factor on unit text features")]
    generator: GalipGeneratorConfig
    discriminator: GalipDiscriminatorConfig
    losses: GalipLossConfig
    loss_scale: LossScaleConfig

    def check(self, train: TrainConfig) -> None:
        """What somebody switched on and GALIP would leave out without a word."""
        self.check_codes(train.latent_codes, self.generator.latent_dim)
        if train.augmentation.kind == "ada":
            raise ValueError(
                "augmentation.kind = ada is LAFITE's alone, its aim is a share of unpaired logits: "
                "set it to diffaugment or none for family galip"
            )

    def select(self, train: TrainConfig) -> dict[str, Any]:
        """See :class:`FamilySection`."""
        selected = super().select(train)
        if train.precision != "fp16":
            del selected["loss_scale"]
        return selected


SPEC = GalipConfig
