"""Where MLflow's store is, and the environment it runs in.

The store is one SQLite file under the project's ``mlruns`` with the artifacts beside it, addressed
by absolute paths, because DVC's temporary experiments run in another working directory. An
``MLFLOW_TRACKING_URI`` in the environment takes its place.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from filelock import FileLock

from clipgan.errors import RegistryError
from clipgan.tracking.local_store import locate_artifacts, rebase_artifacts

MLFLOW_ENVIRONMENT: Mapping[str, str] = {
    # MLflow honours DO_NOT_TRACK only when it reads `true`.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Models are safetensors and code; a pickle in the store is never loaded.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # Requirements are listed explicitly: nothing is inferred, exported or asked of an index.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""What every process that imports MLflow runs with."""

MLFLOW_DEFAULTS: Mapping[str, str] = {
    # MLflow's seven tries keep a mistyped address silent for more than four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
}
"""Set unless the user's environment has them."""

_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///")
_MISSING_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def resolve_tracking_uri(root: Path, environment: Mapping[str, str]) -> str:
    """The store's address: ``MLFLOW_TRACKING_URI``, or the SQLite file of the project at ``root``.

    ``DVC_ROOT`` goes before ``root``: in a temporary experiment it names the project itself, so
    that its runs land in the same store.
    """
    given = environment.get("MLFLOW_TRACKING_URI", "").strip()
    if given:
        return given
    project = Path(environment.get("DVC_ROOT") or root).resolve()
    return sqlite_address(project / "mlruns" / "mlflow.db")


def load_mlflow() -> Any:
    """Import MLflow with :data:`MLFLOW_ENVIRONMENT` in force (it reads some of it at import)."""
    os.environ.update({**MLFLOW_DEFAULTS, **os.environ, **MLFLOW_ENVIRONMENT})
    import mlflow

    # A new database logs each of its sixty migrations.
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow


def open_client(tracking_uri: str) -> Any:
    """An ``MlflowClient`` of runs and registry; makes the SQLite store when there is none.

    Raises:
        RegistryError: the address is of no known kind or the store cannot be reached.
    """
    with explain_mlflow_errors(f"the MLflow store {tracking_uri} cannot be used"):
        mlflow = load_mlflow()
        with _single_migration(tracking_uri):
            client = mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
            client.search_experiments(max_results=1)
            if (database := sqlite_path(tracking_uri)) is not None:
                rebase_artifacts(database)
    return client


def ensure_experiment(client: Any, tracking_uri: str, name: str) -> str:
    """Id of the experiment ``name``, created where it is missing.

    Raises:
        RegistryError: the experiment was deleted in MLflow.
    """
    with explain_mlflow_errors(f"the MLflow experiment {name!r} cannot be opened"):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(client.create_experiment(name, artifact_location(tracking_uri)))
            except load_mlflow().MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                # Another process made it in between.
                experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        where = f" --experiment-id {experiment.experiment_id}" if experiment is not None else ""
        raise RegistryError(
            f"the MLflow experiment {name!r} is deleted: `mlflow experiments restore{where}`"
        )
    return str(experiment.experiment_id)


def artifact_location(tracking_uri: str) -> str | None:
    """The folder of the artifacts beside a SQLite store; None: the tracking server's own place."""
    database = sqlite_path(tracking_uri)
    return None if database is None else locate_artifacts(database)


def sqlite_address(database: Path) -> str:
    """The address of a database file; :func:`sqlite_path` is its inverse.

    SQLAlchemy takes the characters of a path as they are, but for ``?``, where its options begin:
    SQLite's own form of an address can write that one. There the driver is named, because MLflow
    makes the folders of a path after a plain ``sqlite:///``.
    """
    if "?" not in str(database):
        return f"sqlite:///{database}"
    return f"sqlite+pysqlite:///file:{quote(os.fsencode(database))}?uri=true"


def sqlite_path(tracking_uri: str) -> Path | None:
    """The database file of a ``sqlite:///`` address, None for any other address."""
    prefix = _SQLITE.match(tracking_uri)
    if prefix is None:
        return None
    path = tracking_uri[prefix.end() :].partition("?")[0]
    if path.startswith("file:"):
        path = os.fsdecode(unquote_to_bytes(path.removeprefix("file:")))
    return Path(path).resolve()


def is_missing(error: Any) -> bool:
    """Whether an MlflowException says that the thing asked for does not exist.

    A missing alias answers INVALID_PARAMETER_VALUE, everything else RESOURCE_DOES_NOT_EXIST.
    """
    return error.error_code in _MISSING_CODES


@contextmanager
def explain_mlflow_errors(what: str) -> Iterator[None]:
    """Turn the store's exceptions into a one-line :class:`RegistryError` beginning with ``what``.

    A damaged database comes as SQLAlchemy's own exception.
    """
    mlflow = load_mlflow()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (mlflow.MlflowException, SQLAlchemyError) as error:
        raise RegistryError(f"{what}: {_find_reason(error)}") from error


def _find_reason(error: BaseException) -> str:
    """The first line of the message; of a server that is away MLflow's own text is a page long."""
    from requests import exceptions

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, exceptions.ConnectionError | exceptions.Timeout):
            return "the tracking server does not answer"
        cause = cause.__cause__ or cause.__context__
    words = str(error).strip()
    return words.splitlines()[0] if words else type(error).__name__


@contextmanager
def global_tracking_uri(tracking_uri: str) -> Iterator[None]:
    """Set MLflow's process-wide address inside the block.

    Only for calls that need it: MLflow looks up ``models:/`` addresses there, whatever address its
    client was given.
    """
    mlflow = load_mlflow()
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri)
    try:
        yield
    finally:
        # None also removes the variable from the environment.
        mlflow.set_tracking_uri(before)


@contextmanager
def _single_migration(tracking_uri: str) -> Iterator[None]:
    """Let one process at a time open the store: two would both create a new database's tables."""
    database = sqlite_path(tracking_uri)
    if database is None:
        yield
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(database.parent / ".mlflow.lock").acquire()
    except OSError as error:
        raise RegistryError(
            f"{database.parent}: not writable ({error.strerror}): set MLFLOW_TRACKING_URI"
        ) from None
    with lock:
        yield
