"""What trains, and what memorises: the measurements behind the presets, the initialisation and the polish.

    python -m benchmarks training                  all rows
    python -m benchmarks training fc-10 unet       these rows
    python -m benchmarks training --rows           the names of the rows
    python -m benchmarks training --quick          a tiny row, to see that it works

Every row trains on crops of scikit-image's photographs on one thread, and reports the train loss, the largest
|eigenvalue| of the Jacobian at four training images, and recovery rates: the paper's method, blind, at the published γ
and at others, against iterating the autoencoder. Rows are kept in benchmarks/results/training.json, and all of them
rendered to training.md.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import skimage.io
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.measuring import results_path, write_results
from benchmarks.registry import make_parser
from memrecon_fast.autoencoders import FullyConnected, UNet, evaluate, layers, recipes, train

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "ihc.png")


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement. `widths`: a U-Net; else fully connected. `network_gain`: None for torch's own initialisation."""

    name: str
    images: int = 30
    activation: str = "leaky_relu"
    depth: int = 10
    width: int = 384
    widths: tuple[int, ...] = ()
    skips: str = "none"
    network_gain: float | None = layers._NETWORK_GAIN
    steps: int = 3000
    learning_rate: float = 1e-3
    beta2: float = 0.99
    optimizer: str = "adam"
    polish: bool = False
    gammas: tuple[float, ...] = (0.5,)
    masks: tuple[str, ...] = ("center", "random-80")


_UNET = Row("unet", images=20, widths=(16, 32, 64, 128), steps=2000, learning_rate=2e-3, gammas=(1.0,))
_SOAP = dataclasses.replace(
    _UNET, name="unet-soap", activation="prelu", widths=(48, 96, 192), optimizer="soap", learning_rate=3e-3, steps=3000
)

ROWS = (
    Row("fc-6", depth=6),
    Row("fc-10"),
    Row("fc-10-adam-0.999", beta2=0.999),
    Row("fc-10-torch-init", network_gain=None),
    Row("fc-10-critical-init", network_gain=1.0),
    Row("fc-10-prelu", activation="prelu", gammas=(0.1, 0.5)),
    Row("fc-10-softplus", activation="softplus"),
    Row("fc-10-softplus-torch-init", activation="softplus", network_gain=None),
    Row("fc-20", depth=20, gammas=(0.1, 0.5)),
    Row("fc-20-adam-0.999", depth=20, beta2=0.999, gammas=(0.1, 0.5)),
    Row("fc-20-torch-init", depth=20, network_gain=None, gammas=(0.1, 0.5)),
    Row("fc-10-short", steps=600),
    Row("fc-10-short-polished", steps=600, polish=True),
    Row("fc-10-softplus-short-polished", activation="softplus", steps=600, polish=True),
    Row("fc-10-60-images", images=60, steps=2500),
    Row("fc-10-60-images-short-polished", images=60, steps=1000, polish=True),
    Row("fc-20-60-images", images=60, depth=20, steps=2500, gammas=(0.1, 0.5)),
    _UNET,
    dataclasses.replace(_UNET, name="unet-adam-0.999", beta2=0.999),
    dataclasses.replace(_UNET, name="unet-prelu", activation="prelu"),
    dataclasses.replace(_UNET, name="unet-softplus", activation="softplus"),
    dataclasses.replace(_UNET, name="unet-softplus-torch-init", activation="softplus", network_gain=None),
    _SOAP,
    dataclasses.replace(_SOAP, name="unet-soap-leaky", activation="leaky_relu"),
    dataclasses.replace(_SOAP, name="unet-soap-softplus", activation="softplus"),
    dataclasses.replace(_SOAP, name="unet-wide-adam", optimizer="adam", learning_rate=2e-3),
    dataclasses.replace(_UNET, name="unet-lower-skips", skips="lower"),
    dataclasses.replace(_UNET, name="unet-all-skips", skips="all"),
)

QUICK = Row("quick", images=3, depth=3, width=32, steps=100, masks=("center",))


def crops(count: int, side: int = 16, factor: int = 4) -> Tensor:
    """(count, 3, side, side): areas of six photographs in turn, `factor` times reduced; flat ones are left out."""
    folder, size, pools = Path(skimage.data.__file__).parent, side * factor, []
    for name in PHOTOGRAPHS:
        picture = skimage.io.imread(folder / name)[..., :3].astype(np.float32) / 255
        rows, columns = picture.shape[0] // size, picture.shape[1] // size
        blocks = picture[: rows * size, : columns * size].reshape(rows, side, factor, columns, side, factor, 3)
        tiles = blocks.mean((2, 5)).transpose(0, 2, 4, 1, 3).reshape(rows * columns, 3, side, side)
        vivid = tiles[tiles.std((2, 3)).mean(1) > 0.08]
        np.random.default_rng(0).shuffle(vivid)
        pools.append(vivid)
    longest = max(map(len, pools))
    return torch.from_numpy(np.stack([p[i] for i in range(longest) for p in pools if i < len(p)][:count]))


def largest_eigenvalues(model: nn.Module, images: Tensor) -> list[float]:
    """The largest |eigenvalue| of the Jacobian at each image; below 1 the image is an attractor."""

    def flat(image: Tensor) -> Tensor:
        output: Tensor = model(image.view(1, *images.shape[1:]))
        return output.flatten()

    jacobians = [torch.autograd.functional.jacobian(flat, image.flatten(), vectorize=True) for image in images]
    return [float(torch.linalg.eigvals(jacobian).abs().max()) for jacobian in jacobians]


def measure(row: Row) -> dict[str, Any]:
    """Train and recover as the row says."""
    pool = crops(2 * row.images)
    members, controls = pool[: row.images], pool[row.images :]
    model = _build(row, tuple(members.shape[1:]))
    with tempfile.TemporaryDirectory() as folder:
        recipes._ADAM_BETAS = (0.9, row.beta2)
        start, cpu = time.time(), time.process_time()
        result = train(
            model,
            members,
            1e-9,
            optimizer=row.optimizer,
            max_steps=row.steps,
            learning_rate=row.learning_rate,
            polish=row.polish,
            checkpoints=(1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8),
            checkpoint_folder=folder,
        )
        cpu = time.process_time() - cpu
        levels = {f"{level:g}": path.stat().st_mtime - start for level, path in result.checkpoints.items() if path}
    eigenvalues = largest_eigenvalues(model, members[:4])
    return {
        **dataclasses.asdict(row),
        "loss": result.loss,
        "steps_made": result.steps,
        "seconds": result.seconds,
        "cpu_seconds": cpu,
        "seconds_to_level": levels,
        "eigenvalues": eigenvalues,
        "controls_loss": evaluate(model, controls),
        "recovery": [_recovery(row, model, members, controls, mask) for mask in row.masks],
        "machine": f"{platform.machine()}, torch {torch.__version__}, 1 thread",
    }


def _build(row: Row, shape: tuple[int, ...]) -> FullyConnected | UNet:
    usual = layers._NETWORK_GAIN
    layers._NETWORK_GAIN = row.network_gain or usual
    model: FullyConnected | UNet
    if row.widths:
        model = UNet(shape, row.widths, row.activation, row.skips)
    else:
        model = FullyConnected(shape, row.width, row.depth, row.activation)
    layers._NETWORK_GAIN = usual
    if row.network_gain is None:
        torch.manual_seed(42)
        for layer in model.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                layer.reset_parameters()
    return model


def _recovery(row: Row, model: nn.Module, members: Tensor, controls: Tensor, mask_name: str) -> dict[str, Any]:
    mask = mf.degradation.make_mask(mask_name, members.shape[1:])
    rates: dict[str, Any] = {"mask": mask_name}
    for gamma in row.gammas:
        settings = mf.Settings(
            solver="paper",
            gamma=gamma,
            initial_mask="zeros" if row.widths else "random",
            max_outer_iterations=20 if row.widths else 60,
        )
        for split, images in (("members", members), ("controls", controls)):
            recovered = mf.recover(model, mf.degradation.erase(images, mask), settings=settings).images
            rates[f"{split} γ={gamma}"] = _rates(recovered, images)
    iterated = mf.iterate(model, mf.degradation.erase(members, mask), max_iterations=300 if row.widths else 1000)
    return rates | {"iterate": _rates(iterated.images, members)}


def _rates(recovered: Tensor, images: Tensor) -> list[float]:
    mse = mf.metrics.mse(recovered, images)
    return [float((mse < limit).float().mean()) for limit in (mf.metrics.ACCURATE_MSE, mf.metrics.APPROXIMATE_MSE)]


def render(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "# Training: what memorises",
        "",
        "Written by `python -m benchmarks training [row …]`; each row is made by its own name. Crops 16×16×3 of six of",
        "scikit-image's photographs, all images in each step, one thread: Adam (its β₂ is given), or SOAP with",
        "averaged weights (see `autoencoders/recipes.py`). Wall times",
        "are from a machine with other work; CPU times are steadier. λ: the eigenvalue of the Jacobian with the",
        "largest modulus, mean and maximum over four training images. Recovery: accurate / approximate rate, blind;",
        "the controls are as many images never seen. At most 60 outer iterations (U-Nets: 20), 1000 (300) of the",
        f"autoencoder alone. One seed. Machine: {rows[0]['machine']}.",
        "",
        "| row | net | activation | network gain at start | optimiser | images | steps | CPU s (wall) "
        "| wall s to levels | train loss | \\|λ\\| mean, max | mask: γ members (controls) …; iterate |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        net = f"U-Net {row['widths']}, skips {row['skips']}" if row["widths"] else f"{row['depth']} × {row['width']}"
        levels = ", ".join(f"{level}: {seconds:.0f}" for level, seconds in row["seconds_to_level"].items())
        lines.append(
            f"| {row['name']} | {net}{', polished' if row['polish'] else ''} | {row['activation']} "
            f"| {row['network_gain'] or 'torch default'} | {_optimizer(row)} | {row['images']} | {row['steps_made']} "
            f"| {row['cpu_seconds']:.0f} ({row['seconds']:.0f}) | {levels} | {row['loss']:.1e} "
            f"| {np.mean(row['eigenvalues']):.2f}, {max(row['eigenvalues']):.2f} "
            f"| {'<br>'.join(map(_describe, row['recovery']))} |"
        )
    return "\n".join(lines) + "\n"


def _optimizer(row: dict[str, Any]) -> str:
    return f"Adam, {row['beta2']}" if row.get("optimizer", "adam") == "adam" else "SOAP"


def _describe(rates: dict[str, Any]) -> str:
    def pair(values: list[float]) -> str:
        return "/".join(f"{value:.2f}" for value in values)

    gammas = [key.removeprefix("members ") for key in rates if key.startswith("members")]
    methods = [f"{g} {pair(rates[f'members {g}'])} ({pair(rates[f'controls {g}'])})" for g in gammas]
    return f"{rates['mask']}: {', '.join(methods)}; {pair(rates['iterate'])}"


def main(arguments: Sequence[str]) -> None:
    """Measure the rows that are asked for."""
    parser = make_parser("training", __doc__)
    parser.add_argument("names", nargs="*", help="of rows; all where there are none")
    parser.add_argument("--rows", action="store_true", help="list the rows")
    parser.add_argument("--quick", action="store_true", help="a tiny row alone, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results/training without it")
    options = parser.parse_args(arguments)
    known = {row.name: row for row in ((QUICK,) if options.quick else ROWS)}
    if unknown := set(options.names) - set(known):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if options.rows:
        print("\n".join(known))
        return
    torch.set_num_threads(1)
    out = results_path("training", options.out, options.quick)
    path = out.with_name(f"{out.name}.json")
    for name in options.names or known:
        done = {row["name"]: row for row in json.loads(path.read_text())} if path.exists() else {}
        done[name] = measure(known[name])
        ordered = [done[row] for row in known if row in done]
        write_results(out, ordered, render(ordered))
        print(name, f"{done[name]['loss']:.1e}", *map(_describe, done[name]["recovery"]), flush=True)
