"""The command `memrecon`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import torch

import memrecon_fast
from memrecon_fast.autoencoders import PRESETS
from memrecon_fast.degradation import MASKS
from memrecon_fast.ops import BACKENDS
from memrecon_fast.settings import INITIAL_MASKS, PRECISIONS, Settings

try:
    import typer
    from rich.console import Console
except ImportError as missing:
    print(f"memrecon: needs {missing.name}; pip install 'memrecon-fast[audit]'", file=sys.stderr)
    raise SystemExit(2) from missing

EXTRAS = ("PIL", "jinja2", "matplotlib", "pyarrow", "safetensors", "skimage")
METHODS_HELP = "paper, known-mask or iterate; may be repeated [default: all three]"
MASKS_HELP = f"{', '.join(MASKS)}, or a file: an image (bright = kept) or .npy; may be repeated [default: these six]"
DEVICE_HELP = "auto (a GPU, if there is one), cpu, cuda or cuda:N"
IMAGES_HELP = "a folder of image files, a .npy or .npz array, or torchvision:NAME:ROOT"
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
        from memrecon_fast.audit.run import make_run_folder

        run = out or _free_folder("memrecon-demo")
        make_run_folder(run)
    with _keeping_records(run):
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
        from memrecon_fast.audit.sources import open_images

        _check_model_path(out)
        opened = open_images(images)
        pixels = (opened.first(limit) if limit else opened).stack()
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
    gamma: Annotated[
        float, typer.Option(help="the penalty γ; published: 0.5 (LeakyReLU), 0.1 (PReLU, 20 layers, noise), 1 (U-Net)")
    ] = DEFAULTS.gamma,
    noise_std: Annotated[float, typer.Option(help="standard deviation of the noise on the degraded images")] = 0.0,
    seed: Annotated[int, typer.Option(help="of random masks, noise and initial masks")] = DEFAULTS.seed,
    initial_mask: Annotated[
        str, typer.Option(help=f"{' or '.join(INITIAL_MASKS)}; zeros for U-Nets")
    ] = DEFAULTS.initial_mask,
    max_outer_iterations: Annotated[
        int, typer.Option(help="at most so many outer iterations for an image")
    ] = DEFAULTS.max_outer_iterations,
    weights: Annotated[Path | None, typer.Option(help="for a factory: its weights, .safetensors")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first so many members and controls")] = None,
    precision: Annotated[
        str, typer.Option(help=f"of the forward passes of `paper` and `known-mask`: {', '.join(PRECISIONS)}")
    ] = DEFAULTS.precision,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    slots: Annotated[
        int | None, typer.Option(help="images worked on at a time; by default 64, on a GPU as many as fit")
    ] = None,
    backend: Annotated[str, typer.Option(help=", ".join(BACKENDS))] = "auto",
) -> None:
    """Find out which of IMAGES can be recovered from MODEL; writes records, a summary and a report to a folder."""
    with _checking():
        from memrecon_fast import autoencoders
        from memrecon_fast.audit.conduct import conduct, prepare
        from memrecon_fast.audit.masks import open_masks
        from memrecon_fast.audit.methods import METHODS
        from memrecon_fast.audit.run import Audit, make_run_folder
        from memrecon_fast.audit.sources import open_images

        settings = Settings(
            gamma=gamma,
            seed=seed,
            initial_mask=initial_mask,
            max_outer_iterations=max_outer_iterations,
            precision=precision,
        )
        autoencoder = autoencoders.load(model, weights, _device(device))
        sources = {"members": images} | ({} if controls is None else {"controls": controls})
        opened = {split: open_images(source) for split, source in sources.items()}
        plan = Audit(
            splits={split: images.first(limit) if limit else images for split, images in opened.items()},
            masks=open_masks(mask or MASKS, opened["members"].image_shape, seed),
            methods=tuple(method or METHODS),
            settings=settings,
            noise_std=noise_std,
            backend=backend,
            slots=slots,
        )
        solvers, remarks = prepare(plan, autoencoder)
        make_run_folder(out)
    for remark in remarks:
        _say(remark)
    with _keeping_records(out):
        path = conduct(plan, solvers, out, model, sources, Console())
    typer.echo(f"The report: {path}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="the folder of a run")]) -> None:
    """Make summary.json and report.html of RUN again, from its records."""
    with _checking():
        from memrecon_fast.audit.conduct import report as make_report

        path = make_report(run, Console())
    typer.echo(f"The report: {path}")


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


@contextlib.contextmanager
def _keeping_records(run: Path) -> Iterator[None]:
    """Whatever ends the work early, Ctrl-C or an error in the model, say where that is which was done."""
    try:
        yield
    except KeyboardInterrupt:
        _say(f"interrupted; {_kept(run)}")
        raise typer.Exit(130) from None
    except Exception as error:
        _say(f"{type(error).__name__}: {_first_line(error)}; {_kept(run)}")
        if _wants_traceback():
            raise
        raise typer.Exit(1) from error


def _kept(run: Path) -> str:
    if any(run.glob("records/*.parquet")):
        return f"the records so far are in {run / 'records'}; for a report of them: memrecon report {run}"
    return "no image was done"


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


if __name__ == "__main__":
    main()
