"""profiles/: overlays of one whole file; what `clipgan init` writes is complete, with comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clipgan.config import load_profile, read_profile
from clipgan.errors import ConfigError
from tests.params import PARAMS_YAML

ROOT = Path(__file__).parents[2]
BASE = ROOT / "profiles" / "emoji.yaml"
OVERLAYS = sorted(set((ROOT / "profiles").glob("*.yaml")) - {BASE})
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)


def parse(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def list_leaves(tree: Any, *above: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from list_leaves(value, *above, key)
        else:
            yield (*above, key), value


def lay_over(base: str, overlay: str, folder: Path) -> str:
    (folder / "emoji.yaml").write_text(base)
    (folder / "mine.yaml").write_text(overlay)
    return read_profile(folder / "mine.yaml")


def test_params_yaml_is_the_base() -> None:
    """`clipgan init emoji --force` writes it again after a change of the base."""
    assert PARAMS_YAML.read_text("utf-8") == BASE.read_text("utf-8")
    assert read_profile(BASE) == BASE.read_text("utf-8")


@each_overlay
def test_an_overlay_holds_only_what_differs(overlay: Path) -> None:
    assert load_profile(overlay)
    base = dict(list_leaves(parse(BASE.read_text("utf-8"))))
    own = dict(list_leaves(parse(overlay.read_text("utf-8"))))
    assert [key for key, value in own.items() if base[key] == value] == []
    whole = dict(list_leaves(parse(read_profile(overlay))))
    assert list(whole.items()) == list((base | own).items()), "in the base's order"
    assert f"`{overlay.stem}`" in overlay.read_text("utf-8").splitlines()[0]


@each_overlay
def test_no_comment_is_lost(overlay: Path) -> None:
    whole = read_profile(overlay)
    for comment in re.findall(r"#.*", overlay.read_text("utf-8")):
        assert comment in whole
    body = whole[whole.index("threads:") :]
    base = BASE.read_text("utf-8")
    for line in re.findall(r"^ *#.*", base[base.index("threads:") :], flags=re.MULTILINE):
        assert line in body.splitlines()


@each_overlay
def test_a_new_key_touches_one_file(overlay: Path, tmp_path: Path) -> None:
    base = BASE.read_text("utf-8").replace("\n  seed: 0\n", "\n  seed: 0\n  new_key: 7  # why\n", 1)
    assert "new_key" in base
    whole = lay_over(base, overlay.read_text("utf-8"), tmp_path)
    assert whole.replace("  new_key: 7  # why\n", "") == read_profile(overlay)


TOY = """\
# The base.

one: 1          # a number
section:
  word: a       # a | b
  many: [1, 2]  # a list
  rows:
    - x
    - y
  last: 0       # the last

# Of the next section.
next:
  deep:
    key: "#1"
"""


@pytest.mark.parametrize(
    ("overlay", "old", "new"),
    [
        ("one: 2\n", "one: 1          #", "one: 2          #"),
        ("one: 2  # mine\n", "one: 1          # a number", "one: 2  # mine"),
        ("section:\n  word: 'b # c'\n", "word: a       #", "word: 'b # c'  #"),
        (
            "section:\n  many:  # mine\n    - 3  # three\n",
            "many: [1, 2]  # a list",
            "many:  # mine\n    - 3  # three",
        ),
        ("section:\n  rows: [z]\n", "rows:\n    - x\n    - y", "rows: [z]"),
        ("section:\n  rows:\n    - z", "rows:\n    - x\n    - y", "rows:\n    - z"),
        ("section:\n  last: 9\n", "last: 0 ", "last: 9 "),
        ("next:\n  deep:\n    key: 'x'\n", '"#1"', "'x'"),
        (
            "section:\n  # Why.\n  # Really.\n  last: 0\n",
            "  last: 0 ",
            "  # Why.\n  # Really.\n  last: 0 ",
        ),
    ],
)
def test_every_other_line_stays(overlay: str, old: str, new: str, tmp_path: Path) -> None:
    whole = lay_over(TOY, f"# Mine.\n\n{overlay}", tmp_path)
    expected = TOY.replace("# The base.", "# Mine.").replace(old, new)
    assert whole == expected
    values = dict(list_leaves(parse(TOY))) | dict(list_leaves(parse(overlay)))
    assert dict(list_leaves(parse(whole))) == values


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("section:\n  wrod: b\n", "section.wrod is no key of emoji.yaml: did you mean word?"),
        ("sectoin:\n  word: b\n", "sectoin is no key of emoji.yaml: did you mean section?"),
        ("next:\n  deep:\n    zzz: 1\n", "next.deep.zzz is no key of emoji.yaml: known keys: key"),
        ("one: 1\none: 2\n", "not readable as YAML: found duplicate key"),
        ("# Mine.\n\none: [1\n", "not readable as YAML: expected ',' or ']', but got"),
        ("# nothing\n", "expected sections such as `train:`, found NoneType"),
    ],
)
def test_a_mistake_is_one_line_with_the_file(overlay: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        lay_over(TOY, overlay, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: {message}")
    assert "\n" not in str(caught.value)


def test_a_wrong_value_names_the_overlay(tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    lay_over(BASE.read_text("utf-8"), "threads: many\n", tmp_path)
    with pytest.raises(ConfigError, match=re.escape(f"{overlay}: threads")):
        load_profile(overlay)
