"""Stage settings: the parameters and weights that decide each stage, for DVC to compare.

DVC can depend on keys of params.yaml, but which keys a stage reads depends on other keys, and a key
may name weights that change: ``data/mapper``, or a registered model behind an alias. So this stage
runs every time and writes a small file for each stage, by the functions that also name resume
folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipgan.artifacts import hash_json, write_json
from clipgan.config import EvaluateConfig, FeaturesConfig, Params, TrainConfig
from clipgan.config.effective import (
    select_evaluation,
    select_features,
    select_ingest,
    select_small_recipe,
    select_warm_up,
)
from clipgan.data.content_hashes import hash_files
from clipgan.models.addresses import find_folder, is_in_mlflow
from clipgan.models.built_in import NO_WEIGHTS
from clipgan.training.fingerprint import describe_training, list_weights

MISSING = "not there"


def write_settings(
    params: Params, folder: Path, *, tracking_uri: str, remembered: Path | None = None
) -> None:
    """Write a file for each stage that depends on parameters, such as ``train.json``.

    Missing weights are no error here: a recipe may make them later, and the stage that needs them
    refuses to run without them.

    Args:
        tracking_uri: the MLflow store, where ``train.initial_weights`` names a registered model.
        remembered: file of content hashes, so that unchanged weights are not read again.

    Raises:
        RegistryError: there is no such registered model, or the store cannot be reached.
    """
    files = _list_files(params)
    digests = hash_files([(path, path.stat()) for path in files], remembered)
    hashes = {path: digest or MISSING for path, digest in zip(files, digests, strict=True)}
    settings = {
        "ingest": select_ingest(params.ingest),
        "features": _describe_features(params.features, hashes),
        "train": _describe_training(params.train, hashes, tracking_uri),
        "evaluate": _describe_evaluation(params.evaluate, hashes),
        "pretrain_generator": select_warm_up(params.pretrain_generator, params.train),
        "pretrain_mapper": select_small_recipe(params.pretrain_mapper),
        "pretrain_clip": select_small_recipe(params.pretrain_clip),
    }
    for stage, tree in settings.items():
        write_json(folder / f"{stage}.json", tree)


_Hashes = dict[Path, str]


def _list_files(params: Params) -> list[Path]:
    """List every weights file that a parameter names."""
    train = params.train
    names = [params.features.clip_weights, *_list_evaluation_weights(params.evaluate)]
    named = [Path(name) for name in names]
    start = _find_start(train)
    if start is not None:
        named.append(start)
    if train.pseudo_text.kind == "mapper":
        named.append(Path(train.pseudo_text.mapper))
    return sorted({file for path in named for file in _list_under(path)})


def _list_under(path: Path) -> list[Path]:
    path = path.expanduser()
    if path.is_file():
        return [path]
    return list_weights(path) if path.is_dir() else []


def _hash_content(path: Path, hashes: _Hashes) -> str | None:
    """Hash a file, or the weights in a folder; None: the path is neither."""
    files = _list_under(path)
    return hash_json({file.name: hashes[file] for file in files}) if files else None


def _describe_features(config: FeaturesConfig, hashes: _Hashes) -> dict[str, Any]:
    settings = select_features(config)
    content = _hash_content(Path(config.clip_weights), hashes)
    return settings | ({"clip_weights": content} if content else {})


def _describe_training(config: TrainConfig, hashes: _Hashes, tracking_uri: str) -> dict[str, Any]:
    start: Any = None
    if is_in_mlflow(config.initial_weights):
        from clipgan.tracking.download import identify_version

        start = identify_version(config.initial_weights, tracking_uri=tracking_uri)
    elif (folder := _find_start(config)) is not None:
        files = _list_under(folder)
        start = {file.name: hashes[file] for file in files} or MISSING
    mapper = None
    if config.pseudo_text.kind == "mapper":
        mapper = _hash_content(Path(config.pseudo_text.mapper), hashes)
    return describe_training(config, start=start, mapper=mapper or MISSING)


def _find_start(config: TrainConfig) -> Path | None:
    """Return the folder that ``train.initial_weights`` names, if it names one."""
    name = config.initial_weights
    return None if name == NO_WEIGHTS else find_folder(name, config.family)


def _describe_evaluation(config: EvaluateConfig, hashes: _Hashes) -> dict[str, Any]:
    names = _list_evaluation_weights(config)
    contents = {name: _hash_content(Path(name), hashes) for name in names}
    return {
        **select_evaluation(config),
        "weights": {name: content for name, content in contents.items() if content},
    }


def _list_evaluation_weights(config: EvaluateConfig) -> list[str]:
    """List the values of parameters that may be weights files of feature extractors."""
    specs = [*config.feature_spaces]
    for protocol in config.custom_protocols:
        specs += protocol.spaces or ()
    parts = [spec.split(":", 2) for spec in specs]
    return sorted({config.judge_clip_weights, *(part[2] for part in parts if len(part) == 3)})
