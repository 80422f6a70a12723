"""Section ``train.toy``."""

from clipgan.config.fields import FamilySection, NonNegative, PositiveInt, Section


class ToyLossConfig(Section):
    reconstruction_weight: NonNegative


class ToyConfig(FamilySection):
    latent_dim: PositiveInt
    losses: ToyLossConfig


SPEC = ToyConfig
