"""The families by name. A new one is one line of :data:`FAMILIES`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from clipgan.errors import ConfigError

Part = Literal["config", "networks", "training", "sampling", "importer"]
_ASSETS = Path(__file__).parents[1] / "assets"


@dataclass(frozen=True)
class FamilySpec:
    """Where the parts of a family lie.

    Attributes:
        name: in params.yaml (``train.family``, and its own section), bundles and checkpoints.
        package: its folder.
        base: folder of its built-in generator below ``assets``; None: it has none.
        has_importer: it can read official weights.
    """

    name: str
    package: str
    base: str | None = None
    has_importer: bool = False

    def load(self, part: Part) -> Any:
        """``SPEC`` of a part (:mod:`clipgan.families`)."""
        return import_module(f"{self.package}.{part}").SPEC

    @property
    def base_folder(self) -> Path | None:
        """The bundle of its built-in generator."""
        return None if self.base is None else _ASSETS / self.base


_LIST = (
    FamilySpec("lafite", "clipgan.families.lafite", base="base_generator", has_importer=True),
    FamilySpec("galip", "clipgan.families.galip", base="base_galip", has_importer=True),
)
FAMILIES: dict[str, FamilySpec] = {spec.name: spec for spec in _LIST}
"""The first one is the default where nobody names a family."""


def find_family(name: str) -> FamilySpec:
    """The family of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in FAMILIES:
        raise ConfigError(f"family = {name!r} is unknown: use {', '.join(FAMILIES)}")
    return FAMILIES[name]
