"""Every test here has one body and two sizes: the card's with ``-m gpu``, a tiny one on the CPU.

The folder needs PyTorch, open_clip and pydantic only; without the project's other packages run it
with ``--confcutdir tests/gpu``, as ``python -m bench.gpu`` does.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    """pyproject.toml's markers, where it is not read."""
    for marker in ("gpu: needs a CUDA device", "slow: takes more than a few seconds"):
        config.addinivalue_line("markers", marker)


@pytest.fixture(
    params=[
        pytest.param("cuda", marks=pytest.mark.gpu),
        pytest.param("cpu", marks=pytest.mark.slow),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The card, or the CPU in its place."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _full_float32() -> Iterator[None]:
    """No TF32: its 10 bits would hide what is compared here."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
