"""What a user is told about a folder: what became of its shapes, and its captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipgan import schemas
from tests.stages.ingest_runs import fill_folder, load_rows, make_config, run
from tests.unit.data.pictures import encode, picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return fill_folder(tmp_path / "photos")


def test_what_was_found_is_printed(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "film.mp4").write_bytes(b"no image")
    (photos / "000.txt").write_bytes("utf-16".encode("utf-16-le"))
    run(tmp_path, make_config(photos))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].endswith(
        "; rejected: 1 not_an_image; altered: none; captions not used: 1 nul_in_caption, "
        "1 missing_caption"
    )
    assert lines[-2] == (
        "30 of 30 images lost more than 10 % of their longer side to the crop, none of them more "
        "than a third; ingest.fit: pad keeps all of them"
    )
    assert "ingest_report.md and contact_sheet.png beside it" in lines[-1]
    assert f"| shape | {lines[-2]} |" in (tmp_path / "images" / "ingest_report.md").read_text()


def test_the_fit_decides_the_pixels_and_what_the_report_says(tmp_path: Path, photos: Path) -> None:
    words = {"crop": "lost more", "pad": "have bars", "squash": "were squashed"}
    pixels = set()
    for fit, word in words.items():
        report = run(tmp_path, make_config(photos, fit=fit, background="black"))
        assert word in report.shapes.describe()
        assert report.shapes.num_beyond_tenth == 30
        pixels.add(load_rows(tmp_path / "images")[0][schemas.IMAGE])
    assert len(pixels) == 3


def test_many_captions_are_warned_of_and_can_be_limited(tmp_path: Path, photos: Path) -> None:
    for path in photos.glob("*.txt"):
        path.write_text("".join(f"{path.stem} in language {number}\n" for number in range(65)))
    copied = encode(picture(40, 32, seed=0))
    (photos / "copy.png").write_bytes(copied)
    (photos / "copy.txt").write_text("".join(f"a copy {number}\n" for number in range(65)))
    report = run(tmp_path, make_config(photos))
    assert report.num_captions == 31 * 65
    (warning,) = report.warnings
    assert warning.startswith("2,015 captions for 30 images, 67 an image: ")
    assert warning in (tmp_path / "images" / "ingest_report.md").read_text()
    limited = run(tmp_path, make_config(photos, captions_per_image=10))
    assert (limited.num_captions, limited.warnings) == (300, ())
    assert limited.captions_by_reason == {"captions_beyond_limit": 30}
    first = run(tmp_path, make_config(photos, caption_lines="first"))
    assert (first.num_captions, first.warnings) == (31, ())
