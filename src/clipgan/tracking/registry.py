"""The model registry: registration, the aliases ``challenger`` and ``champion``, and the gate.

``challenger`` is the version registered last, ``champion`` the one that passed the gate last.
Registration is idempotent: one generator, known by the hash of its weights, is one version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipgan.config import RegisterConfig
from clipgan.metrics.evaluations import INITIAL, TRAINED, Evaluation
from clipgan.models.bundle import load_bundle_info
from clipgan.tracking.gate import MeasureVersion, PromotionDecision, find_gate_value
from clipgan.tracking.mlflow_run import resolve_run
from clipgan.tracking.mlflow_store import (
    explain_mlflow_errors,
    global_tracking_uri,
    is_missing,
    load_mlflow,
    open_client,
)
from clipgan.tracking.packaged_model import (
    GeneratorPackage,
    compute_data_hash,
    log_packaged_model,
    restore_packaged_model,
)
from clipgan.tracking.promotion import Gate, build_metric_tags, registry_lock
from clipgan.tracking.versions import (
    CHALLENGER,
    METRIC_PREFIX,
    STATE_TAG,
    find_model_id,
    has_files,
    read_numbers,
    search_versions,
)

DATA_HASH_TAG = "clipgan.data_hash"


@dataclass(frozen=True)
class RegistrationReport:
    """What a registration did: the version, whether it is new, and the gate's decision."""

    model_name: str
    version: int
    created: bool
    run_id: str
    decision: PromotionDecision


@dataclass(frozen=True)
class RegistrationRequest:
    """A trained generator and what was measured of it.

    Attributes:
        package: the generator to log as a model.
        evaluation: its values, and those of the weights it started from where they were measured.
        source: where the evaluation was read, for messages.
        run_id: the training's run; see :func:`~clipgan.tracking.mlflow_run.resolve_run`.
        experiment: where a run is made if the store lacks ``run_id``.
        state: identity of all that this registration rests on, to be found by it again.
    """

    package: GeneratorPackage
    evaluation: Evaluation
    source: str
    run_id: str | None
    experiment: str
    state: str


def register_model(
    config: RegisterConfig,
    request: RegistrationRequest,
    *,
    tracking_uri: str,
    measure: MeasureVersion,
) -> RegistrationReport:
    """Register a generator as challenger and let the gate decide.

    A generator that is registered already keeps its version; its metric values are replaced by
    those of the evaluation, files that are gone are logged again, and the gate looks again.

    Args:
        measure: called with a champion whose value cannot be compared: the data have grown, or the
            protocol has changed since.

    Raises:
        RegistryError: the store cannot be used, or the evaluation lacks the gate's metric.
        CheckpointError: the bundle is damaged.
    """
    value = find_gate_value(request.evaluation, config.gate_metric, request.source)
    trained = request.evaluation.values[TRAINED]
    data_hash = compute_data_hash(load_bundle_info(request.package.bundle))
    client = open_client(tracking_uri)
    name = config.model_name
    _ensure_model(client, name)
    with registry_lock(tracking_uri), explain_mlflow_errors(f"{name} cannot be registered"):
        found = _find_version(client, name, data_hash)
        whole = found is not None and _restore_files(client, found, request.package)
        if found is not None and whole:
            version, run_id = int(found.version), str(found.run_id)
            _replace_metric_tags(client, found, build_metric_tags(trained))
        else:
            version, run_id = _create_version(client, name, request, data_hash, tracking_uri)
        client.set_registered_model_alias(name, CHALLENGER, str(version))
    gate = Gate(client, config, tracking_uri, measure)
    start = request.evaluation.values.get(INITIAL, {}).get(config.gate_metric)
    decision = gate.judge(version, value, start)
    with explain_mlflow_errors(f"version {version} of {name} cannot be tagged"):
        # Last: what has no such tag is registered again.
        client.set_model_version_tag(name, str(version), STATE_TAG, request.state)
    return RegistrationReport(name, version, not whole, run_id, decision)


def _create_version(
    client: Any, name: str, request: RegistrationRequest, data_hash: str, tracking_uri: str
) -> tuple[int, str]:
    run_id = resolve_run(
        client, request.run_id, tracking_uri=tracking_uri, experiment=request.experiment
    )
    tags = {**build_metric_tags(request.evaluation.values[TRAINED]), DATA_HASH_TAG: data_hash}
    model_id = log_packaged_model(
        client, request.package, run_id=run_id, name=name, tags={DATA_HASH_TAG: data_hash}
    )
    # The tags come with the version in one call: no version is ever without its hash.
    with global_tracking_uri(tracking_uri):
        made = client.create_model_version(
            name, f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id
        )
    return int(made.version), run_id


def _restore_files(client: Any, version: Any, package: GeneratorPackage) -> bool:
    """Log a version's files again where they are gone; False where MLflow lost the model itself."""
    try:
        if not has_files(client, version):
            restore_packaged_model(client, package, find_model_id(version))
            print(f"the files of version {version.version} were gone: logged again", flush=True)
    except load_mlflow().MlflowException as error:
        if is_missing(error):
            print(f"the model of version {version.version} is gone: made anew", flush=True)
            return False
        raise
    return True


def _replace_metric_tags(client: Any, version: Any, tags: Mapping[str, str]) -> None:
    """Foreign tags stay."""
    for name in read_numbers(version.tags):
        if (key := f"{METRIC_PREFIX}{name}") not in tags:
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
    found = search_versions(client, f"name = '{name}' and tags.`{DATA_HASH_TAG}` = '{data_hash}'")
    return max(found, key=lambda item: int(item.version), default=None)
