"""`memrecon demo`: a small autoencoder, trained on photographs until it knows them by heart, and its audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memrecon_fast.cli.lines import checking, keeping_records
from memrecon_fast.common.text import escaped
from memrecon_fast.common.threads import one_thread

IMAGES = 30
SIZE = 16
WIDTH = 384
DEPTH = 6
TARGET_LOSS = 1e-9
MAX_STEPS = 3000
METHODS = ("accelerated", "paper", "iterate")
STARTS = 128
"""Of the harvest."""


def demo(
    out: Annotated[Path | None, typer.Option(help="folder for the run (default: memrecon-demo)")] = None,
) -> None:
    """Train on photographs that come with scikit-image, audit, harvest from noise, write reports. Takes minutes."""
    with checking():
        from memrecon_fast.audit.store.folder import check_empty

        run = out or _free_folder("memrecon-demo")
        check_empty(run)
        run.mkdir(parents=True, exist_ok=True)
    with keeping_records(run / "run", "of the demonstration", resumable=False):
        path = run_demo(run, Console())
    typer.echo(f"The report: {escaped(str(path))}")


def run_demo(folder: Path, console: Console, images: int = IMAGES, max_steps: int = MAX_STEPS) -> Path:
    """Train on `images` photographs, audit them and as many controls; returns the path of the report.

    Leaves members, controls and model in the folder, so that the audit can be made again by hand, the run in `run`, and
    what came out of noise in `attractors`.
    """
    with one_thread():
        return _run_demo(folder, console, images, max_steps)


def _run_demo(folder: Path, console: Console, images: int, max_steps: int) -> Path:
    import numpy as np

    from memrecon_fast import audit, autoencoders, degradation
    from memrecon_fast.attractors import session
    from memrecon_fast.attractors.report.sentences import headlines
    from memrecon_fast.attractors.survey.plan import Survey
    from memrecon_fast.images.photographs import make_photographs
    from memrecon_fast.images.scan import open_images

    members, controls = make_photographs(images, images, SIZE)
    sources = {"members": folder / "members.npy", "controls": folder / "controls.npy"}
    for path, pixels in zip(sources.values(), (members, controls), strict=True):
        np.save(path, pixels.numpy())
    model = autoencoders.FullyConnected((3, SIZE, SIZE), WIDTH, DEPTH)
    console.print(f"Training an autoencoder of {DEPTH} layers on {images} photographs of {SIZE}×{SIZE} pixels …")
    result = autoencoders.train(model, members, TARGET_LOSS, max_steps=max_steps, progress=console.is_terminal)
    model_path = folder / "model.safetensors"
    autoencoders.save(model, model_path)
    console.print(f"  loss {result.loss:.1e} after {result.steps} steps, {result.seconds:.0f} s")

    splits = {split: open_images(path) for split, path in sources.items()}
    plan = audit.Audit(
        splits=splits,
        masks={name: degradation.make_mask(name, (3, SIZE, SIZE)) for name in degradation.MASKS},
        methods=METHODS,
    )
    console.print(
        f"Recovering them and {images} photographs that it has never seen, from copies under {len(plan.masks)} masks, "
        f"by {len(plan.methods)} methods …"
    )
    opened = audit.open_model(model_path, device="cpu")
    report = audit.run(plan, opened, folder / "run", progress=console).report
    survey = session.run(Survey(splits, harvest=STARTS), opened, folder / "attractors", progress=False)
    for emphasised, rest in headlines(survey.summary):
        console.print(f"{emphasised} {rest}", highlight=False)
    console.print(f"What came out of nothing, in pictures: {survey.report}", markup=False, highlight=False)
    return report


def _free_folder(name: str) -> Path:
    """A folder of this name, or this name and a number, that does not exist."""
    number = 1
    while (path := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return path
