"""The same calls through ``mlflow server``, as a team would use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgan.tracking.download import download_generator
from clipgan.tracking.mlflow_store import open_client
from clipgan.tracking.packaged_model import GeneratorPackage
from clipgan.tracking.run_contexts import open_training_run
from clipgan.training.earlier_runs import flatten
from tests.metric_values import value_of
from tests.mlflow_stores import TrackingServer, register_values, save_tiny_bundle
from tests.params import params_with
from tests.unit.tracking.tiny_sampler import LOADER


@pytest.mark.slow
def test_a_training_is_tracked_and_registered_through_a_server(
    server: TrackingServer, tmp_path: Path
) -> None:
    picture = tmp_path / "grid.png"
    picture.write_bytes(b"picture")
    with open_training_run(
        tracking_uri=server.uri,
        experiment="served",
        folder=tmp_path / "work",
        fingerprint="f",
        run_name="tiny",
        sample_system=False,
    ) as logger:
        logger.log_params(flatten("train", params_with().train.model_dump(mode="json")))
        logger.log_metrics({"loss": 1.0}, 16)
        logger.log_file(picture, "samples")
    config = params_with(
        {
            "register.model_name": "served",
            "register.gate_metric": "fd",
            "register.first_version": "always",
        }
    )
    package = GeneratorPackage(save_tiny_bundle(tmp_path / "bundle"), LOADER)
    entries = {"fd": value_of("fd", 1.0)}
    report = register_values(
        config.register_model, package, server.uri, entries, run_id=logger.run_id
    )
    assert report.decision.promoted
    client = open_client(server.uri)
    run = client.get_run(logger.run_id)
    assert (run.info.status, run.data.metrics["loss"]) == ("FINISHED", 1.0)
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    address = "models:/served@champion"
    bundle, _ = download_generator(address, tracking_uri=server.uri, target=tmp_path / "here")
    assert (bundle / "generator.safetensors").is_file()
