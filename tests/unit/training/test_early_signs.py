"""Signs of trouble are said early, once, and not where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipgan.clip.feature_store import FeatureTable
from clipgan.progress import ProgressBar, format_duration
from clipgan.training import early_signs
from clipgan.training.early_signs import (
    CAPTIONS_COMPARED,
    Forecast,
    SampleWatch,
    describe_alike,
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


def draw_grid(prompts: float, latents: float) -> Tensor:
    """4 prompts by 3 latents that move each pixel by so much; (12, 3, 8, 8)."""
    draws = torch.Generator().manual_seed(0)
    moves = [scale * torch.randn(shape, generator=draws) for scale, shape in
             ((prompts, (4, 1, 3, 8, 8)), (latents, (1, 3, 3, 8, 8)))]  # fmt: skip
    return (128 + sum(moves)).clamp(0, 255).to(torch.uint8).flatten(0, 1)  # type: ignore[union-attr]


class TestSamples:
    @pytest.mark.parametrize(
        ("prompts", "latents", "words"),
        [
            (0.0, 20.0, ["all prompts give the same picture"]),
            (20.0, 0.0, ["each prompt gives one picture whatever the seed"]),
            (0.0, 0.0, ["all prompts", "each prompt"]),
            (20.0, 4.0, []),
        ],
    )
    def test_what_makes_no_difference_is_named(
        self, prompts: float, latents: float, words: list[str]
    ) -> None:
        found = describe_alike(draw_grid(prompts, latents), 3)
        assert len(found) == len(words)
        assert all(sentence.startswith(word) for sentence, word in zip(found, words, strict=True))

    def test_one_prompt_or_one_column_cannot_be_alike(self) -> None:
        assert describe_alike(draw_grid(0.0, 0.0)[:1], 1) == []

    def test_it_is_said_once_and_not_of_random_weights(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        watch = SampleWatch(3, is_untrained=True)
        watch.look(draw_grid(0.0, 20.0), 0)
        assert caplog.messages == []
        watch.look(draw_grid(0.0, 20.0), 1024)
        watch.look(draw_grid(0.0, 20.0), 2048)
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("after 1,024 images: all prompts give the same")
        SampleWatch(3, is_untrained=False).look(draw_grid(0.0, 20.0), 0)
        assert caplog.messages[1].startswith("after 0 images: ")


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
