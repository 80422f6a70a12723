"""The model registry: versions, the aliases ``challenger`` and ``champion``, and the gate.

``challenger`` is the version registered last, ``champion`` the one that passed the gate last.
Registration is idempotent: one generator, known by the hash of its weights, is one version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clipgan.config import RegisterConfig
from clipgan.errors import RegistryError
from clipgan.models.bundle import load_bundle_info
from clipgan.tracking.environment import (
    explain_mlflow_errors,
    global_tracking_uri,
    is_missing,
    load_mlflow,
    open_client,
)
from clipgan.tracking.gate import (
    CompareEntries,
    GateValue,
    PromotionDecision,
    decide_promotion,
    parse_gate_value,
    read_gate_value,
)
from clipgan.tracking.mlflow_run import resolve_run
from clipgan.tracking.packaged_model import (
    GeneratorPackage,
    compute_data_hash,
    log_packaged_model,
)

CHALLENGER, CHAMPION = "challenger", "champion"
DATA_HASH_TAG = "clipgan.data_hash"
REASON_TAG = "clipgan.gate_reason"
_METRIC_PREFIX = "metric."


@dataclass(frozen=True)
class RegistrationReport:
    """What a registration did: the version, whether it is new, and the gate's decision."""

    model_name: str
    version: int
    created: bool
    run_id: str
    decision: PromotionDecision


@dataclass(frozen=True)
class ModelVersionSummary:
    """A row of the table of versions; ``created`` is UTC, ``reason`` the gate's last word."""

    version: int
    aliases: tuple[str, ...]
    created: datetime
    run_id: str
    metrics: dict[str, float]
    reason: str


def register_model(
    config: RegisterConfig,
    package: GeneratorPackage,
    *,
    evaluation: Mapping[str, Any],
    source: str,
    run_id: str | None,
    tracking_uri: str,
    experiment: str,
    compare: CompareEntries,
) -> RegistrationReport:
    """Register a generator as challenger and let the gate decide.

    A generator that is registered already keeps its version; its metric values are replaced by
    those of ``evaluation``, and the gate looks again.

    Args:
        package: the generator to log as a model.
        evaluation: ``{"trained": {metric: {"value": ..., "protocol": {...}}}}``.
        source: where the evaluation was read, for messages.
        run_id: the training's run; see :func:`~clipgan.tracking.mlflow_run.resolve_run`.
        experiment: where a run is made if the store lacks ``run_id``.
        compare: two values of the gate's metric, challenger first.

    Raises:
        RegistryError: the store cannot be used, or the evaluation lacks the gate's metric.
        CheckpointError: the bundle is damaged.
    """
    value = read_gate_value(evaluation, config.gate_metric, source)
    tags = _build_metric_tags(evaluation)
    data_hash = compute_data_hash(load_bundle_info(package.bundle))
    client = open_client(tracking_uri)
    name = config.model_name
    _ensure_model(client, name)
    found = _find_version(client, name, data_hash)
    created = found is None
    with explain_mlflow_errors(f"{name} cannot be registered"):
        if found is None:
            known_run = resolve_run(
                client, run_id, tracking_uri=tracking_uri, experiment=experiment
            )
            tags[DATA_HASH_TAG] = data_hash
            model_id = log_packaged_model(
                client, package, run_id=known_run, name=name, tags={DATA_HASH_TAG: data_hash}
            )
            # The tags come with the version in one call: no version is ever without its hash.
            with global_tracking_uri(tracking_uri):
                found = client.create_model_version(
                    name, f"models:/{model_id}", run_id=known_run, tags=tags, model_id=model_id
                )
        else:
            _replace_metric_tags(client, found, tags)
        version = int(found.version)
        client.set_registered_model_alias(name, CHALLENGER, str(version))
    decision = _run_gate(client, config, version, value, compare)
    return RegistrationReport(name, version, created, str(found.run_id), decision)


def promote_version(
    model_name: str, version: int, *, reason: str, tracking_uri: str
) -> PromotionDecision:
    """Make a version champion by hand; ``reason`` is kept with it.

    Raises:
        RegistryError: there is no such model or version; names those that exist.
    """
    client = open_client(tracking_uri)
    versions = {row.version: row for row in list_versions(model_name, tracking_uri=tracking_uri)}
    if version not in versions:
        known = ", ".join(str(number) for number in sorted(versions)) or "none"
        raise RegistryError(f"{model_name} has no version {version}; versions: {known}")
    champion = next((v.version for v in versions.values() if CHAMPION in v.aliases), None)
    if champion == version:
        text, promoted = f"version {version} is the champion already", False
    else:
        text, promoted = f"by hand: {reason}", True
        _make_champion(client, model_name, version, text)
    return PromotionDecision(
        promoted=promoted,
        reason=text,
        metric=None,
        version=version,
        value=None,
        champion_version=champion,
        champion_value=None,
    )


def list_versions(model_name: str, *, tracking_uri: str) -> list[ModelVersionSummary]:
    """All versions of a model, newest first; empty where the model does not exist.

    Raises:
        RegistryError: the store cannot be used.
    """
    client = open_client(tracking_uri)
    aliases = _read_aliases(client, model_name)
    with explain_mlflow_errors(f"the versions of {model_name} cannot be listed"):
        found = client.search_model_versions(f"name = '{model_name}'", max_results=1000)
    rows = [
        ModelVersionSummary(
            version=int(item.version),
            # search_model_versions gives no aliases: they come from the model itself.
            aliases=tuple(sorted(name for name, to in aliases.items() if to == int(item.version))),
            created=datetime.fromtimestamp(item.creation_timestamp / 1000, UTC),
            run_id=str(item.run_id),
            metrics={
                key.removeprefix(_METRIC_PREFIX): parse_gate_value(json.loads(text), key).value
                for key, text in item.tags.items()
                if key.startswith(_METRIC_PREFIX)
            },
            reason=item.tags.get(REASON_TAG, ""),
        )
        for item in found
    ]
    return sorted(rows, key=lambda row: -row.version)


def _run_gate(
    client: Any,
    config: RegisterConfig,
    version: int,
    value: GateValue,
    compare: CompareEntries,
) -> PromotionDecision:
    champion_version = _read_aliases(client, config.model_name).get(CHAMPION)
    champion = None
    if champion_version is not None and champion_version != version:
        champion = _read_version_value(client, config, champion_version)
    decision = decide_promotion(
        config,
        version=version,
        challenger=value,
        champion_version=champion_version,
        champion=champion,
        compare=compare,
    )
    if decision.promoted:
        _make_champion(client, config.model_name, version, decision.reason)
    elif champion_version != version:
        # A champion keeps the sentence that made it one.
        with explain_mlflow_errors(f"the gate's decision on version {version} cannot be kept"):
            client.set_model_version_tag(
                config.model_name, str(version), REASON_TAG, decision.reason
            )
    return decision


def _make_champion(client: Any, name: str, version: int, reason: str) -> None:
    with explain_mlflow_errors(f"version {version} of {name} cannot be promoted"):
        client.set_model_version_tag(name, str(version), REASON_TAG, reason)
        client.set_registered_model_alias(name, CHAMPION, str(version))


def _read_version_value(client: Any, config: RegisterConfig, version: int) -> GateValue | None:
    with explain_mlflow_errors(f"version {version} of {config.model_name} cannot be read"):
        tags = client.get_model_version(config.model_name, str(version)).tags
    text = tags.get(_METRIC_PREFIX + config.gate_metric)
    if text is None:
        return None
    return parse_gate_value(json.loads(text), f"version {version}: {config.gate_metric}")


def _build_metric_tags(evaluation: Mapping[str, Any]) -> dict[str, str]:
    trained = evaluation["trained"]
    return {
        f"{_METRIC_PREFIX}{name}": json.dumps(entry, sort_keys=True)
        for name, entry in trained.items()
    }


def _replace_metric_tags(client: Any, version: Any, tags: Mapping[str, str]) -> None:
    for key in version.tags:
        if key.startswith(_METRIC_PREFIX) and key not in tags:
            client.delete_model_version_tag(version.name, version.version, key)
    for key, text in tags.items():
        client.set_model_version_tag(version.name, version.version, key, text)


def _ensure_model(client: Any, name: str) -> None:
    with explain_mlflow_errors(f"the registered model {name} cannot be made"):
        try:
            client.create_registered_model(name)
        except load_mlflow().MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _find_version(client: Any, name: str, data_hash: str) -> Any | None:
    with explain_mlflow_errors(f"the versions of {name} cannot be searched"):
        found = client.search_model_versions(
            f"name = '{name}' and tags.`{DATA_HASH_TAG}` = '{data_hash}'"
        )
    return max(found, key=lambda item: int(item.version), default=None)


def _read_aliases(client: Any, name: str) -> dict[str, int]:
    with explain_mlflow_errors(f"the registered model {name} cannot be read"):
        try:
            aliases = client.get_registered_model(name).aliases
        except load_mlflow().MlflowException as error:
            if is_missing(error):
                return {}
            raise
    return {alias: int(version) for alias, version in aliases.items()}
