"""A registered generator back as files."""

from __future__ import annotations

from pathlib import Path

from clipgan.errors import RegistryError
from clipgan.tracking.environment import (
    explain_mlflow_errors,
    global_tracking_uri,
    load_mlflow,
    open_client,
)


def download_generator(
    address: str, *, tracking_uri: str, target: Path
) -> tuple[Path, Path | None]:
    """Fetch a logged generator.

    Args:
        address: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or ``models:/<model id>``.
        target: folder to download into.

    Returns:
        The bundle's folder, and the weights file of its CLIP (None: the built-in one).

    Raises:
        RegistryError: no such model, version or alias, or its files are gone.
    """
    mlflow = load_mlflow()
    with (
        explain_mlflow_errors(f"{address} cannot be loaded (`clipgan models` lists versions)"),
        global_tracking_uri(tracking_uri),
    ):
        try:
            folder = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(target)))
            model = mlflow.models.Model.load(str(folder))
        except OSError as error:
            raise RegistryError(
                f"{address}: its files are gone ({error}); mlruns/artifacts belongs to the store"
            ) from None
    artifacts = model.flavors.get("python_function", {}).get("artifacts") or {}
    paths = {name: folder / entry["path"] for name, entry in artifacts.items()}
    if "generator" not in paths:
        raise RegistryError(f"{address}: holds no generator of clipgan")
    return paths["generator"], paths.get("clip")


def identify_version(address: str, *, tracking_uri: str) -> str:
    """What a registered generator is known by: the hash of its weights that it was registered with.

    Args:
        address: see :func:`download_generator`; an alias stands for the version it has now.

    Raises:
        RegistryError: no such model, version or alias, or the store cannot be reached.
    """
    name = address.removeprefix("models:/")
    if "@" not in name and "/" not in name:
        return address  # a model's own id never means another one
    from clipgan.tracking.registry import DATA_HASH_TAG

    client = open_client(tracking_uri)
    with explain_mlflow_errors(f"{address} cannot be found (`clipgan models` lists versions)"):
        if "@" in name:
            version = client.get_model_version_by_alias(*name.rsplit("@", 1))
        else:
            version = client.get_model_version(*name.rsplit("/", 1))
    return str(version.tags.get(DATA_HASH_TAG) or version.source)


def find_version_of_run(run_id: str, *, tracking_uri: str) -> str:
    """``models:/NAME/VERSION`` of the generator that a run registered last.

    Raises:
        RegistryError: the run registered none, or the store cannot be used.
    """
    client = open_client(tracking_uri)
    with explain_mlflow_errors(f"the versions of run {run_id} cannot be searched"):
        found = client.search_model_versions(f"run_id = '{run_id}'")
    if not found:
        raise RegistryError(f"runs:/{run_id}: no registered version; `clipgan models` lists them")
    newest = max(found, key=lambda version: int(version.version))
    return f"models:/{newest.name}/{newest.version}"
