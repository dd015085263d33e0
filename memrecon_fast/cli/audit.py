"""`memrecon audit`: which images can be recovered from a model."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from rich.console import Console

from memrecon_fast.cli.lines import checking, keeping_records, say, saying_warnings
from memrecon_fast.cli.texts import (
    ARGUMENTS_HELP,
    CHANNELS_HELP,
    DEVICE_HELP,
    IMAGES_HELP,
    MEAN_HELP,
    MODEL_HELP,
    OUTPUT_HELP,
    PIXEL_RANGE_HELP,
    STD_HELP,
    TRUST_HELP,
    WEIGHTS_HELP,
)
from memrecon_fast.common.checks import check_number
from memrecon_fast.common.text import escaped
from memrecon_fast.degradation import MASKS
from memrecon_fast.methods import DEFAULT_METHODS, METHODS, find
from memrecon_fast.ops import BACKENDS
from memrecon_fast.settings import INITIAL_MASKS, PRECISIONS, SOLVERS, Settings

if TYPE_CHECKING:
    from rich.status import Status

    from memrecon_fast.images.scan import Images
    from memrecon_fast.images.source import Resize

METHODS_HELP = f"{', '.join(METHODS)}; may be repeated [default: {', '.join(DEFAULT_METHODS)}]"
_GAMMAS = ", ".join(f"{' '.join(map(str, one.gammas))} ({one.name})" for one in SOLVERS.values())
GAMMA_HELP = (
    "the penalty γ, published: 0.5 (LeakyReLU), 0.1 (PReLU, 20 layers, noise), 1 (U-Net); if repeated, one after the "
    f"other is tried until an image comes back [default: {_GAMMAS}]"
)
MASKS_HELP = f"{', '.join(MASKS)}, or a file: an image (bright = kept) or .npy; may be repeated [default: these six]"
DEGRADED_HELP = (
    "IMAGES and --controls are degraded, their originals unknown: which ones come back is told without them; "
    "--mask is the true mask, if it is known; otherwise the methods are accelerated (the default) and paper"
)
RESIZE_HELP = (
    "HEIGHTxWIDTH or HEIGHTxWIDTH:FILTER: images of another size are resized to this one, by lanczos, the default, "
    "bicubic, bilinear, hamming, box or nearest, as they were for training: with another filter little or nothing comes "
    "back accurately; without --resize they are left out"
)
DEFAULTS = Settings()


def audit(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    images: Annotated[list[str], typer.Argument(help=f"the members, which the model was trained on: {IMAGES_HELP}")],
    out: Annotated[Path, typer.Option(help="folder for the run")],
    controls: Annotated[
        list[str] | None, typer.Option(help="images that the model was not trained on; may be repeated")
    ] = None,
    mask: Annotated[list[str] | None, typer.Option(help=MASKS_HELP)] = None,
    method: Annotated[list[str] | None, typer.Option(help=METHODS_HELP)] = None,
    gamma: Annotated[list[float] | None, typer.Option(help=GAMMA_HELP)] = None,
    starts: Annotated[
        int, typer.Option(help="initial masks that each γ is tried with, until an image comes back")
    ] = DEFAULTS.starts,
    noise_std: Annotated[
        float, typer.Option(help="standard deviation of the noise that is added; with --degraded, of that they carry")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="of random masks, noise and initial masks")] = DEFAULTS.seed,
    initial_mask: Annotated[
        str, typer.Option(help=f"{' or '.join(INITIAL_MASKS)}; zeros for U-Nets")
    ] = DEFAULTS.initial_mask,
    max_outer_iterations: Annotated[
        int, typer.Option(help="at most so many for an image, γ and initial mask")
    ] = DEFAULTS.max_outer_iterations,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS_HELP)] = None,
    arguments: Annotated[str | None, typer.Option(help=ARGUMENTS_HELP)] = None,
    trust_model: Annotated[bool, typer.Option("--trust-model", help=TRUST_HELP)] = False,
    pixel_range: Annotated[str | None, typer.Option(help=PIXEL_RANGE_HELP)] = None,
    mean: Annotated[str | None, typer.Option(help=MEAN_HELP)] = None,
    std: Annotated[str | None, typer.Option(help=STD_HELP)] = None,
    channels: Annotated[str, typer.Option(help=CHANNELS_HELP)] = "rgb",
    output: Annotated[str | None, typer.Option(help=OUTPUT_HELP)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first so many members and controls")] = None,
    precision: Annotated[
        str, typer.Option(help=f"of the forward passes of all but `iterate`: {', '.join(PRECISIONS)}")
    ] = DEFAULTS.precision,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    slots: Annotated[
        int | None, typer.Option(help="images worked on at a time; by default 64, on a GPU 4096, or as many as fit")
    ] = None,
    backend: Annotated[str, typer.Option(help=", ".join(BACKENDS))] = "auto",
    resize: Annotated[str | None, typer.Option(help=RESIZE_HELP)] = None,
    keep_images: Annotated[
        str, typer.Option(help="keep estimates as arrays: all, or N: of each mask and method the N best and N worst")
    ] = "0",
    degraded: Annotated[bool, typer.Option("--degraded", help=DEGRADED_HELP)] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="there must be a run to continue; without this one is continued or begun")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="worker processes, on a Ray cluster of this machine [default: none, or all of --ray]"),
    ] = None,
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster to work on, for instance auto")] = None,
    parts: Annotated[
        str | None,
        typer.Option(help="where workers write: a folder that all see, or an address such as s3://bucket/folder"),
    ] = None,
    save_every: Annotated[
        float | None,
        typer.Option(min=0, help="seconds between two writes of what was done: what a crash costs [default: 5]"),
    ] = None,
) -> None:
    """Find out which of IMAGES can be recovered from MODEL; writes records, a summary and a report to a folder.

    The same command continues a run that was interrupted.
    """
    console = Console()
    with contextlib.ExitStack() as opened:
        with checking():
            from memrecon_fast.audit import cluster
            from memrecon_fast.audit.model import open_model
            from memrecon_fast.audit.plan import ALL_IMAGES, DEGRADED_MASK, Audit
            from memrecon_fast.audit.progress import Output
            from memrecon_fast.audit.session import Means, begin
            from memrecon_fast.audit.store.opening import check_run_folder
            from memrecon_fast.audit.worker import SECONDS_BETWEEN_PARTS
            from memrecon_fast.autoencoders import Adaptation
            from memrecon_fast.engine.stated import stated_shape
            from memrecon_fast.images.masks import open_masks

            settings = Settings(
                gamma=_one_or_several(gamma),
                starts=starts,
                seed=seed,
                initial_mask=initial_mask,
                max_outer_iterations=max_outer_iterations,
                precision=precision,
            )
            for name in method or ():  # checked before all images are read, which may take long
                find(name)
            methods = _methods_of_degraded(method, mask, resize) if degraded else tuple(method or DEFAULT_METHODS)
            kept = ALL_IMAGES if keep_images == "all" else _whole("--keep-images", keep_images)
            size = _size(resize)
            seconds = SECONDS_BETWEEN_PARTS if save_every is None else save_every
            check_number("--save-every", seconds, low=0)
            means = Means(workers, ray, parts, resume, seconds, Output(console, say))
            check_run_folder(out, resume)
            with saying_warnings():
                loaded = open_model(
                    model,
                    weights,
                    device,
                    arguments=None if arguments is None else _json_object("--arguments", arguments),
                    adaptation=Adaptation(
                        pixel_range=(0, 1) if pixel_range is None else _numbers("--pixel-range", pixel_range),
                        mean=None if mean is None else _numbers("--mean", mean),
                        std=None if std is None else _numbers("--std", std),
                        channels=channels,
                        output=output,
                    ),
                    trust_model=trust_model,
                    in_workers=means.on_cluster,
                )
            if means.on_cluster:
                opened.enter_context(cluster.connected(ray, workers))
                cluster.number_of_workers(workers, cluster.device_kind(device))
            sources = {"members": images} | ({"controls": controls} if controls else {})
            splits = _open_splits(sources, stated_shape(loaded.autoencoder), size, limit, degraded, console)
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


def _open_splits(
    sources: Mapping[str, Sequence[str]],
    shape: tuple[int, int, int] | None,
    size: Resize | None,
    limit: int | None,
    degraded: bool,
    console: Console,
) -> dict[str, Images]:
    """Members and controls, every image of which was read; says what was left out, and how many cannot be used. Raises
    ValueError where that is most of them: then the options are wrong, most likely."""
    from memrecon_fast.images.scan import open_images, typical_problem
    from memrecon_fast.images.sources import NOISY_PIXEL_RANGE, PIXEL_RANGE

    pixel_range = NOISY_PIXEL_RANGE if degraded else PIXEL_RANGE
    splits: dict[str, Images] = {}
    expecting = "as the model"
    for split, source in sources.items():
        with console.status(f"Reading the {split} …") as status:
            show = functools.partial(_show_count, status, split)
            try:
                splits[split] = images = open_images(source, shape, size, limit, show, expecting, pixel_range)
            except (ValueError, TypeError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"the {split}: {error}") from error
        for remark in images.remarks:
            say(f"the {split}: {remark}")
        if images.problems:
            what = f"{len(images.problems)} of {len(images)} {split} cannot be used"
            example = f"for instance {images.names[(at := typical_problem(images))]}: {images.problems[at]}"
            if 2 * len(images.problems) > len(images):
                raise ValueError(f"{what}, {example}")
            say(f"{what} and are left out, {example}")
        if shape is None:
            shape, expecting = images.image_shape, "as the members"
    return splits


def _methods_of_degraded(methods: list[str] | None, masks: list[str] | None, resize: str | None) -> tuple[str, ...]:
    """Of an audit of degraded images. Raises ValueError for what cannot be done without their originals."""
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


def _show_count(status: Status, split: str, count: int) -> None:
    if count % 100 == 0:
        status.update(f"Reading the {split} … {count}")


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """Of "0.485,0.456,0.406"."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{option} must be numbers with commas between, such as 0.5,0.5,0.5, not {text!r}") from error


def _json_object(option: str, text: str) -> dict[str, object]:
    wanted = f"""{option} must be a JSON object, such as '{{"width": 64}}', not {text[:60]!r}"""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{wanted}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(wanted)
    return content


def _size(text: str | None) -> Resize | None:
    """Of "HxW" or "HxW:FILTER"."""
    if text is None:
        return None
    from memrecon_fast.images.source import FILTERS, Resize

    size, colon, name = text.partition(":")
    height, _, width = size.partition("x")
    if colon and name not in FILTERS:
        raise ValueError(f"--resize knows no filter {name!r}; expected one of {', '.join(FILTERS)}")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"--resize must be HEIGHTxWIDTH, for instance 64x64, not {text!r}")
    return Resize(int(height), int(width), name or FILTERS[0])


def _one_or_several(numbers: list[float] | None) -> float | tuple[float, ...] | None:
    """As `Settings.gamma` is given."""
    if not numbers:
        return None
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _whole(option: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{option} must be all or a number of images, not {text!r}")
    return int(text)
