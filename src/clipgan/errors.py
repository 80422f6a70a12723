"""The error tree.

::

    ClipganError                 everything a user can be told in one line
    |-- ConfigError              params.yaml, profiles, command-line values
    |-- DataError                images, captions, shards
    |-- FeatureStoreError        cached CLIP features that are damaged or do not fit
    |-- ClipError                a CLIP model or its weights that cannot be used
    |-- CheckpointError          resume state and generator bundles
    |-- TrainingDivergedError    NaN or Inf twice in a row
    |-- EvaluationError          metrics and their protocols
    |-- RegistryError            MLflow runs, model versions, the gate
    |-- ImportWeightsError       official weights of the papers
    |-- PipelineBusyError        another pipeline holds this workspace
    `-- StageFailedError         a stage of a pipeline ended with an error of its own

The command line prints the message of a :class:`ClipganError` in one line and exits with its
``exit_code``: 2 where the user can mend it (the default), 1 where the program could not go on.
"""


class ClipganError(Exception):
    """Base of every error that names a value and a fix."""

    exit_code = 2


class ConfigError(ClipganError):
    """A parameter is unknown, missing, of the wrong type or out of range."""


class DataError(ClipganError):
    """Images, captions or image shards cannot be used."""


class FeatureStoreError(ClipganError):
    """Cached CLIP features are missing, damaged or made with something else."""


class ClipError(ClipganError):
    """A CLIP model is unknown or its weights cannot be loaded."""


class CheckpointError(ClipganError):
    """A checkpoint or generator bundle is missing, damaged or does not fit."""


class TrainingDivergedError(ClipganError):
    """A loss stayed NaN or Inf after one roll-back."""

    exit_code = 1


class EvaluationError(ClipganError):
    """A metric cannot be computed, or two values cannot be compared."""


class RegistryError(ClipganError):
    """The MLflow run or the model registry cannot be used."""


class ImportWeightsError(ClipganError):
    """A weights file of the papers is damaged, unsafe or of another network."""


class PipelineBusyError(ClipganError):
    """Another pipeline is running in this workspace."""


class StageFailedError(ClipganError):
    """A stage's process failed; ``exit_code`` is its own, ``was_killed``: a signal ended it.

    ``traceback`` is the traceback that the process has printed.
    """

    traceback = ""

    def __init__(self, message: str, *, exit_code: int = 1, was_killed: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.was_killed = was_killed
