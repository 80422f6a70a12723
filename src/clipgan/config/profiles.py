"""profiles/: one whole file, ``emoji.yaml``, and overlays that hold only what differs from it.

An overlay is laid over the text of the base, not over its values, so that comments, the order of
the keys and the layout of every other line stay as they are.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ruamel.yaml import YAML, CollectionNode, MappingNode, Node

from clipgan.config.loading import parse_params, parse_tree, read_yaml, suggest_key
from clipgan.config.sections import Params
from clipgan.errors import ConfigError

BASE = "emoji.yaml"
"""The complete profile; the other files are overlays of it."""

_COMMENT = re.compile(r"[ \t]*(#.*|)")
_COMMENT_ABOVE = re.compile(r"((?:^[ \t]*#.*\n)*)[ \t]*\Z", re.MULTILINE)
_HEADER = re.compile(r"(?:[ \t]*(?:#.*)?\n)*")


def load_profile(path: Path) -> Params:
    """The validated parameters of a profile.

    Raises:
        ConfigError: as :func:`read_profile`, or a value is wrong.
    """
    return parse_params(read_profile(path), path)


def read_profile(path: Path, *, image_folder: Path | None = None) -> str:
    """A profile as the complete text of a params.yaml.

    The overlay's opening comment takes the place of the base's. A key has the overlay's comment
    where it has one, else the base's; lines of comment above a key come along.

    Args:
        path: a file of profiles/; the base lies beside it.
        image_folder: written as ``ingest.folder`` where given.

    Raises:
        ConfigError: a file is missing, is no YAML, or names a key that the base does not have.
    """
    text = _read_checked(path.with_name(BASE))
    if path.name != BASE:
        header, overlay = _split_header(_read_checked(path))
        text = f"{header.rstrip()}\n\n{_overlay(_split_header(text)[1], overlay, path)}"
    if image_folder is not None:
        # A JSON string is a YAML string too, quotes and backslashes escaped.
        quoted = json.dumps(str(image_folder), ensure_ascii=False)
        text = _overlay(text, f"ingest:\n  folder: {quoted}\n", path)
    return text


def _read_checked(path: Path) -> str:
    text = read_yaml(path)
    parse_tree(text, path)
    return text


def _split_header(text: str) -> tuple[str, str]:
    """The comment at the top, and the rest from the first key on."""
    start = _find(_HEADER, text).end()
    return text[:start], text[start:]


def _overlay(base: str, overlay: str, path: Path) -> str:
    edits = _list_edits((base, _compose(base)), (overlay, _compose(overlay)), path, "")
    for start, end, replacement in sorted(edits, reverse=True):
        base = base[:start] + replacement + base[end:]
    return base


def _find(pattern: re.Pattern[str], text: str, start: int = 0) -> re.Match[str]:
    match = pattern.search(text, start)
    assert match is not None, "these patterns match an empty text too"
    return match


def _compose(text: str) -> MappingNode:
    node = YAML(typ="safe", pure=True).compose(text)
    assert isinstance(node, MappingNode), "parse_tree has seen a mapping"
    return node


def _list_edits(
    base: tuple[str, MappingNode], overlay: tuple[str, MappingNode], path: Path, section: str
) -> list[tuple[int, int, str]]:
    """Start, end and new text of what an overlay replaces in the base."""
    known = {key.value: (key, value) for key, value in base[1].value}
    edits = []
    for key, value in overlay[1].value:
        if key.value not in known:
            hint = suggest_key(key.value, list(known))
            raise ConfigError(f"{path}: {section}{key.value} is no key of {BASE}: {hint}")
        old_key, old_value = known[key.value]
        start = old_key.start_mark.index
        edits.append((start, start, _find_comment_above(overlay[0], key)))
        if isinstance(value, MappingNode) and isinstance(old_value, MappingNode):
            name = f"{section}{key.value}."
            edits += _list_edits((base[0], old_value), (overlay[0], value), path, name)
            continue
        old, new = _Entry(base[0], old_key, old_value), _Entry(overlay[0], key, value)
        edits.append((start, old.end, new.format(old)))
    return edits


def _find_comment_above(text: str, key: Node) -> str:
    """The lines of comment directly above a key, each with the indent of the line after it."""
    comment = _find(_COMMENT_ABOVE, text[: key.start_mark.index])
    indent = " " * key.start_mark.column
    return "".join(f"{line.strip()}\n{indent}" for line in comment[1].splitlines())


class _Entry:
    """``key: value  # comment``, or ``key:  # comment`` with the lines of a list below it."""

    def __init__(self, text: str, key: Node, value: Node) -> None:
        is_block = isinstance(value, CollectionNode) and not value.flow_style
        head_end = key.end_mark.index + 1 if is_block else value.end_mark.index
        comment = _find(_COMMENT, text, head_end)
        last = _find_last(value)
        self.end = _find(_COMMENT, text, last.end_mark.index).end() if is_block else comment.end()
        self.head = text[key.start_mark.index : head_end]
        self.comment = comment[1]
        self.width = comment.end() - len(self.comment) - key.start_mark.index
        self.body = text[comment.end() : self.end]

    def format(self, base: _Entry) -> str:
        """The text that takes the place of ``base``, from its key to its last line's end."""
        source = self if self.comment else base
        line = self.head
        if source.comment:
            line = f"{line.ljust(source.width - 2)}  {source.comment}"
        return line + self.body


def _find_last(node: Node) -> Node:
    """The last scalar or flow collection of a block, whose own end mark lies at the next key."""
    while isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node
