"""Windows of losses."""

from __future__ import annotations

import json

from clipgan.training.history import History


def test_lazy_terms_are_averaged_over_their_own_steps() -> None:
    history = History()
    history.add({"main": 1.0, "lazy": 10.0})
    history.add({"main": 2.0})
    history.add({"main": 6.0})
    assert history.close_window(48) == {"main": 3.0, "lazy": 10.0}
    assert history.rows == [{"images_seen": 48, "main": 3.0, "lazy": 10.0}]
    assert history.latest == {"main": 3.0, "lazy": 10.0}


def test_an_open_window_survives_json_bit_for_bit() -> None:
    history = History()
    history.add({"main": 0.1})
    history.close_window(16)
    history.add({"main": 0.2})
    copy = History.from_tree(json.loads(json.dumps(history.to_tree())))
    for each in (history, copy):
        each.add({"main": 0.3})
        each.close_window(48)
    assert copy.rows == history.rows
    assert copy.rows[-1]["main"] == (0.2 + 0.3) / 2


def test_what_was_seen_by_looking_joins_the_row_of_its_place() -> None:
    history = History()
    history.note(0, {"looked": 1.0})
    history.add({"main": 2.0})
    history.close_window(16)
    history.note(16, {"looked": 3.0})
    history.note(24, {"looked": 4.0})
    assert history.rows == [
        {"images_seen": 0, "looked": 1.0},
        {"images_seen": 16, "main": 2.0, "looked": 3.0},
        {"images_seen": 24, "looked": 4.0},
    ]
