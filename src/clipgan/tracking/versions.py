"""The versions of a registered model, as the registry has them at this moment."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clipgan.errors import EvaluationError
from clipgan.metrics.values import MetricValue, parse_value
from clipgan.tracking.local_store import find_stored_version, read_stored_aliases, rebase_artifacts
from clipgan.tracking.mlflow_store import (
    explain_mlflow_errors,
    is_missing,
    load_mlflow,
    open_client,
    sqlite_path,
)

CHALLENGER, CHAMPION = "challenger", "champion"
STATE_TAG = "clipgan.state"
GATE_TAG = "clipgan.gate"
REASON_TAG = "clipgan.gate_reason"
PROMOTED, REFUSED = "promoted", "refused"
METRIC_PREFIX = "metric."
MODEL_FILE = "MLmodel"
GENERATOR_WEIGHTS = "artifacts/generator/generator.safetensors"
MODEL_FILES = (MODEL_FILE, GENERATOR_WEIGHTS)
"""Files without which a version cannot be loaded."""
_PAGE_SIZE = 1000


@dataclass(frozen=True)
class ModelVersionSummary:
    """A row of the table of versions; ``created`` is UTC, ``reason`` the gate's last word."""

    version: int
    aliases: tuple[str, ...]
    created: datetime
    run_id: str
    metrics: dict[str, float]
    reason: str


@dataclass(frozen=True)
class RegisteredVersion:
    """What the registry knows of one version; ``promoted``: the gate has made it champion once."""

    version: int
    run_id: str
    promoted: bool
    reason: str
    has_files: bool


@dataclass(frozen=True)
class RegistryView:
    """The versions that hold the two aliases, and the one that was asked for."""

    champion: int | None
    challenger: int | None
    registered: RegisteredVersion | None


def look_up(model_name: str, state: str, *, tracking_uri: str) -> RegistryView:
    """What the registry says now about the version that was registered with tag ``state``.

    A SQLite store is read without MLflow, whose import takes seconds.

    Raises:
        RegistryError: the store cannot be used.
    """
    database = sqlite_path(tracking_uri)
    if database is None:
        client = open_client(tracking_uri)
        aliases = read_aliases(client, model_name)
        registered = _ask_server(client, model_name, state)
    elif database.exists():
        rebase_artifacts(database)
        aliases = read_stored_aliases(database, model_name)
        registered = _ask_database(database, model_name, state)
    else:
        aliases, registered = {}, None
    return RegistryView(aliases.get(CHAMPION), aliases.get(CHALLENGER), registered)


def list_versions(model_name: str, *, tracking_uri: str) -> list[ModelVersionSummary]:
    """All versions of a model, newest first; empty where the model does not exist.

    Raises:
        RegistryError: the store cannot be used.
    """
    client = open_client(tracking_uri)
    aliases = read_aliases(client, model_name)
    with explain_mlflow_errors(f"the versions of {model_name} cannot be listed"):
        versions = search_versions(client, f"name = '{model_name}'")
    rows = [
        ModelVersionSummary(
            version=int(item.version),
            # search_model_versions returns no aliases: they come from the model itself.
            aliases=tuple(sorted(name for name, to in aliases.items() if to == int(item.version))),
            created=datetime.fromtimestamp(item.creation_timestamp / 1000, UTC),
            run_id=str(item.run_id),
            metrics=read_numbers(item.tags),
            reason=item.tags.get(REASON_TAG, ""),
        )
        for item in versions
    ]
    return sorted(rows, key=lambda row: -row.version)


def search_versions(client: Any, filter_string: str) -> list[Any]:
    """Every model version that a filter matches, from all pages. Raises MLflow's exceptions."""
    versions: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(filter_string, max_results=_PAGE_SIZE, page_token=token)
        versions += page
        token = page.token
        if not token:
            return versions


def find_newest_version(client: Any, name: str, tag: str, value: str) -> Any | None:
    """The newest version of a model with this value of a tag. Raises MLflow's exceptions."""
    versions = search_versions(client, f"name = '{name}' and tags.`{tag}` = '{value}'")
    return max(versions, key=lambda item: int(item.version), default=None)


def read_aliases(client: Any, name: str) -> dict[str, int]:
    """Alias -> version of a registered model; empty where there is no such model.

    Raises:
        RegistryError: the store cannot be used.
    """
    with explain_mlflow_errors(f"the registered model {name} cannot be read"):
        try:
            aliases = client.get_registered_model(name).aliases
        except load_mlflow().MlflowException as error:
            if is_missing(error):
                return {}
            raise
    return {alias: int(version) for alias, version in aliases.items()}


def read_numbers(tags: Mapping[str, str]) -> dict[str, float]:
    """Metric -> number, from a version's tags, whatever program version wrote them. Tags of the
    same prefix that other tools wrote are left out."""
    numbers = {
        key.removeprefix(METRIC_PREFIX): _read_number(text)
        for key, text in tags.items()
        if key.startswith(METRIC_PREFIX)
    }
    return {name: number for name, number in numbers.items() if number is not None}


def read_value(tags: Mapping[str, str], metric: str) -> MetricValue | str | None:
    """A metric's value in a version's tags; None: it has none; text: why it cannot be read."""
    if metric not in read_numbers(tags):
        return None
    try:
        return parse_value(json.loads(tags[f"{METRIC_PREFIX}{metric}"]), metric)
    except EvaluationError:
        return "one value is of another program version"


def has_files(client: Any, version: Any) -> bool:
    """Whether the files of a model version are where the store says. Raises MLflow's exceptions."""
    model_id = find_model_id(version)
    for file in map(Path, MODEL_FILES):
        folder = None if file.parent == Path() else file.parent.as_posix()
        listed = client.list_logged_model_artifacts(model_id, folder)
        if file.as_posix() not in {item.path for item in listed}:
            return False
    return True


def find_model_id(version: Any) -> str:
    """Id of the logged model behind a version (``ModelVersion.model_id`` is None in MLflow 3)."""
    return str(version.source).removeprefix("models:/")


def _read_number(text: str) -> float | None:
    try:
        tree = json.loads(text)
    except ValueError:
        return None
    number = tree.get("value") if isinstance(tree, dict) and "protocol" in tree else None
    if not isinstance(number, int | float) or not math.isfinite(number):
        return None
    return float(number)


def _ask_server(client: Any, model_name: str, state: str) -> RegisteredVersion | None:
    with explain_mlflow_errors(f"the versions of {model_name} cannot be searched"):
        newest = find_newest_version(client, model_name, STATE_TAG, state)
        if newest is None:
            return None
        return _describe(newest.version, newest.run_id, newest.tags, has_files(client, newest))


def _ask_database(database: Path, model_name: str, state: str) -> RegisteredVersion | None:
    stored = find_stored_version(database, model_name, STATE_TAG, state)
    if stored is None:
        return None
    folder = stored.location
    whole = folder is not None and all((folder / name).is_file() for name in MODEL_FILES)
    return _describe(stored.version, stored.run_id, stored.tags, whole)


def _describe(version: Any, run_id: Any, tags: Mapping[str, str], whole: bool) -> RegisteredVersion:
    promoted = tags.get(GATE_TAG) == PROMOTED
    return RegisteredVersion(int(version), str(run_id), promoted, tags.get(REASON_TAG, ""), whole)
