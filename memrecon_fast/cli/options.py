"""Arguments and options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memrecon_fast.cli.names import CHANNELS, DEVICES, completing
from memrecon_fast.cli.texts import (
    ARGUMENTS_HELP,
    CHANNELS_HELP,
    DEVICE_HELP,
    IMAGES_HELP,
    MEAN_HELP,
    MODEL_HELP,
    OUTPUT_HELP,
    PIXEL_RANGE_HELP,
    RESIZE_HELP,
    STD_HELP,
    TRUST_HELP,
    WEIGHTS_HELP,
)

MODEL, IMAGES, METHOD, RUN, MACHINE = "Model", "Images", "Method", "Run", "Machine"
"""The groups of options in help texts."""

ModelName = Annotated[str, typer.Argument(help=MODEL_HELP)]
Out = Annotated[Path, typer.Option(rich_help_panel=RUN, help="folder for the run")]
Controls = Annotated[
    list[str] | None,
    typer.Option(rich_help_panel=IMAGES, help="images that the model was not trained on; may be repeated"),
]
MEMBERS_HELP = f"the members, which the model was trained on: {IMAGES_HELP}"
Limit = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=IMAGES, help="only the first so many members and controls")
]
ResizeTo = Annotated[str | None, typer.Option(rich_help_panel=IMAGES, help=RESIZE_HELP)]

Weights = Annotated[str | None, typer.Option(rich_help_panel=MODEL, help=WEIGHTS_HELP)]
Arguments = Annotated[str | None, typer.Option(rich_help_panel=MODEL, help=ARGUMENTS_HELP)]
Trust = Annotated[bool, typer.Option("--trust-model", rich_help_panel=MODEL, help=TRUST_HELP)]
PixelRange = Annotated[str | None, typer.Option(rich_help_panel=MODEL, help=PIXEL_RANGE_HELP)]
Mean = Annotated[str | None, typer.Option(rich_help_panel=MODEL, help=MEAN_HELP)]
Std = Annotated[str | None, typer.Option(rich_help_panel=MODEL, help=STD_HELP)]
Channels = Annotated[str, typer.Option(rich_help_panel=MODEL, autocompletion=completing(CHANNELS), help=CHANNELS_HELP)]
OutputName = Annotated[str | None, typer.Option(rich_help_panel=MODEL, help=OUTPUT_HELP)]
Device = Annotated[str, typer.Option(rich_help_panel=MACHINE, autocompletion=completing(DEVICES), help=DEVICE_HELP)]

Resume = Annotated[
    bool,
    typer.Option(
        "--resume", rich_help_panel=RUN, help="there must be a run to continue; without this one is continued or begun"
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=MACHINE,
        help="worker processes, on a Ray cluster of this machine (default: none, or all of --ray)",
    ),
]
RayAddress = Annotated[
    str | None, typer.Option(rich_help_panel=MACHINE, help="address of a Ray cluster to work on, for instance auto")
]
