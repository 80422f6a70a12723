"""Images a second without training: sampling, features, evaluation; beside the official code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu.measure import count_flops, describe_share, time_runs, use_tf32
from bench.gpu.peer import load_peer_generator
from bench.gpu.results import Deadline, Results, Row
from bench.gpu.setups import FAMILIES, RandomClip, Sizes, build_training
from bench.gpu.training_rows import choose_backend
from clipgan.devices import upload
from clipgan.images import to_unit_range

PART = "networks"
JUDGE = "tf_efficientnet_lite0"
EAGER, GRAPH, COMPILED = "", ", CUDA graph", ", compiled"
Run = Callable[[], object]


def measure_networks(
    results: Results, sizes: Sizes, device: torch.device, deadline: Deadline, peer: Path | None
) -> None:
    """All rows; what finds no time says so."""
    samplings = [
        _Sampling(family, side, precision, mode, count)
        for side in sizes.sides_px
        for family in FAMILIES
        for precision, mode in (("bf16", EAGER), ("bf16", GRAPH), ("fp32", EAGER))
        for count in (1, sizes.sampling_batch)
    ]
    cases: list[tuple[str, Callable[[float], tuple[str, str]]]] = [
        (sampling.name, partial(_sample, sampling, sizes, device)) for sampling in samplings
    ]
    cases += [
        (f"CLIP features, {precision}{mode}", partial(_extract, precision, mode, sizes, device))
        for precision, mode in (
            ("bf16", EAGER),
            ("bf16", GRAPH),
            ("bf16", COMPILED),
            ("fp32", EAGER),
        )
    ]
    cases.append(("evaluation features (lite0)", partial(_judge, sizes, device)))
    cases += [
        (f"official {family}, generator, {what}", partial(_run_peer, family, what, peer, device))
        for family in FAMILIES
        for what in ("sampling", "forward and backward")
    ]
    cases += [
        (f"our {family}, generator, forward and backward", partial(_learn, family, sizes, device))
        for family in FAMILIES
    ]
    for number, (what, measure) in enumerate(cases):
        if not deadline.left():
            results.add(Row(PART, what, "left out", "the time was up"))
            continue
        share = min(sizes.row_seconds, deadline.left() / (len(cases) - number))
        results.attempt(PART, what, partial(measure, share))


@dataclass(frozen=True)
class _Sampling:
    family: str
    side_px: int
    precision: str
    mode: str
    count: int

    @property
    def name(self) -> str:
        return (
            f"sampling, {self.family} {self.side_px} px, {self.precision}, "
            f"batch {self.count}{self.mode}"
        )


def _sample(case: _Sampling, sizes: Sizes, device: torch.device, share: float) -> tuple[str, str]:
    training = build_training(case.family, case.side_px, case.precision, sizes, device)
    draw = _build_drawing(training.step.generator, case.precision, case.count, device)
    with torch.inference_mode(), use_tf32(False):
        return _report(draw, case.count, device, share, kind=case.precision, mode=case.mode)


def _build_drawing(generator: Any, precision: str, count: int, device: torch.device) -> Run:
    latents = torch.randn(count, generator.latent_dim, device=device)
    texts = F.normalize(torch.randn(count, generator.text_dim, device=device), dim=1)
    reduced = precision != "fp32" and hasattr(generator, "tower")

    def draw() -> Tensor:
        # LAFITE's blocks choose their format themselves.
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced, cache_enabled=False):
            images: Tensor = generator(latents, texts)
        return images

    return draw


def _extract(
    precision: str, mode: str, sizes: Sizes, device: torch.device, share: float
) -> tuple[str, str]:
    clip = RandomClip(sizes, precision, device)
    count = sizes.extraction_batch
    stored = torch.randint(0, 256, (count, 3, clip.side_px, clip.side_px), dtype=torch.uint8)
    images = to_unit_range(upload(stored, device))
    encode: Any = clip.encode_images
    if mode == COMPILED:
        encode = torch.compile(encode, backend=choose_backend(clip.tower.visual))
    with torch.inference_mode(), use_tf32(False):
        if mode == GRAPH:
            return _report(lambda: encode(images), count, device, share, kind=precision, mode=mode)
        # With the way from the host's memory, as the stage has it.
        run: Run = lambda: encode(to_unit_range(upload(stored, device)))  # noqa: E731
        return _report(run, count, device, share, kind=precision, mode=mode)


def _judge(sizes: Sizes, device: torch.device, share: float) -> tuple[str, str]:
    network = timm.create_model(JUDGE, pretrained=False, num_classes=0).eval().to(device)
    side, count = (224, sizes.extraction_batch) if sizes.official else (32, 2)
    images = torch.rand(count, 3, side, side, device=device)
    with torch.inference_mode(), use_tf32(False):
        return _report(lambda: network(images), count, device, share)


def _learn(family: str, sizes: Sizes, device: torch.device, share: float) -> tuple[str, str]:
    training = build_training(family, sizes.sides_px[-1], "fp32", sizes, device)
    draw = _build_drawing(training.step.generator, "fp32", sizes.batch_size, device)
    return _report_learning(draw, sizes.batch_size, device, share)


def _run_peer(
    family: str, what: str, peer: Path | None, device: torch.device, share: float
) -> tuple[str, str]:
    if peer is None:
        return "left out", "give its checkout: --peer DIR, with Lafite and GALIP in it"
    count = 32 if device.type == "cuda" else 1
    draw, note = load_peer_generator(family, peer, count, device)
    if what != "sampling":
        value, more = _report_learning(draw, count, device, share)
        return value, f"{note}; {more}"
    with torch.inference_mode(), use_tf32(False):
        value, more = _report(draw, count, device, share)
    return value, f"{note}; {more}"


def _report_learning(
    draw: Callable[[], Any], count: int, device: torch.device, share: float
) -> tuple[str, str]:
    def run() -> None:
        draw().square().mean().backward()

    with use_tf32(False):
        return _report(run, count, device, share)


def _report(
    run: Run,
    count: int,
    device: torch.device,
    share: float,
    *,
    kind: str = "fp32",
    mode: str = EAGER,
) -> tuple[str, str]:
    run()
    flops = count_flops(run) if mode != COMPILED else 0
    if mode == GRAPH:
        if device.type != "cuda":
            return "-", "needs a card"
        run = _capture(run)
    seconds = time_runs(run, device, max(0.1, 0.5 * share))
    note = describe_share(flops, seconds, device, kind) if flops else ""
    return f"{count / seconds:.1f} images/s", f"batch {count}; {note}".rstrip("; ")


def _capture(run: Run) -> Run:
    """A CUDA graph of a run whose inputs stay where they are."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
