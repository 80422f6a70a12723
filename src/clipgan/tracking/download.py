"""Download a registered generator as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from clipgan.errors import RegistryError
from clipgan.tracking.mlflow_store import (
    explain_mlflow_errors,
    global_tracking_uri,
    load_mlflow,
    open_client,
)
from clipgan.tracking.registry import DATA_HASH_TAG
from clipgan.tracking.versions import GENERATOR_WEIGHTS, MODEL_FILE, read_aliases, search_versions

RUN_PREFIX = "runs:/"
_ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)")


def download_generator(
    address: str, *, tracking_uri: str, target: Path
) -> tuple[Path, Path | None]:
    """Fetch a logged generator.

    Args:
        address: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/<model id>``, or
            ``runs:/ID`` for what that run registered last.
        target: folder to download into.

    Returns:
        The bundle's folder, and the weights file of its CLIP (None: the built-in one).

    Raises:
        RegistryError: no such model, version, alias or run, or its files are gone.
    """
    mlflow = load_mlflow()
    client = open_client(tracking_uri)
    address = _find_version(client, address)
    _check_alias(client, address)
    with (
        explain_mlflow_errors(f"{address} cannot be loaded (`clipgan models` lists versions)"),
        global_tracking_uri(tracking_uri),
    ):
        try:
            folder = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(target)))
        except OSError as error:
            raise RegistryError(f"{address} cannot be loaded: {error}") from None
        if not (folder / MODEL_FILE).is_file():
            raise RegistryError(_describe_loss(address))
        model = mlflow.models.Model.load(str(folder))
    artifacts = model.flavors.get("python_function", {}).get("artifacts") or {}
    paths = {name: folder / entry["path"] for name, entry in artifacts.items()}
    if "generator" not in paths:
        raise RegistryError(f"{address}: holds no generator of clipgan")
    if not all(path.exists() for path in paths.values()):
        raise RegistryError(_describe_loss(address))
    return paths["generator"], paths.get("clip")


def download_bundle_info(address: str, *, tracking_uri: str, target: Path) -> Path:
    """Fetch only ``bundle.json``, the description of a logged generator; returns its path.

    Args:
        address, target: see :func:`download_generator`.

    Raises:
        RegistryError: no such model, version or alias, or the file or the store is away.
    """
    mlflow = load_mlflow()
    address = _find_version(open_client(tracking_uri), address)
    file = Path(GENERATOR_WEIGHTS).with_name("bundle.json").as_posix()
    with (
        explain_mlflow_errors(f"{address} cannot be read (`clipgan models` lists versions)"),
        global_tracking_uri(tracking_uri),
    ):
        try:
            path = mlflow.artifacts.download_artifacts(f"{address}/{file}", dst_path=str(target))
        except OSError as error:
            raise RegistryError(f"{address} cannot be read: {error}") from None
    return Path(path)


def _describe_loss(address: str) -> str:
    return (
        f"the files of {address} are gone: register again (`clipgan register`, while "
        "data/training holds that generator)"
    )


def _check_alias(client: Any, address: str) -> None:
    match = _ALIAS.fullmatch(address)
    if match is None:
        return
    name, alias = match.groups()
    aliases = read_aliases(client, name)
    if aliases and alias not in aliases:
        others = " or ".join(
            f"models:/{name}@{other} (version {number})"
            for other, number in sorted(aliases.items())
        )
        raise RegistryError(
            f"{address} cannot be loaded: no version is {alias}; there is {others}, and "
            "`clipgan promote VERSION` makes one champion"
        )


def identify_version(address: str, *, tracking_uri: str) -> str:
    """The hash of its weights under which a generator was registered.

    Args:
        address: see :func:`download_generator`; an alias stands for the version it has now.

    Raises:
        RegistryError: no such model, version, alias or run, or the store cannot be reached.
    """
    client = open_client(tracking_uri)
    address = _find_version(client, address)
    name = address.removeprefix("models:/")
    if "@" not in name and "/" not in name:
        return address  # a model's own id never changes its meaning
    with explain_mlflow_errors(f"{address} cannot be found (`clipgan models` lists versions)"):
        if "@" in name:
            version = client.get_model_version_by_alias(*name.rsplit("@", 1))
        else:
            version = client.get_model_version(*name.rsplit("/", 1))
    return str(version.tags.get(DATA_HASH_TAG) or version.source)


def _find_version(client: Any, address: str) -> str:
    """``runs:/ID`` -> the version that the run registered last; other addresses stay unchanged."""
    if not address.startswith(RUN_PREFIX):
        return address
    run_id = address.removeprefix(RUN_PREFIX)
    with explain_mlflow_errors(f"the versions of run {run_id} cannot be searched"):
        versions = search_versions(client, f"run_id = '{run_id}'")
    if not versions:
        raise RegistryError(f"{address}: no registered version; `clipgan models` lists them")
    newest = max(versions, key=lambda version: int(version.version))
    return f"models:/{newest.name}/{newest.version}"
