"""The generator as an MLflow model: code and safetensors, nothing pickled, loadable offline.

The model holds the generator's bundle (without discriminator) and, for a CLIP that is not built in,
its weights. It does not hold the package itself: the serving environment has clipgan installed
(``mlflow models serve --env-manager local``), so that a fix of the code reaches every model.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clipgan.artifacts import hash_file, hash_json, write_json
from clipgan.errors import CheckpointError
from clipgan.models.bundle import (
    GENERATOR_FILE,
    INFO_FILE,
    MEANS_FILE,
    BundleInfo,
    load_bundle_info,
)
from clipgan.models.stored_weights import FORMAT_VERSION
from clipgan.tracking.mlflow_store import explain_mlflow_errors, load_mlflow

MODEL_CODE = Path(__file__).with_name("served_model.py")
EXAMPLE_PROMPT = "a red apple"
_REQUIREMENTS = ("clipgan", "mlflow", "torch", "open_clip_torch", "transformers", "safetensors")
_DISCRIMINATOR = "discriminator"


@dataclass(frozen=True)
class GeneratorPackage:
    """What goes into a logged model.

    Attributes:
        bundle: folder of the generator bundle.
        loader: ``package.module:function`` that makes a sampler from the bundle folder; named, not
            imported, because the model's code runs where it is served.
        clip_weights: weights file or folder of a CLIP that does not come with the package.
    """

    bundle: Path
    loader: str
    clip_weights: Path | None = None


def compute_data_hash(info: BundleInfo) -> str:
    """Identity of a generator: its weights, architecture and CLIP, not when it was made."""
    identity = {
        "family": info.family,
        "architecture": info.architecture.get("generator"),
        "clip": info.clip,
        "weights": info.files.get(GENERATOR_FILE),
    }
    # Left out where there are none, so that earlier registered generators keep their identity.
    if MEANS_FILE in info.files:
        identity["means"] = info.files[MEANS_FILE]
    return hash_json(identity)


def save_packaged_model(folder: Path, package: GeneratorPackage, mlflow_model: Any = None) -> None:
    """Write the MLflow model into the new folder ``folder``.

    Args:
        folder: must not exist.
        mlflow_model: an ``mlflow.models.Model`` that carries the run and model id.

    Raises:
        CheckpointError: the bundle is damaged.
        RegistryError: MLflow refuses the model.
    """
    mlflow = load_mlflow()
    with TemporaryDirectory(prefix="clipgan-package-") as scratch:
        generator = Path(scratch) / "generator"
        copy_generator_bundle(package.bundle, generator)
        artifacts = {"generator": str(generator)}
        if package.clip_weights is not None:
            artifacts["clip"] = str(package.clip_weights)
        with explain_mlflow_errors(f"{package.bundle} cannot be packaged"), _quiet_mlflow():
            mlflow.pyfunc.save_model(
                path=str(folder),
                python_model=str(MODEL_CODE),
                artifacts=artifacts,
                model_config={"loader": package.loader},
                signature=build_signature(),
                input_example=_build_example(),
                pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
                mlflow_model=mlflow_model,
            )


def log_packaged_model(
    client: Any, package: GeneratorPackage, *, run_id: str, name: str, tags: Mapping[str, str]
) -> str:
    """Log the model as an output of the run; returns its id (``models:/<id>`` is its address).

    Raises:
        CheckpointError: the bundle is damaged.
        RegistryError: the store refuses it.
    """
    mlflow = load_mlflow()
    with explain_mlflow_errors(f"{package.bundle} cannot be logged"):
        experiment_id = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, tags=dict(tags), model_type="generator"
        )
        status = "FAILED"
        try:
            _log_files(client, package, logged, run_id)
            status = "READY"
        finally:
            client.finalize_logged_model(logged.model_id, status)
        output = mlflow.entities.LoggedModelOutput(logged.model_id, step=0)
        client.log_outputs(run_id, [output])
    return str(logged.model_id)


def restore_packaged_model(client: Any, package: GeneratorPackage, model_id: str) -> None:
    """Log the files of a model again to where they were. Raises MLflow's exceptions.

    Raises:
        CheckpointError: the bundle is damaged.
    """
    logged = client.get_logged_model(model_id)
    _log_files(client, package, logged, logged.source_run_id)


def _log_files(client: Any, package: GeneratorPackage, logged: Any, run_id: str) -> None:
    with TemporaryDirectory(prefix="clipgan-model-") as scratch:
        description = load_mlflow().models.Model(
            artifact_path=logged.artifact_location,
            run_id=run_id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        )
        save_packaged_model(Path(scratch) / "model", package, description)
        client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))


def copy_generator_bundle(source: Path, target: Path) -> None:
    """Copy a bundle without its discriminator, checking the files' hashes.

    Raises:
        CheckpointError: the bundle is incomplete or its weights are not those it names.
    """
    info = load_bundle_info(source)
    names = [GENERATOR_FILE, *(name for name in (MEANS_FILE,) if name in info.files)]
    for name in names:
        file = source / name
        if not file.is_file() or hash_file(file) != info.files.get(name):
            raise CheckpointError(f"{file}: missing or damaged; restore or retrain the bundle")
    target.mkdir(parents=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
    kept = replace(
        info,
        architecture={k: v for k, v in info.architecture.items() if k != _DISCRIMINATOR},
        files={name: info.files[name] for name in names},
    )
    write_json(target / INFO_FILE, {"format_version": FORMAT_VERSION, **asdict(kept)})


def build_signature() -> Any:
    """Column ``prompt`` -> column ``png``; parameters as of ``Sampler.sample_png``."""
    types = load_mlflow().types
    return load_mlflow().models.ModelSignature(
        # Not "string": MLflow would turn null and 5 into the words None and 5.
        inputs=types.Schema([types.ColSpec(types.schema.AnyType(), "prompt")]),
        outputs=types.Schema([types.ColSpec("binary", "png")]),
        params=types.ParamSchema(
            [
                types.ParamSpec("seed", "long", 0),
                types.ParamSpec("truncation", "double", 1.0),
                types.ParamSpec("num_images", "long", 1),
                types.ParamSpec("truncation_layers", "long", None),
                types.ParamSpec("latent_truncation", "double", None),
                types.ParamSpec("mix", "string", ""),
            ]
        ),
    )


def _build_example() -> tuple[Any, dict[str, Any]]:
    import pandas as pd

    prompts = pd.DataFrame({"prompt": [EXAMPLE_PROMPT]})
    return prompts, {"seed": 1, "truncation": 1.0, "num_images": 1}


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Hide advice that does not apply: type hints, and the check that clipgan is on an index."""
    loggers = [logging.getLogger(name) for name in ("mlflow.pyfunc", "mlflow.models.model")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
