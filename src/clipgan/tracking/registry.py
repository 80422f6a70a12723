"""The model registry: registration, the aliases ``challenger`` and ``champion``, and the gate.

``challenger`` is the version registered last, ``champion`` the one that passed the gate last.
Registration is idempotent: a generator, recognised by the hash of its weights, has one version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipgan.config import RegisterConfig
from clipgan.metrics.evaluations import INITIAL, TRAINED, Evaluation
from clipgan.models.bundle import load_bundle_info
from clipgan.tracking.gate import MeasureVersion, PromotionDecision, find_gate_value
from clipgan.tracking.mlflow_run import describe_stand_in, find_or_make_run
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
    find_newest_version,
    has_files,
    read_numbers,
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


def register_model(
    config: RegisterConfig,
    package: GeneratorPackage,
    evaluation: Evaluation,
    *,
    source: str,
    run_id: str | None,
    state: str,
    tracking_uri: str,
    measure: MeasureVersion,
) -> RegistrationReport:
    """Register a generator as challenger and let the gate decide.

    A generator that is registered already keeps its version: its metric values are replaced by
    those of the evaluation, missing files are logged again, and the gate decides again.

    Args:
        package: the generator to log as a model.
        evaluation: its values, and those of the weights it started from where they were measured.
        source: the file that holds the evaluation, for messages.
        run_id: the training's run, as :func:`~clipgan.tracking.mlflow_run.read_run_id` returns it.
            A store that lacks it gets a new run in the experiment named like the model.
        state: identity of everything that this registration depends on; it is kept as a tag.
        measure: measures a champion again whose value cannot be compared, because the data or the
            protocol have changed since.

    Raises:
        RegistryError: the store cannot be used, or the evaluation lacks the gate's metric.
        CheckpointError: the bundle is damaged.
    """
    value = find_gate_value(evaluation, config.gate_metric, source)
    metric_tags = build_metric_tags(evaluation.values[TRAINED])
    data_hash = compute_data_hash(load_bundle_info(package.bundle))
    client = open_client(tracking_uri)
    name = config.model_name
    _ensure_model(client, name)
    with registry_lock(tracking_uri), explain_mlflow_errors(f"{name} cannot be registered"):
        known = find_newest_version(client, name, DATA_HASH_TAG, data_hash)
        is_whole = known is not None and _restore_files(client, known, package)
        if known is not None and is_whole:
            version, run_id = int(known.version), str(known.run_id)
            _replace_metric_tags(client, known, metric_tags)
        else:
            run_id = find_or_make_run(client, tracking_uri, describe_stand_in(run_id, name))
            tags = {**metric_tags, DATA_HASH_TAG: data_hash}
            version = _create_version(
                client, name, package, run_id=run_id, tags=tags, tracking_uri=tracking_uri
            )
        client.set_registered_model_alias(name, CHALLENGER, str(version))
    gate = Gate(client, config, tracking_uri, measure)
    start = evaluation.values.get(INITIAL, {}).get(config.gate_metric)
    decision = gate.judge(version, value, start)
    with explain_mlflow_errors(f"version {version} of {name} cannot be tagged"):
        # Set last: a version without this tag is registered again.
        client.set_model_version_tag(name, str(version), STATE_TAG, state)
    return RegistrationReport(name, version, not is_whole, run_id, decision)


def _create_version(
    client: Any,
    name: str,
    package: GeneratorPackage,
    *,
    run_id: str,
    tags: Mapping[str, str],
    tracking_uri: str,
) -> int:
    model_id = log_packaged_model(
        client, package, run_id=run_id, name=name, tags={DATA_HASH_TAG: tags[DATA_HASH_TAG]}
    )
    # The tags come with the version in one call: no version is ever without its hash.
    with global_tracking_uri(tracking_uri):
        made = client.create_model_version(
            name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id
        )
    return int(made.version)


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
    """Replace a version's metric values; tags that others have set stay."""
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
