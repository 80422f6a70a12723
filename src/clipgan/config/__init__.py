"""params.yaml as frozen, typed sections: the only reader of YAML.

Every number of the project stands once in ``params.yaml``; there are no defaults in code. A key
that is unknown, missing, of the wrong type or out of range raises
:class:`~clipgan.errors.ConfigError` with the key, its value and the fix in one line.
"""

from clipgan.config.loading import load_params
from clipgan.config.sections import (
    Augmentation,
    Device,
    DiscriminatorConfig,
    EmaConfig,
    EmojiStyle,
    EvaluateConfig,
    FeaturesConfig,
    Fraction,
    GeneratorConfig,
    IngestConfig,
    LossConfig,
    MonitoringConfig,
    NonNegative,
    OptimizerConfig,
    Params,
    Positive,
    PositiveInt,
    PowerOfTwoResolution,
    Precision,
    PretrainClipConfig,
    PretrainGeneratorConfig,
    PseudoTextConfig,
    RegisterConfig,
    Section,
    Seed,
    TrainConfig,
)

__all__ = [
    "Augmentation",
    "Device",
    "DiscriminatorConfig",
    "EmaConfig",
    "EmojiStyle",
    "EvaluateConfig",
    "FeaturesConfig",
    "Fraction",
    "GeneratorConfig",
    "IngestConfig",
    "LossConfig",
    "MonitoringConfig",
    "NonNegative",
    "OptimizerConfig",
    "Params",
    "Positive",
    "PositiveInt",
    "PowerOfTwoResolution",
    "Precision",
    "PretrainClipConfig",
    "PretrainGeneratorConfig",
    "PseudoTextConfig",
    "RegisterConfig",
    "Section",
    "Seed",
    "TrainConfig",
    "load_params",
]
