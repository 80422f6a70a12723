"""The forms of a generator's address; nothing is loaded here.

:mod:`clipgan.stages.model_addresses` makes bundles of checkpoints and of models in MLflow.
"""

from __future__ import annotations

from pathlib import Path

from clipgan.artifacts import describe_non_folder
from clipgan.models.built_in import (
    BUILT_IN,
    get_base_folder,
    list_built_in,
)

ADDRESS_FORMS = (
    f"{', '.join(list_built_in())}, the folder of a bundle (such as data/training) or of a "
    "checkpoint, models:/NAME@ALIAS, models:/NAME/VERSION or runs:/ID"
)
BUNDLE_FILE, CHECKPOINT_FILE = "bundle.json", "checkpoint.json"


def is_in_mlflow(address: str) -> bool:
    """Whether the address names something in an MLflow store."""
    return address.startswith(("models:/", "runs:/"))


def find_folder(address: str, family: str | None = None) -> Path | None:
    """Return the folder that an address names, whether it exists or not; None: it is in MLflow.

    Args:
        family: whose generator ``built-in`` names; None: the one that commands call so.
    """
    if is_in_mlflow(address):
        return None
    if address == BUILT_IN and family is not None:
        return get_base_folder(family)
    return list_built_in().get(address) or Path(address).expanduser()


def describe_missing(address: str) -> str:
    """Write the error for an address without a generator, with all forms of addresses."""
    path = Path(address).expanduser()
    what = (
        describe_non_folder(path) if path.is_file() else "no generator bundle or checkpoint there"
    )
    return (
        f"{address}: {what}; give {ADDRESS_FORMS} (`clipgan "
        "import-weights` makes bundles of official weights)"
    )
