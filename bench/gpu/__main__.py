"""``python -m bench.gpu prepare|run``: what a GPU makes of this code, in a given time.

``run`` checks the arithmetic (tests/gpu), measures speeds and trains a base generator. Each part is
a process of its own with a time of its own: one that fails or hangs costs its own rows only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch

from bench.gpu.base_training import train_base
from bench.gpu.measure import measure_matmul_rate, name_device
from bench.gpu.network_rows import measure_networks
from bench.gpu.prepared import prepare
from bench.gpu.results import TABLE, Deadline, Results, Row
from bench.gpu.setups import FULL, ROOT, TINY, describe_versions
from bench.gpu.training_rows import measure_training
from clipgan.config import MonitoringConfig, TrainConfig, load_params, load_profile
from clipgan.devices import resolve_device

SHARES = {"tests": 0.25, "training": 0.3, "networks": 0.15, "base": 0.3}
"""Each part's share of the whole time."""
GRACE_SECONDS = 30.0
"""Time for a part to write its last checkpoint and exit."""
IMAGE_BUDGET = 2000


def main() -> None:
    """Parse the command line and do it."""
    arguments = _parse()
    if arguments.command == "prepare":
        _prepare(arguments)
    elif arguments.command == "part":
        _run_part(arguments)
    else:
        sys.exit(_run(arguments))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="write the data that a bare machine needs")
    preparing.add_argument("--out", type=Path, required=True)
    preparing.add_argument("--images", type=int, default=IMAGE_BUDGET, help="how many to carry")
    for name in ("run", "part"):
        command = commands.add_parser(name)
        command.add_argument("--out", type=Path, required=True, help="folder for everything")
        command.add_argument("--data", type=Path, help="a folder of `prepare`, for the training")
        command.add_argument("--pack", type=Path, help="go on from an earlier call's OUT/pack")
        command.add_argument("--peer", type=Path, help="checkouts of the papers' code")
        command.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
        command.add_argument("--tiny", action="store_true", help="a rehearsal at toy sizes")
        choices = [*SHARES]
        if name == "run":
            command.add_argument("--minutes", type=float, required=True, help="for all parts")
            command.add_argument("--parts", nargs="+", choices=choices, default=choices)
        else:
            command.add_argument("--part", choices=choices, required=True)
            command.add_argument("--until", type=float, required=True, help="seconds of the epoch")
    return parser.parse_args()


def _prepare(arguments: argparse.Namespace) -> None:
    size = prepare(
        load_params(ROOT / "params.yaml"),
        images=ROOT / "data" / "images",
        features=ROOT / "data" / "features",
        output=arguments.out,
        num_images=arguments.images,
    )
    print(f"{arguments.out}: {size:.1f} MiB")


def _run(arguments: argparse.Namespace) -> int:
    results = Results(arguments.out)
    device = resolve_device(arguments.device)
    results.add(Row("machine", "device", name_device(device), describe_versions()))
    for kind in ("bf16", "fp16", "tf32", "fp32"):
        results.attempt("machine", f"matmul, {kind}", partial(_measure_matmul, device, kind))
    started, total = time.monotonic(), 60 * arguments.minutes
    failures = 0
    for number, part in enumerate(arguments.parts):
        left = total - (time.monotonic() - started)
        ahead = sum(SHARES[name] for name in arguments.parts[number:])
        failures += _start_part(arguments, results, part, left * SHARES[part] / ahead)
    print((arguments.out / TABLE).read_text(encoding="utf-8"))
    return min(failures, 1)


def _measure_matmul(device: torch.device, kind: str) -> tuple[str, str]:
    return f"{measure_matmul_rate(device, kind) / 1e12:.3g} TFLOP/s", ""


def _start_part(arguments: argparse.Namespace, results: Results, part: str, seconds: float) -> bool:
    """Run a part as a process; returns whether it failed."""
    command = _build_command(arguments, part, max(seconds - GRACE_SECONDS, 0.5 * seconds))
    # cuBLAS reads it when it starts; deterministic algorithms need it.
    environment = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if part == "tests" else {}
    environment["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    log = results.folder / f"{part}.log"
    with log.open("w", encoding="utf-8") as handle:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=handle,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            results.add(Row(part, "the part", "cut off", f"after {seconds:.0f} s; see {log.name}"))
            return True
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    last = lines[-1][:200] if lines else ""
    if part == "tests" or code:
        results.add(Row(part, "the part", "passed" if not code else f"exit code {code}", last))
    return bool(code)


def _build_command(arguments: argparse.Namespace, part: str, seconds: float) -> list[str]:
    if part == "tests":
        marker = "gpu" if arguments.device == "cuda" else "slow"
        # Its own configuration: pyproject.toml names plugins that a bare machine lacks.
        options = ["-c", os.devnull, "--rootdir", ".", "--confcutdir", "tests/gpu"]
        return [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options),
            *("-m", marker, "-rfs", "--tb=short", "tests/gpu"),
        ]
    command = [sys.executable, "-m", "bench.gpu", "part", "--part", part]
    command += ["--out", str(arguments.out.resolve()), "--until", str(time.time() + seconds)]
    command += ["--device", arguments.device]
    for name in ("data", "pack", "peer"):
        path: Path | None = getattr(arguments, name)
        command += [f"--{name}", str(path.resolve())] if path is not None else []
    return [*command, "--tiny"] if arguments.tiny else command


def _run_part(arguments: argparse.Namespace) -> None:
    results, device = Results(arguments.out), resolve_device(arguments.device)
    sizes = TINY if arguments.tiny else FULL
    # What it took to start counts too.
    deadline = Deadline(arguments.until - time.time())
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    if arguments.part == "training":
        measure_training(results, sizes, device, deadline)
    elif arguments.part == "networks":
        measure_networks(results, sizes, device, deadline, arguments.peer)
    elif arguments.data is None:
        results.add(Row("base generator", "training", "left out", "give its data: --data DIR"))
    else:
        config, monitoring = _choose_base(arguments.tiny)
        train_base(
            results,
            config,
            monitoring,
            prepared=arguments.data,
            pack=arguments.pack,
            device=device,
            deadline=deadline,
        )


def _choose_base(tiny: bool) -> tuple[TrainConfig, MonitoringConfig]:
    """The recipe of a base of two looks at a card's batch size, its warm-up inside; tiny: a few
    steps."""
    params = load_profile(ROOT / "profiles" / "emoji-looks-base.yaml")
    config, monitoring = params.train, params.monitoring
    ema = config.ema.model_copy(update={"half_life_kimg": 0.5 if tiny else 10.0})
    changes = {
        "ema": ema,
        "batch_size": 4 if tiny else 64,
        "warm_up_images": 8 if tiny else 128_000,
    }
    interval = 8 if tiny else 64_000
    intervals = {
        "log_interval_images": interval // 2,
        "sample_interval_images": interval,
        "checkpoint_interval_images": interval,
        "evaluation_interval_images": 0,
    }
    return config.model_copy(update=changes), monitoring.model_copy(update=intervals)


if __name__ == "__main__":
    main()
