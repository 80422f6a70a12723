"""Images a second of whole training steps: families, sizes, precisions, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from bench.gpu.measure import count_flops, describe_share, time_runs, use_tf32
from bench.gpu.results import Deadline, Results, Row
from bench.gpu.setups import FAMILIES, RandomClip, Sizes, build_training

PART = "training"
CYCLE = 16
"""Steps in which every lazy phase of LAFITE has its turns; GALIP's are all alike."""
GRAPHS = (
    "does not apply: the host draws crops and style cutoffs anew for every step, and a captured "
    "graph has fixed shapes"
)


@dataclass(frozen=True)
class Variant:
    """One way to run a step; ``kind`` names the matrix product it is compared with."""

    name: str
    precision: str
    kind: str
    channels_last: bool = False
    compiled: bool = False


VARIANTS = (
    Variant("bf16", "bf16", "bf16"),
    Variant("tf32", "fp32", "tf32"),
    Variant("fp32", "fp32", "fp32"),
    Variant("fp16", "fp16", "fp16"),
    Variant("bf16, channels-last", "bf16", "bf16", channels_last=True),
    Variant("bf16, compiled", "bf16", "bf16", compiled=True),
)


def measure_training(
    results: Results, sizes: Sizes, device: torch.device, deadline: Deadline
) -> None:
    """Rows of all variants, the likeliest choice first; what finds no time says so."""
    cases = list(_list_cases(sizes))
    for family in FAMILIES:
        results.add(Row(PART, f"{family}, CUDA graphs", "-", GRAPHS))
    for number, case in enumerate(cases):
        family, side, variant = case
        what = f"{family} {side} px, {variant.name}"
        share = min(sizes.row_seconds, deadline.left() / (len(cases) - number))
        if not deadline.left():
            results.add(Row(PART, what, "left out", "the time was up"))
            continue
        measure = partial(_measure, case, sizes, device, share)
        results.attempt(PART, what, measure)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _list_cases(sizes: Sizes) -> Iterator[tuple[str, int, Variant]]:
    for variant in VARIANTS:
        for side in sizes.sides_px:
            for family in FAMILIES:
                # LAFITE's blocks choose their memory format themselves.
                if not (variant.channels_last and family == "lafite"):
                    yield family, side, variant


def _measure(
    case: tuple[str, int, Variant], sizes: Sizes, device: torch.device, share: float
) -> tuple[str, str]:
    family, side_px, variant = case
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with use_tf32(variant.kind == "tf32"):
        training = build_training(
            family, side_px, variant.precision, sizes, device, change=_choose_change(variant)
        )
        first = training.run().read()
        cycle = CYCLE if family == "lafite" and sizes.official else 1
        # Before a new cycle: the lazy phases lie where a training has them.
        training.index = 0

        def run() -> None:
            for _ in range(cycle):
                training.run()

        flops = count_flops(run)
        seconds = time_runs(run, device, max(0.2, 0.5 * share))
        last = training.run().read()
    if not first or not last:
        raise RuntimeError("no loss is finite")
    images = sizes.batch_size * cycle
    note = describe_share(flops, seconds, device, variant.kind)
    return f"{images / seconds:.1f} images/s", f"batch {sizes.batch_size}; {note}{_memory(device)}"


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


def _choose_change(variant: Variant) -> Callable[[RandomClip, Any], None] | None:
    if not (variant.channels_last or variant.compiled):
        return None

    def change(clip: RandomClip, networks: Any) -> None:
        if variant.channels_last:
            for network in (networks.generator, networks.discriminator, clip.tower.visual):
                network.to(memory_format=torch.channels_last)
        if variant.compiled:
            _compile(clip, networks)

    return change


def _compile(clip: RandomClip, networks: Any) -> None:
    """What is differentiated once: CLIP's view in LAFITE, the generator in GALIP.

    Path length, R1 and MA-GP need gradients of gradients, which compiled code does not give.
    """
    if hasattr(networks.generator, "tower"):
        networks.generator.forward = torch.compile(
            networks.generator.forward, backend=choose_backend(networks.generator)
        )
    else:
        encode: Any = torch.compile(clip.encode_images, backend=choose_backend(networks.generator))
        clip.encode_images = encode  # type: ignore[method-assign]


def choose_backend(module: torch.nn.Module) -> str:
    """PyTorch's compiler on a card; on the CPU the tracing alone, which needs no C++ compiler."""
    return "inductor" if next(module.parameters()).is_cuda else "aot_eager"
