"""`memrecon audit`: which images can be recovered from a model."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from memrecon_fast.cli import names
from memrecon_fast.cli.lines import checking, keeping_records, say
from memrecon_fast.cli.names import completing
from memrecon_fast.cli.opening import ImageOptions, ModelOptions, open_splits, size_of
from memrecon_fast.cli.options import (
    IMAGES,
    MACHINE,
    MEMBERS_HELP,
    METHOD,
    RUN,
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

if TYPE_CHECKING:
    from memrecon_fast.methods import Method

METHODS_HELP = f"{', '.join(names.METHODS)}; may be repeated (default: {' and '.join(names.DEFAULT_METHODS)})"
_GAMMAS = ", ".join(f"{' '.join(map(str, gammas))} ({solver})" for solver, gammas in names.GAMMAS.items())
GAMMA_HELP = (
    "the penalty γ, published: 0.5 (LeakyReLU), 0.1 (PReLU, 20 layers, noise), 1 (U-Net); if repeated, one after the "
    f"other is tried until an image comes back (default: {_GAMMAS})"
)
MASKS_HELP = (
    f"{', '.join(names.MASKS)}, or a file, FILE or NAME=FILE: an image (bright = kept) or .npy; may be repeated "
    "(default: these six)"
)
DIFFUSION_HELP = (
    "for --method ddnm: a folder with a diffusion model as diffusers' save_pretrained writes it, a UNet2DModel and its "
    "scheduler; should not have seen IMAGES"
)
DEGRADED_HELP = (
    "IMAGES and --controls are degraded, their originals unknown: which ones come back is told without them; "
    "--mask is the true mask, if it is known; otherwise the methods are accelerated (the default) and paper"
)


def audit(
    model: ModelName,
    images: Annotated[list[str], typer.Argument(help=MEMBERS_HELP)],
    out: Out,
    weights: Weights = None,
    arguments: Arguments = None,
    trust_model: Trust = False,
    pixel_range: PixelRange = None,
    mean: Mean = None,
    std: Std = None,
    channels: Channels = "rgb",
    output: OutputName = None,
    controls: Controls = None,
    limit: Limit = None,
    resize: ResizeTo = None,
    degraded: Annotated[bool, typer.Option("--degraded", rich_help_panel=IMAGES, help=DEGRADED_HELP)] = False,
    mask: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=IMAGES, autocompletion=completing(names.MASKS), help=MASKS_HELP),
    ] = None,
    noise_std: Annotated[
        float,
        typer.Option(
            rich_help_panel=IMAGES,
            help="standard deviation of the noise that is added; with --degraded, of that they carry",
        ),
    ] = 0.0,
    method: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=METHOD, autocompletion=completing(names.METHODS), help=METHODS_HELP),
    ] = None,
    gamma: Annotated[list[float] | None, typer.Option(rich_help_panel=METHOD, help=GAMMA_HELP)] = None,
    starts: Annotated[
        int,
        typer.Option(rich_help_panel=METHOD, help="initial masks that each γ is tried with, until an image comes back"),
    ] = names.STARTS,
    initial_mask: Annotated[
        str,
        typer.Option(
            rich_help_panel=METHOD,
            autocompletion=completing(names.INITIAL_MASKS),
            help=f"{' or '.join(names.INITIAL_MASKS)}; zeros for U-Nets",
        ),
    ] = names.INITIAL_MASKS[0],
    max_outer_iterations: Annotated[
        int, typer.Option(rich_help_panel=METHOD, help="at most so many for an image, γ and initial mask")
    ] = names.MAX_OUTER_ITERATIONS,
    diffusion: Annotated[Path | None, typer.Option(rich_help_panel=METHOD, help=DIFFUSION_HELP)] = None,
    seed: Annotated[
        int, typer.Option(rich_help_panel=METHOD, help="of random masks, noise and initial masks")
    ] = names.SEED,
    resume: Resume = False,
    keep_images: Annotated[
        str,
        typer.Option(
            rich_help_panel=RUN,
            help="keep estimates as arrays: all, or N: of each mask and method the N best and worst",
        ),
    ] = "0",
    save_every: Annotated[
        float | None,
        typer.Option(
            min=0,
            rich_help_panel=RUN,
            help="seconds between two writes of what was done: what a crash costs (default: 5)",
        ),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE,
            autocompletion=completing(names.PRECISIONS),
            help=f"of the forward passes of all but `iterate`: {', '.join(names.PRECISIONS)}",
        ),
    ] = names.PRECISIONS[0],
    slots: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=MACHINE,
            help="images worked on at a time; by default 64, on a GPU 4096, or as many as fit",
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            rich_help_panel=MACHINE, autocompletion=completing(names.BACKENDS), help=", ".join(names.BACKENDS)
        ),
    ] = "auto",
    workers: Workers = None,
    ray: RayAddress = None,
    parts: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MACHINE,
            help="where workers write: a folder that all see, or an address such as s3://bucket/folder",
        ),
    ] = None,
) -> None:
    """Find out which of IMAGES can be recovered from MODEL; writes records, a summary and a report to a folder.

    The same command continues a run that was interrupted.
    """
    console = Console()
    with contextlib.ExitStack() as opened:
        with checking():
            import torch

            from memrecon_fast.audit import cluster
            from memrecon_fast.audit.plan import ALL_IMAGES, DEGRADED_MASK, Audit
            from memrecon_fast.audit.progress import Output
            from memrecon_fast.audit.session import Means, begin
            from memrecon_fast.audit.store.manifest import read_description
            from memrecon_fast.audit.store.opening import check_run_folder
            from memrecon_fast.audit.worker import SECONDS_BETWEEN_PARTS
            from memrecon_fast.common.checks import check_number
            from memrecon_fast.degradation import MASKS
            from memrecon_fast.engine.stated import stated_shape
            from memrecon_fast.images.masks import open_masks
            from memrecon_fast.methods import DEFAULT_METHODS, NEEDS_DIFFUSION, find, registered
            from memrecon_fast.settings import Settings

            # settings that have no option are those that the run was begun with, maybe by an earlier version
            begun = read_description(out)["plan"]["settings"] if check_run_folder(out, resume) else Settings().to_dict()
            named = {
                "gamma": _one_or_several(gamma),
                "starts": starts,
                "seed": seed,
                "initial_mask": initial_mask,
                "max_outer_iterations": max_outer_iterations,
                "precision": precision,
            }
            settings = Settings.from_dict(begun | named)
            for name in method or ():  # checked before all images are read, which may take long
                find(name)
            methods = _methods_of_degraded(method, mask, resize) if degraded else tuple(method or DEFAULT_METHODS)
            if "ddnm" in methods and diffusion is None:
                raise ValueError(NEEDS_DIFFUSION)
            if diffusion is not None:
                opened.enter_context(registered(_with_diffusion(diffusion, methods)))
            kept = ALL_IMAGES if keep_images == "all" else _whole("--keep-images", keep_images)
            size = size_of(resize)
            seconds = SECONDS_BETWEEN_PARTS if save_every is None else save_every
            check_number("--save-every", seconds, low=0)
            means = Means(workers, ray, parts, resume, seconds, Output(console, say))
            of_model = ModelOptions(weights, arguments, trust_model, pixel_range, mean, std, channels, output, device)
            loaded = of_model.open(model, in_workers=means.on_cluster)
            if means.on_cluster:
                opened.enter_context(cluster.connected(ray, workers))
                cluster.number_of_workers(workers, cluster.device_kind(device))
            sources = {"members": images} | ({"controls": controls} if controls else {})
            of_images = ImageOptions(stated_shape(loaded.autoencoder), size, limit, degraded)
            splits = open_splits(sources, of_images, console)
            shape = splits["members"].image_shape
            if degraded:
                known = list(open_masks(mask or (), shape, seed).values())
                masks = {DEGRADED_MASK: known[0] if known else torch.ones(shape, dtype=torch.bool)}
            else:
                masks = open_masks(mask or MASKS, shape, seed)
            plan = Audit(
                splits=splits,
                masks=masks,
                methods=methods,
                settings=settings,
                noise_std=noise_std,
                keep_images=kept,
                backend=backend,
                slots=slots,
                degraded=degraded,
            )
            session = opened.enter_context(begin(plan, loaded, out, means))
        with keeping_records(out, model):
            path = session.work().report
    typer.echo(f"The report: {escaped(str(path))}")


def _methods_of_degraded(methods: list[str] | None, masks: list[str] | None, resize: str | None) -> tuple[str, ...]:
    """Of an audit of degraded images. Raises ValueError for what cannot be done without their originals."""
    from memrecon_fast.methods import METHODS

    if resize is not None:
        raise ValueError("--degraded takes images as they are, without --resize")
    if len(masks or ()) > 1:
        raise ValueError("--degraded takes one --mask, the known one, or none")
    needed = "given" if masks else "estimated"
    allowed = tuple(name for name, method in METHODS.items() if method.scored and method.mask == needed)
    wrong = [method for method in methods or () if method not in allowed]
    if wrong:
        when = "with the known --mask" if masks else "without the known --mask"
        raise ValueError(f"--degraded {when} cannot do --method {wrong[0]}; expected {' or '.join(allowed)}")
    return tuple(methods or allowed[:1])


def _with_diffusion(folder: Path, methods: tuple[str, ...]) -> Method:
    from memrecon_fast.baselines.diffusion_files import open_diffusion
    from memrecon_fast.methods import ddnm

    if "ddnm" not in methods:
        raise ValueError(f"--diffusion is for --method ddnm; the methods are {', '.join(methods)}")
    return ddnm(open_diffusion(folder))


def _one_or_several(numbers: list[float] | None) -> float | tuple[float, ...] | None:
    """As `Settings.gamma` is given."""
    if not numbers:
        return None
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _whole(option: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{option} must be all or a number of images, not {text!r}")
    return int(text)
