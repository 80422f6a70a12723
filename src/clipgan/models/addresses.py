"""What may be written wherever a generator is named; loads nothing.

What lies in MLflow or is a checkpoint becomes a bundle in :mod:`clipgan.stages.model_addresses`.
"""

from __future__ import annotations

from pathlib import Path

from clipgan.artifacts import describe_non_folder
from clipgan.models.built_in import (
    BUILT_IN,
    find_built_in,
    get_base_folder,
    list_built_in_names,
)

ADDRESS_FORMS = (
    f"{', '.join(list_built_in_names())}, the folder of a bundle (such as data/training) or of a "
    "checkpoint, models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID"
)
BUNDLE_FILE, CHECKPOINT_FILE = "bundle.json", "checkpoint.json"


def is_in_mlflow(address: str) -> bool:
    """Whether only the MLflow store knows what is there."""
    return address.startswith(("models:/", "runs:/"))


def find_folder(address: str, family: str | None = None) -> Path | None:
    """The folder that an address names, whether it is there or not; None: it is in MLflow.

    ``family``: whose generator ``built-in`` stands for; None: the one that commands call so.
    """
    if is_in_mlflow(address):
        return None
    if address == BUILT_IN and family is not None:
        return get_base_folder(family)
    return find_built_in(address) or Path(address).expanduser()


def describe_missing(address: str) -> str:
    """What to say where an address leads to no generator, with the forms that do."""
    path = Path(address).expanduser()
    what = (
        describe_non_folder(path) if path.is_file() else "no generator bundle or checkpoint there"
    )
    return (
        f"{address}: {what}; give {ADDRESS_FORMS} (`clipgan "
        "import-weights` makes bundles of official weights)"
    )
