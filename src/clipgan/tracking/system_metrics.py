"""Logs the load of the machine while a training runs, into its spool, under ``system/``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clipgan.tracking.mlflow_store import load_mlflow
from clipgan.tracking.spool import METRICS, Spool

PREFIX = "system/"
INTERVAL_SECONDS = 10.0
"""Unless ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL`` says otherwise."""

_JOIN_SECONDS = 5.0

logger = logging.getLogger(__name__)


@contextmanager
def system_metrics(spool: Spool, *, enabled: bool) -> Iterator[None]:
    """Sample CPU, memory, disk and (with nvidia-ml-py) GPU beside the block.

    MLflow's own sampler sends every sample to the server and ends with the first outage.
    """
    if not enabled:
        yield
        return
    load_mlflow()
    from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL

    interval = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or INTERVAL_SECONDS
    stop = threading.Event()
    thread = threading.Thread(
        target=_sample, args=(spool, stop, float(interval)), name="system-metrics", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_JOIN_SECONDS)


def _sample(spool: Spool, stop: threading.Event, interval_seconds: float) -> None:
    monitors = _make_monitors()
    step = _find_next_step(spool)
    while not stop.wait(interval_seconds):
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values.update(monitor.aggregate_metrics())
            monitor.clear_metrics()
        spool.append(METRICS, step=step, values={PREFIX + key: v for key, v in values.items()})
        step += 1


def _make_monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except Exception as error:
        # No NVIDIA card, driver or library: each raises an exception of its own.
        logger.info("no GPU load is sampled: %s", error)
    return monitors


def _find_next_step(spool: Spool) -> int:
    """The step after the last one that an earlier process of this training has sampled."""
    return 1 + max(
        (
            record["step"]
            for record, _ in spool.read()
            if record["kind"] == METRICS and next(iter(record["values"])).startswith(PREFIX)
        ),
        default=-1,
    )
