"""A source is one file: its keys of params.yaml, what it offers, how it is read."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field
from ruamel.yaml import YAML

from clipgan.config import IngestConfig, load_params
from clipgan.config.effective import select_ingest
from clipgan.data.shards import load_manifest
from clipgan.data.sources import KeptFiles, Source, SourceListing, SourceSample
from clipgan.data.sources.registry import SOURCES
from clipgan.errors import ConfigError
from clipgan.stages.catalog import run_stage
from clipgan.workspace import Workspace
from tests.params import tree_with
from tests.unit.data.pictures import encode, picture


class ToySource(Source):
    """So many random pictures."""

    toy_count: Annotated[int, Field(ge=1)]

    def list_samples(self, ingest: IngestConfig, kept: KeptFiles) -> SourceListing:
        side = ingest.resolution_px
        samples = tuple(
            SourceSample(
                f"toy/{number}",
                None,
                "",
                (f"toy number {number}",),
                (),
                partial(encode, picture(side, side, seed=number)),
            )
            for number in range(self.toy_count)
        )
        return SourceListing("toy", samples, identity={"toys": self.toy_count})


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setitem(SOURCES, "toy", ToySource)
    return Workspace(tmp_path)


def save_params(workspace: Workspace, **keys: Any) -> None:
    tree = tree_with({"ingest.source": "toy"})
    tree["ingest"] |= {"toy_count": 5, **keys}
    with workspace.params_file.open("w") as handle:
        YAML().dump(tree, handle)


def test_a_source_of_one_file_is_scanned_and_ingested(workspace: Workspace) -> None:
    save_params(workspace)
    for stage in ("settings", "scan", "ingest"):
        run_stage(stage, workspace)
    assert json.loads(workspace.source.read_text())["num_files"] == 5
    assert load_manifest(workspace.images).num_images == 5
    settings = json.loads((workspace.settings / "ingest.json").read_text())
    assert settings["toy_count"] == 5


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"toy_count": 0}, "ingest.toy_count = 0: "),
        ({"toy_cuont": 5}, "ingest.toy_cuont = 5 is an unknown key: did you mean toy_count"),
        ({"emoji_styles": ["apple"]}, "ingest.emoji_styles.0 = 'apple': "),
        ({"source": "toys"}, "ingest: source = 'toys': choose one of emoji, folder, toy"),
    ],
)
def test_its_keys_are_checked_with_all_others(
    keys: dict[str, Any], message: str, workspace: Workspace
) -> None:
    save_params(workspace, **keys)
    with pytest.raises(ConfigError) as caught:
        load_params(workspace.params_file)
    assert message in str(caught.value)


def test_the_keys_of_other_sources_and_places_decide_nothing(workspace: Workspace) -> None:
    save_params(workspace)
    first = select_ingest(load_params(workspace.params_file).ingest)
    save_params(workspace, emoji_styles=["noto"], caption_lines="first", folder="elsewhere")
    assert select_ingest(load_params(workspace.params_file).ingest) == first
    save_params(workspace, source="folder", folder="one")
    folder = select_ingest(load_params(workspace.params_file).ingest)
    assert "caption_lines" in folder
    assert not {"folder", "toy_count", "emoji_styles"} & folder.keys()
