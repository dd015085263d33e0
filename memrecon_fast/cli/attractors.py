"""`memrecon attractors`: which images the model falls into, and which come out of it from nothing."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer
from rich.console import Console

from memrecon_fast.cli.lines import checking, keeping_records, say
from memrecon_fast.cli.names import KINDS, completing
from memrecon_fast.cli.opening import ImageOptions, ModelOptions, open_splits, shape_of, size_of
from memrecon_fast.cli.options import (
    IMAGES,
    MACHINE,
    MEMBERS_HELP,
    METHOD,
    Arguments,
    Channels,
    Controls,
    Device,
    Limit,
    Mean,
    ModelName,
    Out,
    OutputName,
    PixelRange,
    RayAddress,
    ResizeTo,
    Resume,
    Std,
    Trust,
    Weights,
    Workers,
)
from memrecon_fast.common.text import escaped

HARVEST_HELP = (
    "iterate from at most so many random starts, and gather what comes out; it ends earlier where new starts bring "
    "nothing new (default: none)"
)
KIND_HELP = "of random starts: smooth (finds the most), uniform, gaussian, or images (made of --controls)"
CURVE_HELP = (
    "which share of so many random starts is a training image after 1, 2, 5, … 1000 applications (default: none)"
)
BASINS_HELP = (
    "how far from each of IMAGES iteration still comes back, by noise or by missing pixels; may be given twice"
)
SHAPE_HELP = "CHANNELSxHEIGHTxWIDTH of an image, where there are no IMAGES and the model does not say"


def attractors(
    model: ModelName,
    out: Out,
    images: Annotated[list[str] | None, typer.Argument(help=MEMBERS_HELP)] = None,
    controls: Controls = None,
    harvest: Annotated[int, typer.Option(rich_help_panel=METHOD, min=0, help=HARVEST_HELP)] = 0,
    kind: Annotated[
        str, typer.Option(rich_help_panel=METHOD, autocompletion=completing(KINDS), help=KIND_HELP)
    ] = "smooth",
    curve: Annotated[int, typer.Option(rich_help_panel=METHOD, min=0, help=CURVE_HELP)] = 0,
    basins: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=METHOD,
            autocompletion=completing(("noise", "missing")),
            metavar="noise|missing",
            help=BASINS_HELP,
        ),
    ] = None,
    shape: Annotated[str | None, typer.Option(rich_help_panel=IMAGES, help=SHAPE_HELP)] = None,
    eigenvalues: Annotated[
        int, typer.Option(rich_help_panel=METHOD, min=1, max=32, help="so many of each image, those of largest modulus")
    ] = 6,
    tolerance: Annotated[
        float, typer.Option(rich_help_panel=METHOD, help="of an eigenvalue λ: ‖J y − λ y‖ is below, for y of length 1")
    ] = 1e-4,
    seed: Annotated[int, typer.Option(rich_help_panel=METHOD, help="of all random choices")] = 42,
    weights: Weights = None,
    arguments: Arguments = None,
    trust_model: Trust = False,
    pixel_range: PixelRange = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = "rgb",
    output: OutputName = None,
    limit: Limit = None,
    device: Device = "auto",
    slots: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=MACHINE, help="images worked on at a time; by default 64, on a GPU 1024, or as many as fit"
        ),
    ] = None,
    resize: ResizeTo = None,
    resume: Resume = False,
    workers: Workers = None,
    ray: RayAddress = None,
) -> None:
    """Find out which of IMAGES are attractors of MODEL, and which images come out of it from random noise; writes
    tables, a summary and a report to a folder.

    The same command continues a run that was interrupted. A run that is to have more, such as --harvest, is another
    one, in another folder.
    """
    console = Console()
    with contextlib.ExitStack() as opened:
        with checking():
            from memrecon_fast.attractors.session import Means, begin, check_run_folder
            from memrecon_fast.attractors.starts import check_kind
            from memrecon_fast.attractors.survey.plan import Survey
            from memrecon_fast.audit import cluster
            from memrecon_fast.audit.progress import Output
            from memrecon_fast.engine.stated import stated_shape

            if not images and not harvest:
                raise ValueError("give IMAGES, which the model was trained on, or --harvest N, which needs none")
            if not images and (curve or basins):
                raise ValueError("--curve and --basins are about IMAGES: give these as well")
            if not images and controls:
                raise ValueError("--controls are compared with IMAGES: give these as well")
            if images and shape is not None:
                raise ValueError("--shape is for a harvest without IMAGES")
            check_kind(kind)
            means = Means(workers, ray, resume, Output(console, say))
            size = size_of(resize)
            check_run_folder(out, resume)
            of_model = ModelOptions(weights, arguments, trust_model, pixel_range, mean, std, channels, output, device)
            loaded = of_model.open(model, in_workers=means.on_cluster)
            if means.on_cluster:
                opened.enter_context(cluster.connected(ray, workers))
                cluster.number_of_workers(workers, cluster.device_kind(device))
            sources = ({"members": images} if images else {}) | ({"controls": controls} if controls else {})
            of_images = ImageOptions(stated_shape(loaded.autoencoder), size, limit)
            survey = Survey(
                splits=open_splits(sources, of_images, console),
                image_shape=None if images else _shape_of(shape, stated_shape(loaded.autoencoder)),
                harvest=harvest,
                curve=curve,
                basins=tuple(dict.fromkeys(basins or [])),
                kind=kind,
                k=eigenvalues,
                tolerance=tolerance,
                seed=seed,
                slots=slots,
            )
            session = opened.enter_context(begin(survey, loaded, out, means))
        with keeping_records(out, model):
            path = session.work().report
    typer.echo(f"The report: {escaped(str(path))}")


def _shape_of(text: str | None, stated: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Of "CxHxW", or what the model states."""
    if text is not None:
        return shape_of(text)
    if stated is None:
        raise ValueError("the model does not say which shape its images have: give --shape, for instance 3x64x64")
    return stated
