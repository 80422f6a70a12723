"""Direct access to the SQLite store of a project, for two things that MLflow does not do.

MLflow keeps absolute addresses of files, so a project that was moved would look for its models at
the old place, and a copy would write into the original: the addresses are corrected here. And
importing MLflow takes seconds, too long to find out whether a model is registered: that is read
here from MLflow's tables.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from clipgan.errors import RegistryError

ARTIFACTS = "artifacts"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""All columns of MLflow's database that hold the address of a file."""
_LOCK_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class StoredVersion:
    """A model version as the database has it; ``location`` is the folder of its files."""

    version: int
    run_id: str
    tags: dict[str, str]
    location: Path | None


def locate_artifacts(database: Path) -> str:
    """Address of the artifacts' folder beside a database file."""
    return (database.parent / ARTIFACTS).as_uri()


def rebase_artifacts(database: Path) -> None:
    """Point every address below the folder of ``database`` to where that folder is now.

    The old place is known from the experiments' artifacts, which lie in a folder of the same name,
    such as ``mlruns/artifacts``. Experiments whose artifacts lie elsewhere stay as they are. Does
    nothing where nothing was moved.

    Raises:
        RegistryError: the database is damaged, or another process has locked it for a minute.
    """
    here = locate_artifacts(database)
    ending = "/".join(here.rsplit("/", 2)[1:])
    with _connect(database) as connection:
        tables = _list_tables(connection)
        if "experiments" not in tables:
            return
        known = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        moved = [old for (old,) in known if old and old != here and old.endswith(f"/{ending}")]
        columns = [(table, column) for table, column in _LOCATIONS if table in tables]
        # One transaction: another process sees all of it or nothing.
        with connection:
            for old in moved:
                before = _to_path(old).parent
                for table, column in columns:
                    # MLflow's own experiment is at a path, the others are at an address.
                    _replace(connection, table, column, before.as_uri(), database.parent.as_uri())
                    _replace(connection, table, column, str(before), str(database.parent))
    for old in moved:
        print(f"{database.parent}: was moved or copied from {_to_path(old).parent}", flush=True)


def read_stored_aliases(database: Path, model_name: str) -> dict[str, int]:
    """Alias -> version of a registered model; empty where there is no such model.

    Raises:
        RegistryError: the database is damaged.
    """
    with _connect(database) as connection:
        if "registered_model_aliases" not in _list_tables(connection):
            return {}
        rows = connection.execute(
            "SELECT alias, version FROM registered_model_aliases WHERE name = ?", (model_name,)
        )
        return {alias: int(version) for alias, version in rows}


def find_stored_version(
    database: Path, model_name: str, tag: str, value: str
) -> StoredVersion | None:
    """The newest version of a model that has this value of a tag.

    Raises:
        RegistryError: the database is damaged.
    """
    with _connect(database) as connection:
        if "model_version_tags" not in _list_tables(connection):
            return None
        row = connection.execute(
            "SELECT version, run_id, storage_location FROM model_versions "
            "JOIN model_version_tags USING (name, version) "
            # MLflow keeps the rows of deleted versions.
            "WHERE name = ? AND current_stage != 'Deleted_Internal' AND key = ? AND value = ? "
            "ORDER BY version DESC LIMIT 1",
            (model_name, tag, value),
        ).fetchone()
        if row is None:
            return None
        version, run_id, location = row
        tags = connection.execute(
            "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?",
            (model_name, version),
        )
        return StoredVersion(
            int(version), str(run_id), dict(tags), _to_path(location) if location else None
        )


def _list_tables(connection: sqlite3.Connection) -> set[str]:
    """A new database has none until MLflow opens it."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in rows}


def _replace(
    connection: sqlite3.Connection, table: str, column: str, before: str, now: str
) -> None:
    length = len(before) + 1
    connection.execute(
        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
        (now, length, length, f"{before}/"),
    )


def _to_path(address: str) -> Path:
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(address).path)))


@contextmanager
def _connect(database: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(database, timeout=_LOCK_TIMEOUT_SECONDS)
    try:
        yield connection
    except sqlite3.Error as error:
        raise RegistryError(f"{database} cannot be used: {error}") from error
    finally:
        connection.close()
