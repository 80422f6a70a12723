from __future__ import annotations

import pytest
import torch

from clipgan.devices import resolve_device
from clipgan.errors import ConfigError


def test_the_cpu_by_its_name() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [("tpu", "use auto, cpu, cuda or cuda:N"), ("", "use auto"), ("cuda:99", "use auto or cpu")],
)
def test_what_is_not_there_is_one_line(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_device(name)
