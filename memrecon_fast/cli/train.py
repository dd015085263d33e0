"""`memrecon train`: an autoencoder that reconstructs images to a target loss."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memrecon_fast.cli.lines import checking, say
from memrecon_fast.cli.names import ACTIVATIONS, DEVICES, OPTIMIZERS, PRESETS, completing
from memrecon_fast.cli.options import IMAGES, MACHINE, MODEL, RUN
from memrecon_fast.cli.texts import DEVICE_HELP, IMAGES_HELP

TRAINING = "Training"
"""Another group of options."""


def train(
    images: Annotated[list[str], typer.Argument(help=IMAGES_HELP)],
    out: Annotated[Path, typer.Option(rich_help_panel=RUN, help="the .safetensors file to write")],
    architecture: Annotated[
        str, typer.Option(rich_help_panel=MODEL, autocompletion=completing(PRESETS), help=", ".join(PRESETS))
    ] = PRESETS[0],
    activation: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MODEL,
            autocompletion=completing(ACTIVATIONS),
            help="leaky_relu, prelu or softplus (default: prelu for a U-Net, else leaky_relu)",
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(rich_help_panel=MODEL, help="hidden units, or channels of a U-Net at full resolution"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=IMAGES, help="only the first so many images")
    ] = None,
    target_loss: Annotated[
        float, typer.Option(rich_help_panel=TRAINING, help="mean squared error at which to stop")
    ] = 1e-8,
    optimizer: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TRAINING,
            autocompletion=completing(OPTIMIZERS),
            help="adam or soap (default: what suits the architecture, soap for a U-Net)",
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(rich_help_panel=TRAINING, help="at most this many steps (default: 4000; 3000 with soap)"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(rich_help_panel=TRAINING, help="images per step (default: all)")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(rich_help_panel=TRAINING, help="its peak (default: 1e-3; 3e-3 with soap)")
    ] = None,
    seed: Annotated[int, typer.Option(rich_help_panel=TRAINING, help="of the first weights and the batches")] = 42,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=RUN,
            help="folder for the state of the training, and for a model at each power of ten",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", rich_help_panel=RUN, help="go on from the state in --checkpoints")
    ] = False,
    device: Annotated[
        str, typer.Option(rich_help_panel=MACHINE, autocompletion=completing(DEVICES), help=DEVICE_HELP)
    ] = "auto",
) -> None:
    """Train an autoencoder until it reconstructs IMAGES to a target loss."""
    console = Console()
    with checking():
        from memrecon_fast import autoencoders
        from memrecon_fast.audit.model import find_device
        from memrecon_fast.images.scan import open_images

        _check_model_path(out)
        opened = open_images(images, limit=limit)
        for remark in opened.remarks:
            say(remark)
        pixels = opened.stack()
        model = autoencoders.build(architecture, opened.image_shape, activation=activation, width=width, seed=seed)
        model.to(find_device(device))
        result = autoencoders.train(
            model,
            pixels,
            target_loss,
            optimizer=optimizer,
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
    if not result.reached_target:
        say(
            "what a model has not learnt by heart does not come back accurately: more --max-steps, over which the "
            "learning rate falls, or a larger --width go further"
        )


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
