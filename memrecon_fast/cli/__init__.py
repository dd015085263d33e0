"""The command `memrecon`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import torch

import memrecon_fast
from memrecon_fast.autoencoders import PRESETS
from memrecon_fast.common.checks import check_choice, check_number
from memrecon_fast.common.errors import is_out_of_memory
from memrecon_fast.degradation import MASKS
from memrecon_fast.ops import BACKENDS
from memrecon_fast.settings import INITIAL_MASKS, PRECISIONS, SOLVERS, Settings

try:
    import typer
    from rich.console import Console
except ImportError as missing:
    print(f"memrecon: needs {missing.name}; pip install 'memrecon-fast[audit]'", file=sys.stderr)
    raise SystemExit(2) from missing

if TYPE_CHECKING:
    from rich.status import Status

    from memrecon_fast.images.scan import Images

EXTRAS = ("PIL", "filelock", "jinja2", "matplotlib", "pyarrow", "safetensors", "skimage")
METHODS_HELP = "accelerated, paper, known-mask or iterate; may be repeated [default: all four]"
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
DEVICE_HELP = "auto (a GPU, if there is one), cpu, cuda or cuda:N"
IMAGES_HELP = "a folder of image files, a .npy or .npz array, Parquet files, or torchvision:NAME:ROOT"
RESIZE_HELP = "HEIGHTxWIDTH: images of another size are resized to this one; without it they are left out"
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer has its own copy of click, or click's, by version
DEFAULTS = Settings()

app = typer.Typer(
    help="Which training images can be recovered from this autoencoder?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command: bad input is one line on stderr and exit code 2, an interruption exit code 130."""
    try:
        sys.exit(app(args=sys.argv[1:] or ["--help"], prog_name="memrecon", standalone_mode=False))
    except UsageError as error:
        _say(error.format_message())  # type: ignore[attr-defined]
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        _say("interrupted")
        sys.exit(130)
    except OSError as error:  # a full disk, say: nothing that was asked for wrongly, and no fault of the program
        _say(str(error))
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memrecon_fast {memrecon_fast.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Which training images can be recovered from this autoencoder?"""


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="folder for the run [default: memrecon-demo]")] = None,
) -> None:
    """Train on photographs that come with scikit-image, audit, print a table, write a report. Takes a few minutes."""
    with _checking():
        from memrecon_fast.audit.demo import run_demo
        from memrecon_fast.audit.store.folder import check_empty

        run = out or _free_folder("memrecon-demo")
        check_empty(run)
        run.mkdir(parents=True, exist_ok=True)
    with _keeping_records(run / "run", resumable=False):
        path = run_demo(run, Console())
    typer.echo(f"The report: {path}")


@app.command()
def train(
    images: Annotated[str, typer.Argument(help=IMAGES_HELP)],
    out: Annotated[Path, typer.Option(help="the .safetensors file to write")],
    architecture: Annotated[str, typer.Option(help=", ".join(PRESETS))] = PRESETS[0],
    activation: Annotated[str, typer.Option(help="leaky_relu, prelu or softplus")] = "leaky_relu",
    width: Annotated[int | None, typer.Option(help="hidden units, or channels of a U-Net at full resolution")] = None,
    target_loss: Annotated[float, typer.Option(help="mean squared error at which to stop")] = 1e-8,
    max_steps: Annotated[int, typer.Option(help="at most this many steps")] = 4000,
    batch_size: Annotated[int | None, typer.Option(help="images per step [default: all]")] = None,
    learning_rate: Annotated[float, typer.Option(help="its peak")] = 1e-3,
    seed: Annotated[int, typer.Option(help="of the first weights and the batches")] = 42,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first so many images")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="folder for the state of the training, and for a model at each power of ten")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the state in --checkpoints")] = False,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
) -> None:
    """Train an autoencoder until it reconstructs IMAGES to a target loss."""
    console = Console()
    with _checking():
        from memrecon_fast import autoencoders
        from memrecon_fast.images.scan import open_images

        _check_model_path(out)
        opened = open_images(images, limit=limit)
        pixels = opened.stack()
        model = autoencoders.build(architecture, opened.image_shape, activation=activation, width=width, seed=seed)
        model.to(_device(device))
        result = autoencoders.train(
            model,
            pixels,
            target_loss,
            max_steps=max_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            checkpoint_folder=checkpoints,
            resume=resume,
            progress=console.is_terminal,
        )
    autoencoders.save(model, out)
    reached = "reached" if result.reached_target else "did not reach"
    typer.echo(
        f"{out}: {reached} the target loss {target_loss:g} with {result.loss:.2e} on {len(pixels)} images, "
        f"{result.steps} steps, {result.seconds:.0f} s"
    )


@app.command()
def audit(
    model: Annotated[
        str, typer.Argument(help="a .safetensors file of `train`, a .pt2 file, or package.module:factory")
    ],
    images: Annotated[str, typer.Argument(help=f"the members, which the model was trained on: {IMAGES_HELP}")],
    out: Annotated[Path, typer.Option(help="folder for the run")],
    controls: Annotated[str | None, typer.Option(help="images that the model was not trained on")] = None,
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
    weights: Annotated[Path | None, typer.Option(help="for a factory: its weights, .safetensors")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first so many members and controls")] = None,
    precision: Annotated[
        str, typer.Option(help=f"of the forward passes of all but `iterate`: {', '.join(PRECISIONS)}")
    ] = DEFAULTS.precision,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    slots: Annotated[
        int | None, typer.Option(help="images worked on at a time; by default 64, on a GPU as many as fit")
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
        with _checking():
            from memrecon_fast import autoencoders
            from memrecon_fast.audit import cluster
            from memrecon_fast.audit.opening import check_run_folder, open_run
            from memrecon_fast.audit.plan import ALL_IMAGES, GIVEN, Audit, stated_shape
            from memrecon_fast.audit.session import conduct, conduct_on_cluster, prepare
            from memrecon_fast.audit.store.manifest import describe
            from memrecon_fast.audit.worker import SECONDS_BETWEEN_PARTS
            from memrecon_fast.images.masks import open_masks
            from memrecon_fast.methods import METHODS

            settings = Settings(
                gamma=_one_or_several(gamma),
                starts=starts,
                seed=seed,
                initial_mask=initial_mask,
                max_outer_iterations=max_outer_iterations,
                precision=precision,
            )
            for name in method or ():  # what is quickly told comes before all images are read
                check_choice("method", name, METHODS)
            methods = tuple(method or METHODS)
            if degraded:
                methods = _methods_of_degraded(method, mask, resize)
            kept = ALL_IMAGES if keep_images == "all" else _whole("--keep-images", keep_images)
            size = _size(resize)
            seconds = SECONDS_BETWEEN_PARTS if save_every is None else save_every
            check_number("--save-every", seconds, low=0)
            check_run_folder(out, resume)
            on_cluster = ray is not None or workers is not None
            place = torch.device("cpu") if on_cluster else _device(device)
            autoencoder = autoencoders.load(model, weights, place)
            kind = place.type
            if on_cluster:
                opened.enter_context(cluster.connected(ray, workers))
                kind = cluster.device_kind(device)
                crew = cluster.number_of_workers(workers, kind)
            sources = {"members": images} | ({} if controls is None else {"controls": controls})
            splits = _open_splits(sources, stated_shape(autoencoder), size, limit, degraded, console)
            shape = splits["members"].image_shape
            if degraded:
                known = list(open_masks(mask or (), shape, seed).values())
                masks = {GIVEN: known[0] if known else torch.ones(shape, dtype=torch.bool)}
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
            if parts is not None and "://" not in parts:
                parts = os.path.abspath(parts)
            description = describe(plan, autoencoder, kind, model, sources, parts)
            solvers, remarks = prepare(cluster.without_gpu(plan) if on_cluster else plan, autoencoder)
            run = opened.enter_context(open_run(plan, description, out, resume, _say))
            work = functools.partial(conduct, run, solvers, console, seconds)
            if on_cluster:
                load_model = functools.partial(autoencoders.load, model, weights)
                task = cluster.make_task(run, load_model, kind, seconds, 1 if ray else cluster.threads_of_each(crew))
                work = functools.partial(conduct_on_cluster, run, task, crew, console)
        for remark in remarks:
            _say(remark)
        with _keeping_records(out):
            path = work()
    typer.echo(f"The report: {path}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="the folder of a run")]) -> None:
    """Make summary.json and report.html of RUN again, from its records."""
    with _checking():
        from memrecon_fast.audit.session import report as make_report

        path = make_report(run, Console())
    typer.echo(f"The report: {path}")


def _open_splits(
    sources: Mapping[str, str],
    shape: tuple[int, int, int] | None,
    size: tuple[int, int] | None,
    limit: int | None,
    degraded: bool,
    console: Console,
) -> dict[str, Images]:
    """Members and controls, every image of which was read; says how many cannot be used. Raises ValueError where that
    is most of them: hardly what was meant."""
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
        if images.problems:
            what = f"{len(images.problems)} of {len(images)} {split} cannot be used"
            example = f"for instance {images.names[(at := typical_problem(images))]}: {images.problems[at]}"
            if 2 * len(images.problems) > len(images):
                raise ValueError(f"{what}, {example}")
            _say(f"{what} and are left out, {example}")
        if shape is None:
            shape, expecting = images.image_shape, "as the members"
    return splits


def _methods_of_degraded(methods: list[str] | None, masks: list[str] | None, resize: str | None) -> tuple[str, ...]:
    """Of an audit of degraded images. Raises ValueError for what cannot be done without their originals."""
    from memrecon_fast.methods import BLIND

    if resize is not None:
        raise ValueError("--degraded takes images as they are, without --resize")
    if len(masks or ()) > 1:
        raise ValueError("--degraded takes one --mask, the known one, or none")
    allowed = ("known-mask",) if masks else BLIND
    wrong = [method for method in methods or () if method not in allowed]
    if wrong:
        when = "with the known --mask" if masks else "without the known --mask"
        raise ValueError(f"--degraded {when} cannot do --method {wrong[0]}; expected {' or '.join(allowed)}")
    return tuple(methods or allowed[:1])


def _show_count(status: Status, split: str, count: int) -> None:
    if count % 100 == 0:
        status.update(f"Reading the {split} … {count}")


def _size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "HxW"."""
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"--resize must be HEIGHTxWIDTH, for instance 64x64, not {text!r}")
    return int(height), int(width)


def _one_or_several(numbers: list[float] | None) -> float | tuple[float, ...] | None:
    """As `Settings.gamma` is given."""
    if not numbers:
        return None
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _whole(option: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{option} must be all or a number of images, not {text!r}")
    return int(text)


def _device(name: str) -> torch.device:
    """Raises ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, not {name!r}") from error
    gpus = torch.cuda.device_count()
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= gpus):
        raise ValueError(f"--device {name} is not there: torch finds {gpus} GPU{'' if gpus == 1 else 's'}")
    return device


@contextlib.contextmanager
def _checking() -> Iterator[None]:
    """What is wrong with what the user gave becomes one line and exit code 2."""
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if missing:
        _refuse(f"needs {', '.join(missing)}; pip install 'memrecon-fast[audit]'")
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        if _wants_traceback():
            raise
        _refuse(str(error))
    except RuntimeError as error:
        if _wants_traceback() or not is_out_of_memory(error):
            raise
        _refuse(f"memory ran out before the work could begin: {_first_line(error)}")


@contextlib.contextmanager
def _keeping_records(run: Path, resumable: bool = True) -> Iterator[None]:
    """Whatever ends the work early, Ctrl-C or an error in the model, say where that is which was done.

    resumable: whether the same command continues the run.
    """
    try:
        yield
    except KeyboardInterrupt:
        _say(f"interrupted; {_kept(run, resumable)}")
        raise typer.Exit(130) from None
    except Exception as error:
        _say(f"{type(error).__name__}: {_first_line(error)}; {_kept(run, resumable)}")
        if _wants_traceback():
            raise
        raise typer.Exit(1) from error


def _kept(run: Path, resumable: bool) -> str:
    from memrecon_fast.audit import DESCRIPTION

    if not (run / DESCRIPTION).exists():
        return "no image was done"
    goes_on = "the same command goes on from there, " if resumable else ""
    return f"what was done is in {run}: {goes_on}memrecon report {run} shows it"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def _wants_traceback() -> bool:
    return os.environ.get("MEMRECON_TRACEBACK", "") not in ("", "0")


def _check_model_path(path: Path) -> None:
    """Raise ValueError where no model could be written, before the time of a training is spent."""
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise ValueError(f"--out must be a .safetensors file in a folder that exists, not {path}")
    if path.is_dir():
        raise ValueError(f"--out must be a file; {path} is a folder")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"--out: no file can be written in {path.parent}: {error.strerror}") from error


def _refuse(message: str) -> NoReturn:
    _say(message)
    raise typer.Exit(2)


def _say(message: str) -> None:
    """One line on stderr."""
    typer.echo(f"memrecon: {' '.join(message.split())}", err=True)


def _free_folder(name: str) -> Path:
    """A folder of this name, or this name and a number, that does not exist."""
    number = 1
    while (path := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path
