"""The project on disk: its paths, and which project a folder belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipgan.config import Params, load_params
from clipgan.errors import ConfigError

RECIPES = "recipes/dvc.yaml"
"""File of the stages that ``clipgan run`` does not run."""


class _Place:
    """A path below the project's root."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, workspace: Workspace, owner: type[Workspace]) -> Path:
        return workspace.root.joinpath(*self._parts)


@dataclass(frozen=True)
class Workspace:
    """Every path of a project, by name.

    ``raw`` holds downloads, kept between runs; ``settings`` what decides each stage, one file a
    stage; ``remembered`` the content hashes of the source's files.
    """

    root: Path

    params_file = _Place("params.yaml")
    dvc_lock = _Place("dvc.lock")
    profiles = _Place("profiles")
    mlruns = _Place("mlruns")
    raw = _Place("data", "raw")
    source = _Place("data", "source.json")
    settings = _Place("data", "settings")
    images = _Place("data", "images")
    features = _Place("data", "features")
    training = _Place("data", "training")
    evaluation = _Place("data", "evaluation")
    report = _Place("data", "report")
    clip = _Place("data", "clip")
    generator = _Place("data", "generator")
    mapper = _Place("data", "mapper")
    remembered = _Place("data", ".work", "scan", "contents.json")

    def work(self, stage: str) -> Path:
        """Folder of the resumable state of ``stage``: outside DVC, ignored by git."""
        return self.root / "data" / ".work" / stage

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


def open_project() -> tuple[Workspace, Params]:
    """The project around the working directory, and its parameters.

    Raises:
        ConfigError: there is no project, or params.yaml is wrong.
    """
    workspace = find_workspace(Path.cwd())
    return workspace, load_params(workspace.params_file)
