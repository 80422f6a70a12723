"""Who is champion: decided by the gate or by a person.

Reading the champion, the gate's decision and the change of the alias are one step. Beside a SQLite
store a file lock keeps other processes out of it, whatever project they belong to. A tracking
server offers no lock: two machines that reach that step within the same few milliseconds can
both compare with the same earlier champion.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from filelock import FileLock

from clipgan.config import RegisterConfig
from clipgan.errors import EvaluationError, RegistryError
from clipgan.metrics.comparison import compare_values
from clipgan.metrics.values import MetricValue
from clipgan.tracking.gate import MeasureVersion, PromotionDecision, decide_promotion
from clipgan.tracking.mlflow_store import explain_mlflow_errors, open_client, sqlite_path
from clipgan.tracking.versions import (
    CHAMPION,
    GATE_TAG,
    METRIC_PREFIX,
    PROMOTED,
    REASON_TAG,
    REFUSED,
    list_versions,
    read_aliases,
    read_value,
)


def promote_version(
    model_name: str, version: int, *, reason: str, tracking_uri: str
) -> PromotionDecision:
    """Make a version champion by hand; ``reason`` is kept with it.

    Raises:
        RegistryError: there is no such model or version; the message lists those that exist.
    """
    client = open_client(tracking_uri)
    with registry_lock(tracking_uri):
        known = {row.version for row in list_versions(model_name, tracking_uri=tracking_uri)}
        if version not in known:
            listed = ", ".join(str(number) for number in sorted(known)) or "none"
            raise RegistryError(f"{model_name} has no version {version}; versions: {listed}")
        champion = read_aliases(client, model_name).get(CHAMPION)
        promoted = champion != version
        if promoted:
            text = f"by hand: {reason}"
            _make_champion(client, model_name, version, text, gate=PROMOTED)
        else:
            text = f"version {version} is the champion already"
    return PromotionDecision(promoted, text, champion)


@dataclass(frozen=True)
class Gate:
    """The gate of one model in one store."""

    client: Any
    config: RegisterConfig
    tracking_uri: str
    measure: MeasureVersion

    def judge(
        self, version: int, value: MetricValue, start: MetricValue | None
    ) -> PromotionDecision:
        """Decide on a version and, in the same step, make it champion or keep the reason."""
        measured: dict[int, MetricValue | str] = {}
        while True:
            with registry_lock(self.tracking_uri):
                number = read_aliases(self.client, self.config.model_name).get(CHAMPION)
                if number is None or number == version:
                    return self._decide(version, value, start, number, None)
                champion = measured.get(number) or self._read(number)
                obstacle = self._find_obstacle(value, champion)
                if number in measured or obstacle is None:
                    return self._decide(version, value, start, number, champion)
            # This takes minutes, in which others may use the registry: then the champion is read
            # again.
            measured[number] = self._measure_again(number, value, obstacle)

    def _read(self, version: int) -> MetricValue | str:
        name, metric = self.config.model_name, self.config.gate_metric
        with explain_mlflow_errors(f"version {version} of {name} cannot be read"):
            tags = self.client.get_model_version(name, str(version)).tags
        return read_value(tags, metric) or f"version {version} has no value of {metric}"

    def _find_obstacle(self, value: MetricValue, champion: MetricValue | str) -> str | None:
        """Why the two cannot be compared as they are; None where they can."""
        if isinstance(champion, str):
            return champion
        try:
            compare_values(value, champion)
        except EvaluationError as error:
            return str(error)
        return None

    def _measure_again(self, version: int, value: MetricValue, obstacle: str) -> MetricValue | str:
        """The champion's value by the challenger's protocol; its new values become its tags."""
        metric = self.config.gate_metric
        print(f"champion version {version} is measured again: {obstacle}", flush=True)
        values = self.measure(version, value)
        if not isinstance(values, str) and metric not in values:
            values = f"{metric} could not be computed"
        if isinstance(values, str):
            return (
                f"it and champion version {version} were not evaluated alike ({obstacle}), and "
                f"measuring the champion again failed: {values}"
            )
        with explain_mlflow_errors(f"the values of version {version} cannot be kept"):
            for key, text in build_metric_tags(values).items():
                self.client.set_model_version_tag(self.config.model_name, str(version), key, text)
        return values[metric]

    def _decide(
        self,
        version: int,
        value: MetricValue,
        start: MetricValue | None,
        champion_version: int | None,
        champion: MetricValue | str | None,
    ) -> PromotionDecision:
        decision = decide_promotion(
            self.config,
            version=version,
            challenger=value,
            start=start,
            champion_version=champion_version,
            champion=champion,
        )
        name = self.config.model_name
        if decision.promoted:
            _make_champion(self.client, name, version, decision.reason, gate=PROMOTED)
        elif champion_version != version:
            # A champion keeps the sentence that made it one.
            with explain_mlflow_errors(f"the gate's decision on version {version} cannot be kept"):
                _tag(self.client, name, version, decision.reason, REFUSED)
        return decision


def _make_champion(client: Any, name: str, version: int, reason: str, *, gate: str) -> None:
    with explain_mlflow_errors(f"version {version} of {name} cannot be promoted"):
        _tag(client, name, version, reason, gate)
        client.set_registered_model_alias(name, CHAMPION, str(version))


def _tag(client: Any, name: str, version: int, reason: str, gate: str) -> None:
    client.set_model_version_tag(name, str(version), REASON_TAG, reason)
    client.set_model_version_tag(name, str(version), GATE_TAG, gate)


def build_metric_tags(values: Mapping[str, MetricValue]) -> dict[str, str]:
    """Metric values as tags of a version."""
    return {
        f"{METRIC_PREFIX}{name}": json.dumps(value.model_dump(mode="json"), sort_keys=True)
        for name, value in values.items()
    }


def registry_lock(tracking_uri: str) -> AbstractContextManager[object]:
    """One process at a time beside a SQLite store; the kernel frees it when its holder dies."""
    database = sqlite_path(tracking_uri)
    return nullcontext() if database is None else FileLock(database.parent / ".registry.lock")
