"""The project on disk: where everything lies, and which project a folder belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipgan.errors import ConfigError

RECIPES = "recipes/dvc.yaml"
"""The stages that no run of the pipeline runs."""


@dataclass(frozen=True)
class Workspace:
    """Every path of a project, by name."""

    root: Path

    @property
    def params_file(self) -> Path:
        return self.root / "params.yaml"

    @property
    def dvc_lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def profiles(self) -> Path:
        return self.root / "profiles"

    @property
    def raw(self) -> Path:
        """Downloads, kept between runs."""
        return self.root / "data" / "raw"

    @property
    def source(self) -> Path:
        return self.root / "data" / "source.json"

    @property
    def settings(self) -> Path:
        """What decides each stage, one file a stage."""
        return self.root / "data" / "settings"

    @property
    def images(self) -> Path:
        return self.root / "data" / "images"

    @property
    def features(self) -> Path:
        return self.root / "data" / "features"

    @property
    def training(self) -> Path:
        return self.root / "data" / "training"

    @property
    def evaluation(self) -> Path:
        return self.root / "data" / "evaluation"

    @property
    def report(self) -> Path:
        return self.root / "data" / "report"

    @property
    def clip(self) -> Path:
        return self.root / "data" / "clip"

    @property
    def generator(self) -> Path:
        return self.root / "data" / "generator"

    @property
    def mapper(self) -> Path:
        return self.root / "data" / "mapper"

    @property
    def mlruns(self) -> Path:
        return self.root / "mlruns"

    def work(self, stage: str) -> Path:
        """Resumable state of ``stage``: outside DVC, ignored by git."""
        return self.root / "data" / ".work" / stage

    @property
    def remembered(self) -> Path:
        """Content hashes of the source's files, by their looks."""
        return self.work("scan") / "contents.json"

    def relative(self, path: Path) -> str:
        """``path`` as dvc.yaml writes it."""
        return path.relative_to(self.root).as_posix()


def find_workspace(start: Path) -> Workspace:
    """The project that ``start`` lies in: the nearest folder upwards with a dvc.yaml.

    Raises:
        ConfigError: there is none.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "dvc.yaml").is_file() and folder.name != Path(RECIPES).parent.name:
            return Workspace(folder)
    raise ConfigError(
        f"{start}: no dvc.yaml here or above; change into your clone of the project and run again"
    )
