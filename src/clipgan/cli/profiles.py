"""``clipgan init``: a ready params.yaml from profiles/, with the user's folder in it."""

from __future__ import annotations

from pathlib import Path

from clipgan.artifacts import atomic_path, describe_non_folder
from clipgan.config import load_params, load_profile, parse_params, read_profile
from clipgan.errors import ConfigError
from clipgan.workspace import Workspace


def install_profile(
    workspace: Workspace, profile: str, *, folder: Path | None = None, force: bool = False
) -> str:
    """Write the whole of a profile to params.yaml, comments and all; returns a line to print.

    The result is validated before it replaces anything.

    Raises:
        ConfigError: no such profile or folder, the profile needs a folder and got none, or
            params.yaml holds changes and ``force`` is not set.
    """
    known = sorted(path.stem for path in workspace.profiles.glob("*.yaml"))
    if profile not in known:
        raise ConfigError(f"{profile} is no profile: choose one of {', '.join(known)}")
    source = workspace.profiles / f"{profile}.yaml"
    needs_folder = load_profile(source).ingest.source == "folder"
    if needs_folder != (folder is not None):
        fix = "add --folder PATH, the root of your images" if needs_folder else "leave out --folder"
        raise ConfigError(f"profile {profile}: {fix}")
    text = read_profile(source, image_folder=_check_folder(folder) if folder else None)
    parse_params(text, source)
    target = workspace.params_file
    if not force and not _is_unchanged(workspace, known) and target.read_bytes() != text.encode():
        raise ConfigError(
            f"{target} holds changes of yours: --force replaces it (a copy is worth keeping)"
        )
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return f"params.yaml is now the profile {profile}; next: clipgan run"


def _is_unchanged(workspace: Workspace, known: list[str]) -> bool:
    """Whether params.yaml is missing or one of the profiles, whatever folder was put in."""
    if not workspace.params_file.exists():
        return True
    try:
        folder = Path(load_params(workspace.params_file).ingest.source_keys["folder"])
    except ConfigError:
        return False  # No profile is wrong: these are changes of the user's.
    current = workspace.params_file.read_text(encoding="utf-8")
    profiles = [workspace.profiles / f"{name}.yaml" for name in known]
    return any(
        current in (read_profile(path), read_profile(path, image_folder=folder))
        for path in profiles
    )


def _check_folder(folder: Path) -> Path:
    resolved = folder.expanduser().resolve()
    if not resolved.is_dir():
        what = describe_non_folder(resolved)
        raise ConfigError(f"--folder {folder}: {what}; give the root folder of your images")
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
