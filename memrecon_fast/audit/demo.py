"""The demonstration: a small autoencoder, trained on photographs until it knows them by heart, and its audit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from memrecon_fast import autoencoders, degradation
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.session import carry_out
from memrecon_fast.images.photographs import make_photographs
from memrecon_fast.images.scan import open_images

IMAGES = 30
SIZE = 16
WIDTH = 384
DEPTH = 6
TARGET_LOSS = 1e-9
MAX_STEPS = 3000
METHODS = ("accelerated", "paper", "iterate")


def run_demo(folder: Path, console: Console, images: int = IMAGES, max_steps: int = MAX_STEPS) -> Path:
    """Train on `images` photographs, audit them and as many controls; returns the path of the report.

    Leaves members, controls and model in the folder, so that the audit can be made again by hand, and the run in `run`.
    """
    with _one_thread():
        return _run_demo(folder, console, images, max_steps)


def _run_demo(folder: Path, console: Console, images: int, max_steps: int) -> Path:
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

    audit = Audit(
        splits={split: open_images(str(path)) for split, path in sources.items()},
        masks={name: degradation.make_mask(name, (3, SIZE, SIZE)) for name in degradation.MASKS},
        methods=METHODS,
    )
    console.print(
        f"Recovering them and {images} photographs that it has never seen, from copies under {len(audit.masks)} masks, "
        f"by {len(audit.methods)} methods …"
    )
    named = {split: str(path) for split, path in sources.items()}
    return carry_out(audit, model, folder / "run", model=str(model_path), sources=named, console=console)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """A net this small gains little from a second thread, and loses much where the other cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
