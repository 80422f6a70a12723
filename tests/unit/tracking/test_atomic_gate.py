"""Reading the champion, deciding and changing the alias are one step, also between processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from clipgan.metrics.values import MetricValue
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking.promotion import promote_version
from clipgan.tracking.versions import list_versions
from tests.metric_values import value_of
from tests.mlflow_stores import register_values, save_tiny_bundle
from tests.params import params_with
from tests.unit.tracking.tiny_sampler import LOADER

ROOT = Path(__file__).parents[3]
CONFIG = params_with(
    {
        "register.model_name": "tiny",
        "register.gate_metric": "fd",
        "register.first_version": "always",
    }
).register_model
REGISTER = """
import json, sys, time
from pathlib import Path
from clipgan.metrics.values import MetricValue
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking import gate
from tests.metric_values import value_of
from tests.mlflow_stores import register_values
from tests.unit.tracking.test_atomic_gate import CONFIG
from tests.unit.tracking.tiny_sampler import LOADER

uri, bundle, value = sys.argv[1:]

compare_values = gate.compare_values

def compare_slowly(a, b):
    # Long enough for the other process to come in between, were there no lock.
    time.sleep(1.0)
    return compare_values(a, b)

gate.compare_values = compare_slowly
print("ready", flush=True)
sys.stdin.readline()
entries = {"fd": value_of("fd", float(value), reference_fingerprint="old")}
package = GeneratorPackage(Path(bundle), LOADER)
report = register_values(CONFIG, package, uri, entries)
decision = report.decision
print(json.dumps([report.version, decision.promoted, decision.champion_version]))
"""


def register(uri: str, bundle: Path, fd: float, **options: Any) -> Any:
    entries = {"fd": value_of("fd", fd, reference_fingerprint=options.pop("data", "old"))}
    return register_values(CONFIG, GeneratorPackage(bundle, LOADER), uri, entries, **options)


def start(uri: str, bundle: Path, fd: float) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-c", REGISTER, uri, str(bundle), str(fd)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=pipe,
        stdout=pipe,
        text=True,
    )


@pytest.mark.timeout(600)
def test_two_processes_judge_one_after_the_other(tracking_uri: str, tmp_path: Path) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "0", 0), 5.0)
    processes = [
        start(tracking_uri, save_tiny_bundle(tmp_path / str(fd), round(fd)), fd)
        for fd in (2.0, 1.0)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    worse, better = (json.loads(output.splitlines()[-1]) for output in outputs)
    assert better[1], "the best of three is promoted, whoever came first"
    assert sorted([worse[2], better[2]]) in ([1, worse[0]], [1, better[0]]), (
        "whoever came second was compared with the first"
    )
    rows = list_versions("tiny", tracking_uri=tracking_uri)
    assert {row.version: row.metrics["fd"] for row in rows if "champion" in row.aliases} == {
        better[0]: 1.0
    }


def test_a_champion_that_changes_while_one_is_measured_is_compared_with(
    tracking_uri: str, tmp_path: Path
) -> None:
    register(tracking_uri, save_tiny_bundle(tmp_path / "0", 0), 5.0)
    register(tracking_uri, save_tiny_bundle(tmp_path / "1", 1), 6.0)
    measured = []

    def measure(version: int, like: MetricValue) -> Mapping[str, MetricValue]:
        measured.append(version)
        if version == 1:
            # Needs the lock: would wait for ever if it were held meanwhile.
            promote_version("tiny", 2, reason="meanwhile", tracking_uri=tracking_uri)
        return {"fd": value_of("fd", 4.0 - version, reference_fingerprint="new")}

    report = register(
        tracking_uri,
        save_tiny_bundle(tmp_path / "2", 2),
        2.5,
        data="new",
        measure=measure,
    )
    assert measured == [1, 2]
    decision = report.decision
    assert (decision.promoted, decision.champion_version) == (False, 2)
    assert "fd 2.5 against 2 of champion version 2" in decision.reason
