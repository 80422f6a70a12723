"""Base concepts of emoji: what must not be divided between training and validation.

Skin tones, genders, hair and directions of one drawing are one concept, in every style. The table
is made from the ``emoji`` package alone, so that it does not depend on which styles are configured.
Two emoji share a concept when their code points agree after :func:`strip_code_points`, or when any
two of their captions agree after :func:`strip_caption` (the transitive closure of both).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import networkx

from clipgan.data.sources.emoji.names import load_captions

_JOINER = 0x200D
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_HAIR = range(0x1F9B0, 0x1F9B4)
_GENDER_SIGNS = (0x2640, 0x2642)
_FACING_RIGHT = 0x27A1
_PERSON, _CHILD, _OLDER_PERSON = 0x1F9D1, 0x1F9D2, 0x1F9D3
_HEART, _KISS_MARK = 0x2764, 0x1F48B

_SAME_PART = {
    0x1F468: _PERSON,  # man
    0x1F469: _PERSON,  # woman
    0x1F471: _PERSON,  # blond hair, the one hair variant with a code point of its own
    0x1F466: _CHILD,  # boy
    0x1F467: _CHILD,  # girl
    0x1F474: _OLDER_PERSON,
    0x1F475: _OLDER_PERSON,
    0x1F934: 0x1FAC5,  # prince and
    0x1F478: 0x1FAC5,  # princess: person with crown
    0x1F936: 0x1F385,  # Mrs. Claus: Santa Claus
    0x1F930: 0x1FAC4,  # pregnant woman and
    0x1FAC3: 0x1FAC4,  # man: person
    0x1F57A: 0x1F483,  # man dancing: woman dancing
}
"""Gendered code points that have no neutral form in a ZWJ sequence."""

_SAME_SEQUENCE = {
    (0x1F46B,): (_PERSON, 0x1F91D, _PERSON),  # woman and man,
    (0x1F46C,): (_PERSON, 0x1F91D, _PERSON),  # men,
    (0x1F46D,): (_PERSON, 0x1F91D, _PERSON),  # women holding hands
    (0x1F48F,): (_PERSON, _HEART, _KISS_MARK, _PERSON),
    (0x1F491,): (_PERSON, _HEART, _PERSON),
    (0x1F46F,): (_PERSON, 0x1F430, _PERSON),  # bunny ears
    (0x1F93C,): (_PERSON, 0x1FAEF, _PERSON),  # wrestling
    (0x1FAF1, 0x1FAF2): (0x1F91D,),  # two hands: handshake
    (_PERSON, 0x1F384): (0x1F385,),  # Mx Claus
    (_PERSON, 0x1F37C): (0x1F931,),  # person feeding a baby: breast-feeding
}
_SAME_FLAG = {
    "EA": "ES",
    "CP": "FR",
    "MF": "FR",
    "HM": "AU",
    "MC": "ID",
    "SJ": "NO",
    "BV": "NO",
    "TD": "RO",
    "DG": "IO",
    "UM": "US",
}
"""Regions that fly another's flag, or one that cannot be told from it when small."""
_REGIONAL_A = 0x1F1E6
_FAMILY = (0x1F46A,)
_FAMILY_PARTS = {_PERSON, _CHILD, _OLDER_PERSON}

_MODIFIER_WORDS = re.compile(
    r"\b(?:(?:medium[- ]light|medium[- ]dark|light|medium|dark) skin tone|facing right"
    r"|(?:red|curly|white|blond|blonde) hair(?:ed)?|bald|blonde?"
    r"|(?<!isle of )man|men|woman|women|person|people|male|female|boys?|girls?|child|children)\b"
    r"(?:'s?)?",
    re.IGNORECASE,
)


def has_skin_tone(points: tuple[int, ...]) -> bool:
    """Whether an emoji is a variant in one of the five skin tones."""
    return len(points) > 1 and any(point in _SKIN_TONES for point in points)


def strip_code_points(points: tuple[int, ...]) -> tuple[int, ...]:
    """Code points without FE0F -> those of the base concept, joiners removed."""
    plain = [p for p in points if p not in _SKIN_TONES and p != _JOINER] or list(points)
    head, *tail = plain
    if _JOINER in points:
        dropped = (*_HAIR, *_GENDER_SIGNS, _FACING_RIGHT)
        tail = [part for part in tail if part not in dropped]
    parts = tuple(_SAME_PART.get(part, part) for part in (head, *tail))
    region = "".join(chr(part - _REGIONAL_A + ord("A")) for part in parts if part >= _REGIONAL_A)
    if region in _SAME_FLAG:
        return tuple(ord(letter) - ord("A") + _REGIONAL_A for letter in _SAME_FLAG[region])
    if len(parts) > 1 and set(parts) <= _FAMILY_PARTS:
        return _FAMILY
    return _SAME_SEQUENCE.get(parts, parts)


def strip_caption(caption: str) -> str:
    """A caption without skin tone, gender, hair and direction, in lower case and plain words.

    What consists of such words only is "person".
    """
    rest = _MODIFIER_WORDS.sub(" ", caption)
    words = re.sub(r"[^\w+#*-]+|_+", " ", rest).lower().split()
    while words and words[-1] in _DANGLING:
        words.pop()
    while words and words[0] in _DANGLING:
        words.pop(0)
    return " ".join(words) or "person"


_DANGLING = ("and", "with", "in", "-")


@cache
def load_concepts() -> dict[tuple[int, ...], str]:
    """Concept of every named emoji, by code points without FE0F.

    A concept is called after its plainest emoji ("red apple", "person"), modifiers removed; the
    names are unique because equal stripped captions are one concept by construction.
    """
    graph: networkx.Graph[Any] = networkx.Graph()
    for points, captions in load_captions().items():
        graph.add_edge(points, ("points", strip_code_points(points)))
        graph.add_edges_from((points, ("caption", strip_caption(text))) for text in captions)
    concepts: dict[tuple[int, ...], str] = {}
    for component in networkx.connected_components(graph):
        members = [node for node in component if node in load_captions()]
        simplest = min(members, key=_rank_simplicity)
        name = strip_caption(load_captions()[simplest][0])
        concepts.update(dict.fromkeys(members, name))
    return concepts


def _rank_simplicity(points: tuple[int, ...]) -> tuple[bool, int, tuple[int, ...]]:
    return (strip_code_points(points) != points, len(points), points)
