"""``clipgan init``: a ready params.yaml from profiles/, with the user's folder in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from clipgan.artifacts import atomic_path
from clipgan.config import load_params
from clipgan.errors import ConfigError
from clipgan.workspace import Workspace

_FOLDER_LINE = re.compile(r"^(?P<indent> +)folder:[^#\n]*(?P<comment>#.*)?$", re.MULTILINE)


def install_profile(
    workspace: Workspace, profile: str, *, folder: Path | None = None, force: bool = False
) -> str:
    """Copy ``profiles/PROFILE.yaml`` to params.yaml, comments and all; gives a line to print.

    The result is validated before it replaces anything.

    Raises:
        ConfigError: no such profile or folder, the profile needs a folder and got none, or
            params.yaml holds changes and ``force`` is not set.
    """
    known = sorted(path.stem for path in workspace.profiles.glob("*.yaml"))
    if profile not in known:
        raise ConfigError(f"{profile} is no profile: choose one of {', '.join(known)}")
    source = workspace.profiles / f"{profile}.yaml"
    text = source.read_text(encoding="utf-8")
    needs_folder = load_params(source).ingest.source == "folder"
    if needs_folder != (folder is not None):
        fix = "add --folder PATH, the root of your images" if needs_folder else "leave out --folder"
        raise ConfigError(f"profile {profile}: {fix}")
    if folder is not None:
        text = _set_folder(text, _check_folder(folder))
    target = workspace.params_file
    if not force and not _is_unchanged(workspace, known) and target.read_text("utf-8") != text:
        raise ConfigError(
            f"{target} holds changes of yours: --force replaces it (a copy is worth keeping)"
        )
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
        load_params(temporary)
    return f"params.yaml is now the profile {profile}; next: clipgan run"


def _is_unchanged(workspace: Workspace, known: list[str]) -> bool:
    """Whether params.yaml is missing or one of the profiles, whatever folder was put in."""
    if not workspace.params_file.exists():
        return True
    current = _set_folder(workspace.params_file.read_text(encoding="utf-8"), Path("-"))
    profiles = (workspace.profiles / f"{name}.yaml" for name in known)
    return any(current == _set_folder(path.read_text("utf-8"), Path("-")) for path in profiles)


def _set_folder(text: str, folder: Path) -> str:
    # A JSON string is a YAML string too, quotes and backslashes escaped.
    value = json.dumps(str(folder), ensure_ascii=False)

    def replace(match: re.Match[str]) -> str:
        comment = f"  {match['comment']}" if match["comment"] else ""
        return f"{match['indent']}folder: {value}{comment}"

    return _FOLDER_LINE.sub(replace, text, count=1)


def _check_folder(folder: Path) -> Path:
    resolved = folder.expanduser().resolve()
    if not resolved.is_dir():
        raise ConfigError(f"--folder {folder}: no such folder; give the root of your images")
    try:
        str(resolved).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"--folder {folder}: this path is not UTF-8, which params.yaml is written in: rename "
            "the folder"
        ) from None
    if not any(resolved.iterdir()):
        raise ConfigError(f"--folder {folder}: is empty; give the root of your images")
    return resolved
