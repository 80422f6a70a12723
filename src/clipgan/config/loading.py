"""params.yaml -> :class:`~clipgan.config.sections.Params`, or one line that says what is wrong.

The file is read with ruamel.yaml, DVC's own reader, so that both see the same numbers (PyYAML
reads ``1e-4`` as text).
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from clipgan.config.sections import IngestConfig, Params, load_source_registry
from clipgan.config.training import TrainConfig, build_train_config
from clipgan.errors import ConfigError

_REMOVED = {
    "register.gate_direction": "the metric itself knows which values are better: remove the line",
    **{
        f"train.{key}": f"it is LAFITE's, so it stands in train.lafite.{key} now: move it there"
        for key in (
            *("reduced_precision_resolutions", "freeze_discriminator_blocks", "clip_view"),
            *("generator", "discriminator", "losses", "optimizer"),
        )
    },
    "train.ema.latent_average": "it is LAFITE's: move it to train.lafite.latent_average",
}
"""Keys of earlier versions, and what to do about them."""


def load_params(path: Path) -> Params:
    """Read and validate a params file.

    Raises:
        ConfigError: the file is missing, is no YAML, or a key is unknown, missing, of the wrong
            type or out of range. One line names the key, its value and the fix.
    """
    return parse_params(read_yaml(path), path)


def read_yaml(path: Path) -> str:
    """The text of a file; a missing or undecodable one is a ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `clipgan init emoji` writes one") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not readable as YAML: {_first_line(error)}") from None


def parse_tree(text: str, path: Path) -> dict[str, Any]:
    """The sections that a YAML text holds; ``path`` is named in errors."""
    try:
        tree = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML: {_first_line(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: expected sections such as `train:`, found {type(tree).__name__}"
        )
    return tree


def parse_params(text: str, path: Path) -> Params:
    """Validate the text of a params file; ``path`` is named in errors."""
    try:
        return Params.model_validate(parse_tree(text, path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {_describe(error)}") from None


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" (line {mark.line + 1})" if mark is not None else ""
    return (getattr(error, "problem", None) or str(error).splitlines()[0]) + where


def _describe(error: ValidationError) -> str:
    # A typo shows up twice, as an unknown and as a missing key: the unknown one says more.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return _describe_one(first) + more


def _describe_one(problem: Any) -> str:
    location = problem["loc"]
    key = ".".join(str(part) for part in location) or "params"
    match problem["type"]:
        case "missing":
            return f"{key} is missing: add it (`clipgan init` profiles show every key)"
        case "extra_forbidden" if key in _REMOVED:
            return f"{key} is no key any more: {_REMOVED[key]}"
        case "extra_forbidden":
            known = list(_section_fields(location[:-1]))
            hint = suggest_key(str(location[-1]), known)
            return f"{key} = {problem['input']!r} is an unknown key: {hint}"
        case "value_error":
            section = f"{key}: " if location else ""
            return section + str(problem["ctx"]["error"])
        case _:
            reason = problem["msg"][0].lower() + problem["msg"][1:]
            return f"{key} = {problem['input']!r}: {reason}"


def suggest_key(key: str, known: list[str]) -> str:
    """What a mistyped key may have meant."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"


def _section_fields(location: tuple[Any, ...]) -> list[str]:
    model: Any = Params
    for part in location:
        if model is TrainConfig:
            model = build_train_config()
        fields = {(f.alias or name): f for name, f in model.model_fields.items()}
        if part not in fields:
            return []
        model = fields[part].annotation
        model = next((a for a in get_args(model) if isinstance(a, type)), model)
    if model is TrainConfig:
        model = build_train_config()
    fields = dict(model.model_fields)
    if model is IngestConfig:
        fields |= load_source_registry().build_keys().model_fields
    return [f.alias or name for name, f in fields.items()]
