"""``clipgan``: every command, its options and its help. What they do lives beside this file."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clipgan.cli.ema import ema
from clipgan.cli.error_reports import (
    DEBUG_VARIABLE,
    accept_any_encoding,
    exit_on_sigterm,
    reported_errors,
)
from clipgan.families.registry import FAMILIES, find_family
from clipgan.models.addresses import ADDRESS_FORMS


class _ReportingGroup(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with reported_errors():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_ReportingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train small, fast text-to-image GANs without captions. "
    "Hyper-parameters live in params.yaml; no command takes one.",
)


class Server(StrEnum):
    """The two web pages."""

    mlflow = "mlflow"
    prefect = "prefect"


class Precision(StrEnum):
    """Of a generator that draws."""

    fp32 = "fp32"
    bf16 = "bf16"


Family = StrEnum(  # type: ignore[misc]
    "Family", [spec.name for spec in FAMILIES.values() if spec.has_importer]
)
"""The families whose official weights can be imported."""
Protocols = Annotated[
    list[str] | None, typer.Option("--protocol", help="Instead of params.yaml's; may be repeated.")
]
Report = Annotated[Path, typer.Option("--out", help="Folder for values and report.html; replaced.")]


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere in the line.")
    ] = False,
) -> None: ...


@app.command()
def run() -> None:
    """Take the data of params.yaml to a trained, evaluated, registered model.

    Only what changed is redone. Stopped at any moment, the same command goes on.
    """
    from clipgan.cli.flows import start_flow

    start_flow("train")


@app.command()
def evaluate(
    subject: Annotated[
        str | None,
        typer.Argument(
            help=f"A folder of images, or {ADDRESS_FORMS}. "
            "Without it: the pipeline's own generator, and what it needs."
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Folder of real images, for a folder.")
    ] = None,
    protocol: Protocols = None,
    out: Report = Path("evaluations/latest"),
    list_protocols: Annotated[
        bool, typer.Option("--list-protocols", help="Name every protocol and what it fixes.")
    ] = False,
) -> None:
    """Bring the evaluation up to date, or evaluate something else; registers nothing."""
    from clipgan.cli import evaluation
    from clipgan.cli.flows import start_flow

    if list_protocols:
        print(evaluation.describe_protocols())
    elif subject is None:
        evaluation.refuse_options(reference, protocol)
        start_flow("evaluate")
    else:
        print(evaluation.evaluate_subject(subject, reference, tuple(protocol or ()), out))


@app.command()
def compare(
    models: Annotated[
        list[str],
        typer.Argument(help=f"Two or more, each {ADDRESS_FORMS}. The first is the baseline."),
    ],
    protocol: Protocols = None,
    out: Report = Path("evaluations/comparison"),
) -> None:
    """Measure models on the same captions and seeds, and say which differences are real."""
    from clipgan.cli import evaluation

    print(evaluation.compare_subjects(models, tuple(protocol or ()), out))


app.command()(ema)


@app.command("pretrain-clip")
def pretrain_clip() -> None:
    """Train the built-in small CLIP again from its recipe, into data/clip."""
    from clipgan.cli.flows import start_flow

    start_flow("pretrain-clip")


@app.command("pretrain-generator")
def pretrain_generator() -> None:
    """Warm a generator up from random weights, into data/generator: a start for training."""
    from clipgan.cli.flows import start_flow

    start_flow("pretrain-generator")


@app.command("pretrain-mapper")
def pretrain_mapper() -> None:
    """Train LAFITE-NN's noise mapper on the captions at hand, into data/mapper."""
    from clipgan.cli.flows import start_flow

    start_flow("pretrain-mapper")


@app.command()
def stage(
    name: Annotated[
        str, typer.Argument(help="scan, settings, ingest, features, train, evaluate, ...")
    ],
) -> None:
    """Run one stage here and now: the command that dvc.yaml gives to DVC."""
    from clipgan.cli.stage_process import run_stage_here

    run_stage_here(name)


@app.command()
def init(
    profile: Annotated[str, typer.Argument(help="A file of profiles/, such as emoji or folder.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Your images, for profiles that read a folder.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a params.yaml that you changed.")
    ] = False,
) -> None:
    """Put a ready params.yaml in place."""
    from clipgan.cli.profiles import install_profile
    from clipgan.cli.stage_process import locked_project

    with locked_project("clipgan init") as workspace:
        print(install_profile(workspace, profile, folder=folder, force=force))


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(help='One or more prompts: "a red apple".')],
    *,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1)] = 0,
    num_images: Annotated[
        int, typer.Option("--num-images", min=1, max=10_000, help="Images for each prompt.")
    ] = 1,
    truncation: Annotated[
        float, typer.Option("--truncation", min=0.0, max=1.0, help="Below 1: safer, more alike.")
    ] = 1.0,
    truncation_layers: Annotated[
        int | None,
        typer.Option("--truncation-layers", min=0, help="Truncate the first N layers only."),
    ] = None,
    latent_truncation: Annotated[
        float | None,
        typer.Option("--latent-truncation", help="Cut the latents off at +- this, such as 1.5."),
    ] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option("--mix", help="SEED:FIRST-LAST: these layers in another seed's style."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="A file for one image (.png, .jpg, .webp), else a folder of PNGs."
        ),
    ] = Path("generated"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file --out.")] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help=f"One of: {ADDRESS_FORMS}. "
            "Without it: the project's champion where there is one, else built-in.",
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[
        Precision, typer.Option("--precision", help="bf16: faster where the CPU knows it.")
    ] = Precision.fp32,
) -> None:
    """Make images from prompts. The same seed gives the same files on the CPU.

    No picture replaces an earlier one. PNGs carry their settings.
    """
    from clipgan.cli.generate import generate_files
    from clipgan.generation.styles import StyleChoice, parse_style_mixes

    mixes = parse_style_mixes(mix or ())
    for path in generate_files(
        prompts,
        seed=seed,
        num_images=num_images,
        choice=StyleChoice(truncation, truncation_layers, latent_truncation, mixes),
        out=out,
        model=model,
        device=device,
        precision=precision,
        force=force,
    ):
        print(path)


@app.command("import-weights")
def import_weights(
    family: Annotated[Family, typer.Argument(help="The paper whose code wrote the file.")],
    file: Annotated[
        Path, typer.Argument(help="The official file: a .pkl of LAFITE, a .pth of GALIP.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder of the generator bundle to write.")],
    clip_model: Annotated[
        str, typer.Option("--clip-model", help="The CLIP that the weights were trained with.")
    ] = "ViT-B-32-quickgelu",
    clip_weights: Annotated[
        str, typer.Option("--clip-weights", help="Its pretrained tag or weights file.")
    ] = "openai",
) -> None:
    """Turn official weights into a generator bundle. Nothing in the file is executed."""
    import_official = find_family(family.value).load("importer")
    print(import_official(file, out, clip_model=clip_model, clip_weights=clip_weights))


@app.command()
def register() -> None:
    """Register the trained generator as a model version and let the gate decide."""
    from clipgan.cli.models import register_trained
    from clipgan.cli.stage_process import locked_project

    with locked_project("clipgan register"):
        print(register_trained())


@app.command()
def promote(version: Annotated[str, typer.Argument(help="A version number of the model.")]) -> None:
    """Make a registered version the champion, whatever the gate said."""
    from clipgan.cli.models import promote_by_hand
    from clipgan.cli.stage_process import locked_project

    with locked_project(f"clipgan promote {version}"):
        print(promote_by_hand(version))


@app.command()
def models() -> None:
    """List the registered versions."""
    from clipgan.cli.models import print_models

    print_models()


@app.command()
def status() -> None:
    """Say what is up to date, what a run would redo, and who is running."""
    from clipgan.cli.status import print_status

    print_status()


@app.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list.")] = False,
) -> None:
    """List what killed and abandoned runs left, and remove it; what a run goes on from stays."""
    from clipgan.cli import cleaning

    cleaning.clean(yes=yes, dry_run=dry_run)


@app.command()
def sync() -> None:
    """Send MLflow what was logged while it did not answer."""
    from clipgan.cli.stage_process import locked_project
    from clipgan.stages.runs import send_waiting

    with locked_project("clipgan sync") as workspace:
        if not send_waiting(workspace):
            print("MLflow has everything")


@app.command()
def ui(
    server: Annotated[Server, typer.Argument(help="Which page to serve.")],
    port: Annotated[int | None, typer.Option("--port", min=1024, max=65535)] = None,
) -> None:
    """Serve the MLflow or Prefect page of this project on 127.0.0.1 until Ctrl-C."""
    from clipgan.cli.servers import serve

    serve(server.value, port)


def main() -> None:
    """Entry point of ``clipgan`` and ``python -m clipgan``."""
    if "--debug" in sys.argv[1:]:
        sys.argv = [argument for argument in sys.argv if argument != "--debug"]
        os.environ[DEBUG_VARIABLE] = "1"
    exit_on_sigterm()
    accept_any_encoding()
    app()
