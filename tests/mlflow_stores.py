"""A real MLflow store for a test (one migrated database is made and then copied), tiny models."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from clipgan.config import RegisterConfig
from clipgan.families.lafite.networks.generator import LafiteGenerator
from clipgan.metrics.evaluations import INITIAL, TRAINED, Evaluation
from clipgan.metrics.values import MetricValue
from clipgan.models.bundle import BundleInfo, save_bundle
from clipgan.tracking.gate import MeasureVersion
from clipgan.tracking.mlflow_store import MLFLOW_ENVIRONMENT, open_client, sqlite_path
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking.registry import RegistrationReport, register_model
from clipgan.tracking.versions import GATE_TAG, MODEL_FILES, PROMOTED, REASON_TAG, STATE_TAG

TEXT_DIM = 8


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables (2 s to make, 0.04 s to copy)."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking_uri(migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty store of the test's own; the environment is put back afterwards."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    database = tmp_path / "mlruns" / "mlflow.db"
    database.parent.mkdir()
    shutil.copyfile(migrated_database, database)
    uri = f"sqlite:///{database}"
    assert sqlite_path(uri) == database
    return uri


class TrackingServer:
    """``mlflow server`` on one port of the loopback address, up and down as a test wants it."""

    def __init__(self, store: str, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._store, self._folder = store, folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self._store]
        command += ["--artifacts-destination", str(self._folder / "mlruns" / "artifacts")]
        environment = {
            **os.environ,
            **MLFLOW_ENVIRONMENT,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        self._process = subprocess.Popen(
            command, cwd=self._folder, env=environment, start_new_session=True
        )
        for _ in range(600):
            assert self._process.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            except OSError:
                time.sleep(0.3)
            else:
                return
        raise AssertionError("the server does not answer")

    def stop(self) -> None:
        """Whether it runs or not."""
        if self._process is not None:
            os.killpg(self._process.pid, 15)
            self._process.wait(timeout=60)
            self._process = None


@pytest.fixture
def server(tracking_uri: str, tmp_path: Path) -> Iterator[TrackingServer]:
    """A server that is up, over the test's own store."""
    made = TrackingServer(tracking_uri, tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def list_points(tracking_uri: str, run_id: str | None) -> dict[str, list[tuple[int, float]]]:
    """Every point of a run, with its repetitions, by metric: (step, value) in order."""
    client: Any = open_client(tracking_uri)
    names = client.get_run(run_id).data.metrics
    return {
        name: sorted((p.step, p.value) for p in client.get_metric_history(run_id, name))
        for name in names
    }


def save_tiny_bundle(
    folder: Path,
    seed: int = 0,
    *,
    text_dim: int = TEXT_DIM,
    clip: Mapping[str, str] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """A random generator of 8 px, as the train stage writes it."""
    torch.manual_seed(seed)
    generator = LafiteGenerator(
        resolution_px=8,
        text_dim=text_dim,
        latent_dim=8,
        style_dim=8,
        text_hidden_dim=8,
        mapping_layers=2,
        channel_base=64,
        channel_max=8,
    )
    info = BundleInfo(
        family="lafite",
        clip=dict(clip or {"model": "tiny"}),
        resolution_px=8,
        images_seen=32,
        provenance=dict(provenance or {}),
    )
    save_bundle(folder, generator, None, info, dtype="fp16")
    return folder


def register_values(
    config: RegisterConfig,
    package: GeneratorPackage,
    tracking_uri: str,
    trained: Mapping[str, MetricValue],
    *,
    initial: Mapping[str, MetricValue] | None = None,
    run_id: str | None = None,
    measure: MeasureVersion = lambda version, like: "not in this test",
    state: str = "state",
) -> RegistrationReport:
    """Register a generator with these values."""
    return register_model(
        config,
        package,
        Evaluation({TRAINED: trained, INITIAL: initial or {}}),
        source="evaluation.json",
        run_id=run_id,
        state=state,
        tracking_uri=tracking_uri,
        measure=measure,
    )


def save_version(
    tracking_uri: str,
    folder: Path,
    name: str,
    state: str,
    aliases: Sequence[str] = ("challenger", "champion"),
) -> None:
    """A version as a registration leaves it, its files empty ones in ``folder``."""
    for file in MODEL_FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    client = open_client(tracking_uri)
    client.create_registered_model(name)
    tags = {STATE_TAG: state, GATE_TAG: PROMOTED, REASON_TAG: "better"}
    made = client.create_model_version(name, folder.as_uri(), tags=tags)
    for alias in aliases:
        client.set_registered_model_alias(name, alias, made.version)
