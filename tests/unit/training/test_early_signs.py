"""Signs of trouble are said early, once, and not where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clipgan.clip.feature_store import FeatureTable
from clipgan.progress import ProgressBar, format_duration
from clipgan.training import early_signs
from clipgan.training.early_signs import (
    CAPTIONS_COMPARED,
    Forecast,
    describe_blind_clip,
)


def build_table(images: NDArray[np.float64], texts: NDArray[np.float64]) -> FeatureTable:
    count = len(images)
    return FeatureTable(
        sample_ids=[f"{row}.png" for row in range(count)],
        image_features=_normalize(images),
        text_features=_normalize(texts),
        caption_offsets=np.arange(count + 1, dtype=np.int64),
        captions=[f"caption {row}" for row in range(count)],
        clip={"model": "tiny"},
    )


def _normalize(rows: NDArray[np.float64]) -> NDArray[np.float16]:
    unit: NDArray[np.float16] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f2")
    return unit


class TestBlindClip:
    @pytest.mark.parametrize("count", [12, 60, CAPTIONS_COMPARED + 100])
    def test_features_that_share_nothing(self, count: int) -> None:
        draws = np.random.default_rng(0)
        table = build_table(draws.normal(size=(count, 32)), draws.normal(size=(count, 32)))
        said = describe_blind_clip(table, np.arange(count))
        assert said is not None
        assert said.startswith("the CLIP tiny does not understand these images or captions")
        assert said.endswith("choose another (features.clip_model)")

    @pytest.mark.parametrize("count", [12, CAPTIONS_COMPARED + 100])
    def test_features_that_share_a_little(self, count: int) -> None:
        draws = np.random.default_rng(0)
        images = draws.normal(size=(count, 32))
        table = build_table(images, 0.5 * images + draws.normal(size=(count, 32)))
        assert describe_blind_clip(table, np.arange(count)) is None

    def test_too_few_captions_say_nothing(self) -> None:
        draws = np.random.default_rng(0)
        table = build_table(draws.normal(size=(60, 32)), draws.normal(size=(60, 32)))
        assert describe_blind_clip(table, np.arange(9)) is None
        table.captions[:] = ["the same"] * 60
        assert describe_blind_clip(table, np.arange(60)) is None
        table.caption_offsets[:] = 0
        assert describe_blind_clip(table, np.arange(60)) is None


class TestForecast:
    def run(
        self, monkeypatch: pytest.MonkeyPatch, seconds_a_step: float, *, shown: bool = True
    ) -> None:
        now = 0.0
        monkeypatch.setattr(early_signs.time, "monotonic", lambda: now)
        forecast, bar = Forecast(), ProgressBar("train", 100_000, "images", shown=False)
        bar.shown = shown
        for _ in range(100):
            bar.done += 16
            forecast.update(bar)
            now += seconds_a_step

    def test_a_long_training_is_announced_once(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.run(monkeypatch, 4.0)
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("at 4 images/s the rest of 100,000 images takes about 6h56m; ")

    def test_a_short_one_and_other_processes_say_nothing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.run(monkeypatch, 0.001)
        self.run(monkeypatch, 4.0, shown=False)
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("seconds", "text"), [(7.9, "0m07s"), (3599, "59m59s"), (24_720, "6h52m")]
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert format_duration(seconds) == text
