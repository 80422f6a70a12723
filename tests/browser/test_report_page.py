"""The HTML report in a real browser: all there, nothing loaded from elsewhere, nothing broken."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.artifacts import write_bytes
from clipgan.evaluation.report.page import build_page
from clipgan.evaluation.report.pictures import NearestPair, Pictures, WorstCaption
from clipgan.metrics.evaluations import Evaluation
from tests.metric_values import value_of

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
WIDTH_PX = 1200
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not Path(CHROMIUM).exists():
        pytest.skip("no chromium on this machine: apt-get install chromium")
    folder = tmp_path_factory.mktemp("page")
    red, blue = (torch.zeros(3, 16, 16, dtype=torch.uint8) for _ in range(2))
    red[0], blue[2] = 255, 255
    pair = NearestPair("a <b>bold</b> apple", 0.5, True, red, blue, "0001")
    values = {
        model: {
            "fd_x": value_of("fd_x", number, 0.5),
            "precision_x": value_of("precision_x", number / 10, 0.01),
            "recall_x": value_of("recall_x", number / 20, 0.01),
        }
        for model, number in (("before", 5.0), ("after", 3.0))
    }
    curves = io.BytesIO()
    Image.new("RGB", (40, 20), "green").save(curves, format="PNG")
    evaluation = Evaluation(
        values,
        {"fid": "no weights"},
        ("few images",),
        title="A report & its values",
        baseline="before",
    )
    pictures = Pictures(
        ["a <b>red</b> apple", "a blue heart"],
        {model: torch.stack([red, blue, red] * 2).view(2, 3, 3, 16, 16) for model in values},
        worst={"after": (WorstCaption("a <script> caption", 0.1, red),) * 3},
        nearest={"after": (pair,) * 3},
    )
    page = build_page(evaluation, pictures, curves.getvalue())
    write_bytes(folder / "report.html", page.encode())
    return folder / "report.html"


def run_chromium(page: Path, *arguments: str) -> str:
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.parent / 'profile'}", f"--window-size={WIDTH_PX},3000"]
    command += [*arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def run_chromium_log(page: Path) -> str:
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--enable-logging=stderr", "--v=0"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stderr


def test_every_section_is_rendered_and_text_is_text(page: Path) -> None:
    dom = run_chromium(page, "--dump-dom")
    titles = re.findall(r"<h2>(.*?)</h2>", dom)
    assert titles == [
        "In words",
        "Values",
        "Paired comparisons",
        "Samples on shared seeds",
        "Over images seen",
        "Precision and recall",
        "Nearest training images",
        "Captions that fit least",
        "Read with care",
        "Not computed",
        "Protocols",
    ]
    assert "A report &amp; its values" in dom
    assert "a &lt;b&gt;bold&lt;/b&gt; apple" in dom
    assert "a &lt;b&gt;red&lt;/b&gt; apple" in dom
    assert "<script" not in dom
    assert 'class="better">better' in dom
    assert re.search(r'"number best">3 <span class="soft">\[[\d.-]+, [\d.]+\]', dom)
    assert not re.search(r'"number best">5 ', dom)


def test_the_browser_has_nothing_to_complain_about(page: Path) -> None:
    """With every host unreachable: no console message, no failed request."""
    log = run_chromium_log(page)
    assert "CONSOLE" not in log, log
    broken = page.parent / "broken.html"
    broken.write_text("<script>console.error('x')</script>")
    assert "CONSOLE" in run_chromium_log(broken), "this test would not see an error"


def test_nothing_is_loaded_from_anywhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) > 12
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert "@import" not in text
    assert "url(" not in text


def test_pictures_are_drawn_and_the_page_fits_its_window(page: Path) -> None:
    """Red and blue of the samples, orange and blue of the plot, green of the curves are on it."""
    shot = page.parent / "shot.png"
    run_chromium(page, f"--screenshot={shot}")
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[1] == WIDTH_PX
    for color in ((255, 0, 0), (0, 0, 255), (0, 128, 0), (31, 95, 168), (181, 84, 28)):
        near = np.abs(pixels - np.array(color)).sum(axis=2) < 40
        assert near.sum() > 20, color
    margins = pixels[:, [0, -1]]
    assert (np.abs(margins - margins[0, 0]).max()) == 0, "something is wider than the page"
