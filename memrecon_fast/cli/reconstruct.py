"""`memrecon reconstruct`: the training inputs of a model, from its parameters alone."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from memrecon_fast.cli.lines import checking, keeping_records, refuse, say, saying_warnings
from memrecon_fast.cli.names import completing
from memrecon_fast.cli.opening import ImageOptions, json_object, numbers, open_splits, shape_of, size_of
from memrecon_fast.cli.options import IMAGES, METHOD, MODEL, RUN, Arguments, Mean, ResizeTo, Resume, Std, Weights
from memrecon_fast.cli.texts import IMAGES_HELP
from memrecon_fast.common.text import escaped
from memrecon_fast.common.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from memrecon_fast.reconstruction import Scaling, Search, Target, Truth

MODEL_HELP = (
    "a .safetensors file that mf.reconstruction.save wrote: random features and what was fitted to them; or "
    "package.module:factory or file.py:factory, a net with a linear head, with --weights and --initial"
)
SCALING_HELP = (
    "how pictures became inputs: standardised (each less its own mean, over its own standard deviation) or pixels "
    "(less --mean, over --std, the same for all) (default: what the file says, or standardised; pixels for nets)"
)


def reconstruct(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
    out: Annotated[Path | None, typer.Option(rich_help_panel=RUN, help="folder for the run")] = None,
    weights: Weights = None,
    initial: Annotated[
        str | None, typer.Option(rich_help_panel=MODEL, help="for a net: its weights before training, likewise")
    ] = None,
    initial_seed: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=MODEL, help="instead: the seed of torch.manual_seed, after which the factory made the net"
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option(rich_help_panel=MODEL, help="of a net: its last linear layer, where it cannot be told")
    ] = None,
    bias_rate: Annotated[
        float,
        typer.Option(rich_help_panel=MODEL, help="of a net: the learning rate of its biases over that of its weights"),
    ] = 1.0,
    arguments: Arguments = None,
    images: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=METHOD, min=1, help="n, how many inputs there are (default: the fewest that explain it)"
        ),
    ] = None,
    truth: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=IMAGES, help=f"the training images, to compare with: {IMAGES_HELP}"),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=IMAGES,
            help="CHANNELSxHEIGHTxWIDTH of an input: needed for a net, else to show it as a picture",
        ),
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(rich_help_panel=IMAGES, autocompletion=completing(("standardised", "pixels")), help=SCALING_HELP),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    resize: ResizeTo = None,
    starts: Annotated[
        int, typer.Option(rich_help_panel=METHOD, min=1, help="random starts: what all of them find is to be believed")
    ] = 2,
    seed: Annotated[
        int, typer.Option(rich_help_panel=METHOD, help="of the first start; the others have those that follow")
    ] = 42,
    tolerance: Annotated[
        float, typer.Option(rich_help_panel=METHOD, help="‖r‖/‖θ‖ up to which θ counts as explained")
    ] = 1e-5,
    demo: Annotated[
        bool, typer.Option("--demo", rich_help_panel=RUN, help="of photographs, at three numbers of parameters")
    ] = False,
    resume: Resume = False,
) -> None:
    """Find the inputs that MODEL was trained on, from its parameters alone; writes them, a summary and a report.

    The same command continues a run that was interrupted: starts that were made are kept.
    """
    console = Console()
    with contextlib.ExitStack() as opened:
        with checking():
            from memrecon_fast.audit.progress import Output
            from memrecon_fast.reconstruction.results import ReconstructionSettings
            from memrecon_fast.reconstruction.search import Search
            from memrecon_fast.reconstruction.session import begin, check_run_folder

            if out is None:
                refuse("--out is missing: the folder for the run")
            if demo == (model is not None):
                refuse("give MODEL, or --demo" if model is None else "--demo makes its own models: give no MODEL")
            check_run_folder(out / "run" if demo else out, resume)
            if demo:
                search: Search = _demo(out, starts, seed)
                out = out / "run"
            else:
                assert model is not None
                given = _scaling(scaling, mean, std)
                compared = None if truth is None else _truth(truth, shape, resize, console)
                files = NetFiles(weights, initial, initial_seed, head, bias_rate, arguments)
                target = _open(model, files, shape, given, compared)
                settings = ReconstructionSettings(tolerance=tolerance)
                search = Search([target], images, settings, starts, seed, compared)
            session = opened.enter_context(begin(search, out, resume, Output(console, say)))
        with keeping_records(out, model or "of the demonstration"), one_thread():
            path = session.work().report
    typer.echo(f"The report: {escaped(str(path))}")


def _demo(out: Path, starts: int, seed: int) -> Search:
    from memrecon_fast.reconstruction.demo import make_demo

    out.mkdir(parents=True, exist_ok=True)
    return dataclasses.replace(make_demo(out), starts=starts, seed=seed)


def _scaling(name: str | None, mean: str | None, std: str | None) -> Scaling | None:
    """What was asked for; None: nothing was."""
    from memrecon_fast.reconstruction.pictures import PIXELS, STANDARDISED, Scaling

    if (mean is not None or std is not None) and name != PIXELS:
        raise ValueError(f"--mean and --std are for --scaling {PIXELS}; {STANDARDISED} takes those of each picture")
    if name is None:
        return None
    means = (0.0,) if mean is None else numbers("--mean", mean)
    deviations = tuple(1.0 for _ in means) if std is None else numbers("--std", std)
    return Scaling(name, means if len(means) == len(deviations) else means * len(deviations), deviations)


def _truth(names: list[str], shape: str | None, resize: str | None, console: Console) -> Truth:
    from memrecon_fast.reconstruction.search import Truth

    options = ImageOptions(None if shape is None else shape_of(shape), size_of(resize), None)
    images = open_splits({"images": names}, options, console)["images"]
    return Truth(", ".join(names), images.stack(), images.names)


@dataclasses.dataclass(frozen=True)
class NetFiles:
    """The options about a net, as they were written."""

    weights: str | None = None
    initial: str | None = None
    initial_seed: int | None = None
    head: str | None = None
    bias_rate: float = 1.0
    arguments: str | None = None


def _open(name: str, files: NetFiles, shape: str | None, scaling: Scaling | None, truth: Truth | None) -> Target:
    """The model; what is not said of its pictures is what the file says, or those to compare with are like."""
    from memrecon_fast.autoencoders.factories import is_factory
    from memrecon_fast.reconstruction.files import load
    from memrecon_fast.reconstruction.pictures import Scaling
    from memrecon_fast.reconstruction.search import Target, digest_of_tensors

    image_shape = None if shape is None else shape_of(shape)
    if image_shape is None and truth is not None:
        image_shape = (truth.pictures.shape[1], truth.pictures.shape[2], truth.pictures.shape[3])
    if is_factory(name):
        return _open_net(name, files, image_shape, scaling)
    if files != NetFiles():
        raise ValueError(
            f"--weights, --initial, --initial-seed, --head, --bias-rate and --arguments are for nets; {name} is a file"
        )
    opened = load(name)
    image_shape = opened.image_shape if shape is None and opened.image_shape else image_shape
    if image_shape is not None and math.prod(image_shape) != opened.model.d:
        raise ValueError(f"the inputs of {name} are of {opened.model.d} numbers, no pictures of {image_shape}")
    digest = digest_of_tensors(opened.model.weights[:], opened.theta)
    return Target(name, opened.model, opened.theta, digest, image_shape, scaling or opened.scaling or Scaling())


def _open_net(name: str, files: NetFiles, image_shape: tuple[int, int, int] | None, scaling: Scaling | None) -> Target:
    """A net of the user's own, before and after training."""
    import torch
    from torch import nn

    from memrecon_fast.autoencoders.factories import call_factory
    from memrecon_fast.reconstruction import from_states, initial_state
    from memrecon_fast.reconstruction.pictures import PIXELS, Scaling
    from memrecon_fast.reconstruction.search import Target, digest_of_tensors

    if files.weights is None:
        raise ValueError(f"{name} is a net: give --weights, what it was after training")
    if (files.initial is None) == (files.initial_seed is None):
        raise ValueError(f"{name} is a net: give --initial, its weights before training, or --initial-seed")
    given = {} if files.arguments is None else json_object("--arguments", files.arguments)

    def make() -> nn.Module:
        made = call_factory(name, given)
        if not isinstance(made, nn.Module):
            raise TypeError(f"{name} must make a torch.nn.Module, not {type(made).__name__}")
        return made

    net = make()
    trained = _state(net, files.weights, name)
    if files.initial is not None:
        initial = _state(net, files.initial, name)
    else:
        assert files.initial_seed is not None
        initial = initial_state(make, files.initial_seed)
    if image_shape is None:
        raise ValueError(f"{name} does not say which shape its inputs have: give --shape, for instance 3x64x64")
    model, theta = from_states(net, trained, initial, image_shape, files.head, files.bias_rate)
    said = [torch.tensor(files.bias_rate)] if files.bias_rate != 1 else []
    digest = digest_of_tensors(theta, *trained.values(), *initial.values(), *said)
    return Target(name, model, theta, digest, image_shape, scaling or Scaling(PIXELS))


def _state(net: nn.Module, file: str, name: str) -> dict[str, Tensor]:
    """The weights in a file, by the names of the net."""
    from memrecon_fast.autoencoders.weights import load_weights

    filled = copy.deepcopy(net)
    with saying_warnings():
        load_weights(filled, file, name)
    return filled.state_dict()
