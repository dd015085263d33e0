"""What a command was given, opened: the model, members and controls."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from memrecon_fast.cli.lines import say, saying_warnings
from memrecon_fast.common.checks import suggestion

if TYPE_CHECKING:
    from rich.status import Status

    from memrecon_fast.audit.model import Model
    from memrecon_fast.images.scan import Images
    from memrecon_fast.images.source import Resize


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The options of a command about its model, as they were written."""

    weights: str | None
    arguments: str | None
    trust_model: bool
    pixel_range: str | None
    mean: str | None
    std: str | None
    channels: str
    output: str | None
    device: str

    def open(self, name: str, *, in_workers: bool) -> Model:
        """The model of this name; says what was done to its weights. Raises as `audit.open_model`, and ValueError for
        an option that cannot be read."""
        from memrecon_fast.audit.model import open_model
        from memrecon_fast.autoencoders import Adaptation

        with saying_warnings():
            return open_model(
                name,
                self.weights,
                self.device,
                arguments=None if self.arguments is None else json_object("--arguments", self.arguments),
                adaptation=Adaptation(
                    pixel_range=(0, 1) if self.pixel_range is None else numbers("--pixel-range", self.pixel_range),
                    mean=None if self.mean is None else numbers("--mean", self.mean),
                    std=None if self.std is None else numbers("--std", self.std),
                    channels=self.channels,
                    output=self.output,
                ),
                trust_model=self.trust_model,
                in_workers=in_workers,
            )


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """The options of a command about its images, and what is known of them.

    shape: (C, H, W), as the model states it; None where it does not. size: to which those of another size are resized.
    degraded: they may carry noise.
    """

    shape: tuple[int, int, int] | None
    size: Resize | None
    limit: int | None
    degraded: bool = False


def open_splits(sources: Mapping[str, Sequence[str]], options: ImageOptions, console: Console) -> dict[str, Images]:
    """Members and controls, every image of which was read; says what was left out, and how many cannot be used. Raises
    ValueError where that is most of them: then the options are wrong, most likely."""
    from memrecon_fast.images.scan import open_images, typical_problem
    from memrecon_fast.images.sources import NOISY_PIXEL_RANGE, PIXEL_RANGE

    pixel_range = NOISY_PIXEL_RANGE if options.degraded else PIXEL_RANGE
    splits: dict[str, Images] = {}
    shape, size, limit = options.shape, options.size, options.limit
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


def size_of(text: str | None) -> Resize | None:
    """Of "HxW" or "HxW:FILTER". Raises ValueError for anything else."""
    if text is None:
        return None
    from memrecon_fast.images.source import FILTERS, Resize

    size, colon, name = text.partition(":")
    height, _, width = size.partition("x")
    if colon and name not in FILTERS:
        raise ValueError(
            f"--resize knows no filter {name!r}; expected one of {', '.join(FILTERS)}{suggestion(name, FILTERS)}"
        )
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"--resize must be HEIGHTxWIDTH, for instance 64x64, not {text!r}")
    return Resize(int(height), int(width), name or FILTERS[0])


def _show_count(status: Status, split: str, count: int) -> None:
    if count % 100 == 0:
        status.update(f"Reading the {split} … {count}")


def shape_of(text: str) -> tuple[int, int, int]:
    """Of "CxHxW". Raises ValueError for anything else."""
    sides = text.split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) for side in sides):
        raise ValueError(f"--shape must be CHANNELSxHEIGHTxWIDTH, for instance 3x64x64, not {text!r}")
    return (int(sides[0]), int(sides[1]), int(sides[2]))


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Of "0.485,0.456,0.406"."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{option} must be numbers with commas between, such as 0.5,0.5,0.5, not {text!r}") from error


def json_object(option: str, text: str) -> dict[str, object]:
    """Of a JSON object. Raises ValueError for anything else."""
    wanted = f"""{option} must be a JSON object, such as '{{"width": 64}}', not {text[:60]!r}"""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{wanted}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(wanted)
    return content
