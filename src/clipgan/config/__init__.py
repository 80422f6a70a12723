"""params.yaml and profiles as frozen, typed sections: the only reader of YAML.

Every number of the project stands once in ``params.yaml``; there are no defaults in code. A key
that is unknown, missing, of the wrong type or out of range raises
:class:`~clipgan.errors.ConfigError` with the key, its value and the fix in one line.
"""

from clipgan.config.evaluation import CustomProtocol, EvaluateConfig
from clipgan.config.fields import (
    AdversarialKind,
    ContrastiveAxis,
    ContrastiveKind,
    FamilySection,
    Fraction,
    NonNegative,
    OptimizerConfig,
    Positive,
    PositiveInt,
    Section,
    Threads,
)
from clipgan.config.loading import load_params, parse_params
from clipgan.config.profiles import load_profile, read_profile
from clipgan.config.sections import (
    FeaturesConfig,
    Fit,
    IngestConfig,
    MonitoringConfig,
    Params,
    PretrainClipConfig,
    PretrainGeneratorConfig,
    PretrainMapperConfig,
    RegisterConfig,
)
from clipgan.config.training import (
    Augmentation,
    AugmentationConfig,
    DriftingConfig,
    PseudoTextConfig,
    TrainConfig,
)

__all__ = [
    "AdversarialKind",
    "Augmentation",
    "AugmentationConfig",
    "ContrastiveAxis",
    "ContrastiveKind",
    "CustomProtocol",
    "DriftingConfig",
    "EvaluateConfig",
    "FamilySection",
    "FeaturesConfig",
    "Fit",
    "Fraction",
    "IngestConfig",
    "MonitoringConfig",
    "NonNegative",
    "OptimizerConfig",
    "Params",
    "Positive",
    "PositiveInt",
    "PretrainClipConfig",
    "PretrainGeneratorConfig",
    "PretrainMapperConfig",
    "PseudoTextConfig",
    "RegisterConfig",
    "Section",
    "Threads",
    "TrainConfig",
    "load_params",
    "load_profile",
    "parse_params",
    "read_profile",
]
