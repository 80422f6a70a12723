"""No tolerance is one machine's: numeric tests pass with other instructions and thread counts.

PyTorch and oneDNN are told to leave out what this processor has, so that an old one is there too.
Every setting runs tests of networks, losses and metrics; two, the farthest apart, all stages, on
one thread a worker: two threads that wait for each other crawl where the machine has other work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

NUMERIC = ("tests/numerics", "tests/unit/evaluation", "tests/stages/test_evaluate_folder.py")
ALL_STAGES = ("tests/numerics", "tests/unit/evaluation", "tests/stages")
NO_VECTORS = {"ATEN_CPU_CAPABILITY": "default"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2"}
ONEDNN_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("setting", "threads", "tests"),
    [
        (NO_VECTORS, 1, ALL_STAGES),
        (NO_VECTORS | ONEDNN_AVX2, 2, NUMERIC),
        (AVX2, 2, NUMERIC),
        (AVX2 | ONEDNN_AVX2, 1, ALL_STAGES),
    ],
    ids=str,
)
def test_numbers_hold_with_other_instructions(
    setting: Mapping[str, str], threads: int, tests: tuple[str, ...]
) -> None:
    workers = max(1, (os.cpu_count() or 1) // threads)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout=900"),
            *(
                "--numprocesses",
                str(workers),
                "--dist",
                "loadfile",
            ),
            *tests,
        ],
        # Without what says that this test itself may run in a worker of another pytest.
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            **setting,
            "OMP_NUM_THREADS": str(threads),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
