"""What `clipgan run` and `clipgan status` read off DVC before anything starts."""

from __future__ import annotations

import shutil

import pytest

from clipgan.cli.dvc_graph import Freshness, open_graph
from clipgan.errors import ConfigError
from clipgan.workspace import RECIPES, find_workspace
from tests.pipelines.conftest import ToyProject


def test_a_lost_output_of_the_first_stage_is_work_and_no_error(toy: ToyProject) -> None:
    assert toy.run("-m", "dvc", "repro").returncode == 0
    with open_graph(toy.root) as graph:
        assert graph.list_freshness() == {
            "look": Freshness.ALWAYS,
            "first": Freshness.FRESH,
            "second": Freshness.FRESH,
        }
    # DVC removes a stage's outputs before it runs it: a stage that then fails leaves none.
    (toy.root / "data" / "look").unlink()
    with open_graph(toy.root) as graph:
        assert set(graph.list_freshness().values()) == {Freshness.STALE}


def test_a_folder_without_git_is_told_what_to_do(toy: ToyProject) -> None:
    shutil.rmtree(toy.root / ".git")
    with (
        pytest.raises(ConfigError, match=r"no git repository, .* ZIP: run `git init` here"),
        open_graph(toy.root),
    ):
        pass
    assert toy.run("-c", "import subprocess; subprocess.run(['git', 'init', '-q'])").returncode == 0
    with open_graph(toy.root) as graph:
        assert graph.list_stages() == ["look", "first", "second"]


RECIPE = """
stages:
  extra:
    wdir: ..
    cmd: python toy.py extra
    deps: [data/first]
    outs:
      - data/extra: {cache: false, persist: true}
"""


def test_a_recipe_is_no_stage_of_the_pipeline_and_brings_what_it_needs(toy: ToyProject) -> None:
    (toy.root / "recipes").mkdir()
    (toy.root / RECIPES).write_text(RECIPE)
    assert find_workspace(toy.root / "recipes").root == toy.root
    with open_graph(toy.root) as graph:
        assert graph.list_stages() == ["look", "first", "second"]
        assert "extra" not in "".join(graph.list_freshness())
        stages = graph.list_stages(recipe="extra")
    assert stages == ["look", "first", f"{RECIPES}:extra"]
    assert toy.run("-m", "dvc", "repro").returncode == 0
    assert toy.take_runs() == ["look", "first", "second"]
    assert toy.run("-m", "dvc", "repro", stages[-1]).returncode == 0
    assert toy.take_runs() == ["look", "extra"]
    with open_graph(toy.root) as graph:
        assert not graph.is_stale(stages[-1])
