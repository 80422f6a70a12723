"""A plan in YAML -> the trainings it asks for.

A plan starts from one profile, overrides some of its keys for all, and lists studies. A study
compares arms, each a few overrides more; its first arm is the one that the others are compared to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML

from clipgan.artifacts import hash_json
from clipgan.config import Params, read_profile

WarmUp = Literal["own", "shared", "none"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(_Section):
    """One choice: ``overrides`` of params.yaml, and where its generator starts.

    ``warm_up`` own: from `pretrain_generator` under the arm's overrides; shared: under those of the
    study alone; none: from random weights.
    """

    overrides: dict[str, Any] = Field(default_factory=dict)
    warm_up: WarmUp | None = None


class Study(_Section):
    """Arms that are compared with the first of them, at equal ``compute`` unless that is none."""

    question: str
    compute: Literal["images", "cpu_seconds", "none"] = "images"
    warm_up: WarmUp
    overrides: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, Arm]


class Plan(_Section):
    """A file of this folder.

    ``metrics`` maps a name to the better direction, ``curves`` a logged loss to its title.
    """

    title: str
    profile: Path
    overrides: dict[str, Any]
    seeds: list[int] = Field(min_length=2)
    metrics: dict[str, str]
    curves: dict[str, str]
    studies: dict[str, Study]


@dataclass(frozen=True)
class Run:
    """One training of one arm: everything that decides its result."""

    study: str
    arm: str
    seed: int
    params: Params
    warm_up: Params | None

    @property
    def key(self) -> str:
        """Equal for runs that are the same training, in whatever study they stand."""
        return hash_json([None if p is None else _dump(p) for p in (self.params, self.warm_up)])[
            :16
        ]


def load_plan(path: Path) -> Plan:
    """Read a plan; pydantic's error names a wrong key."""
    return Plan.model_validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def list_runs(plan: Plan) -> list[Run]:
    """Seed after seed, so that a plan cut short has all arms with fewer seeds."""
    return [
        run
        for seed in plan.seeds
        for name, study in plan.studies.items()
        for run in _list_study(plan, name, study, seed)
    ]


def _list_study(plan: Plan, name: str, study: Study, seed: int) -> Iterator[Run]:
    shared = _build_params(plan, study.overrides, seed=seed)
    for arm_name, arm in study.arms.items():
        params = _build_params(plan, study.overrides, arm.overrides, seed=seed)
        warm_up = {"own": params, "shared": shared, "none": None}[arm.warm_up or study.warm_up]
        yield Run(name, arm_name, seed, params, warm_up)


def _build_params(plan: Plan, *overrides: dict[str, Any], seed: int) -> Params:
    tree = YAML(typ="safe", pure=True).load(read_profile(plan.profile))
    for changes in (plan.overrides, *overrides, {"train": {"seed": seed}}):
        _merge(tree, changes)
    return Params.model_validate(tree)


def _merge(tree: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _dump(params: Params) -> dict[str, Any]:
    """All that decides a training and its measurement."""
    return params.model_dump(
        mode="json", by_alias=True, exclude={"monitoring", "register", "threads"}
    )
