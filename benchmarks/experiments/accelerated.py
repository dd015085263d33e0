"""What the accelerated solver recovers, against the paper's method and without extrapolation: the evidence.

    python -m benchmarks accelerated                 all that is missing; about an hour on one core
    python -m benchmarks accelerated fc-prelu        the rows of this net
    python -m benchmarks accelerated --quick         a tiny net under two masks, to see that it works
    python -m benchmarks accelerated --render        accelerated.md and accelerated.png from the rows that there are

Trains each net on photographs, keeps it at several train losses, and recovers its members and as many controls under
six masks with every method below. Nothing is timed: applications of the autoencoder are counted, and machines that do
other work meanwhile do no harm. Rows are kept in benchmarks/results/accelerated/ as they are made, a file for each net.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.experiments.accelerated_report import render
from benchmarks.measuring import results_path, where
from benchmarks.registry import make_parser
from memrecon_fast import Settings, autoencoders, degradation, metrics
from memrecon_fast.images.photographs import make_photographs


@dataclasses.dataclass(frozen=True)
class Net:
    """What is trained. `widths`: a U-Net; else fully connected."""

    name: str
    activation: str
    images: int
    size: int
    levels: tuple[float, ...]
    depth: int = 8
    width: int = 320
    widths: tuple[int, ...] = ()
    skips: str = "none"
    steps: int = 4000
    learning_rate: float = 1e-3
    published_gamma: float = 0.5
    sweeps: bool = False
    """Whether memory, mask_period, settle and stall are varied too."""


_FC = Net("fc-lrelu", "leaky_relu", 40, 20, (1e-4, 1e-6, 1e-7, 1e-8), sweeps=True)
_UNET = Net(
    "unet-prelu",
    "prelu",
    20,
    16,
    (1e-4,),
    widths=(16, 32, 64, 128),
    steps=3000,
    learning_rate=2e-3,
    published_gamma=1.0,
)
NETS = (
    _FC,
    dataclasses.replace(_FC, name="fc-prelu", activation="prelu", published_gamma=0.1, sweeps=False),
    Net("fc20-lrelu", "leaky_relu", 60, 16, (1e-6, 1e-8), 20, 384, steps=3000, published_gamma=0.1, sweeps=True),
    _UNET,
    dataclasses.replace(_UNET, name="unet-softplus", activation="softplus"),
    dataclasses.replace(_UNET, name="unet-skips", activation="leaky_relu", skips="lower"),
)
QUICK = Net("tiny", "leaky_relu", 2, 8, (1e-1, 1e-2), depth=2, width=32, steps=300)
MASKS_OF_QUICK = ("center", "stripes")
GAMMAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
PUBLISHED = (0.1, 0.5, 1.0)
NOISE = 0.02
SCORED = (
    "accelerated",
    "accelerated, before",
    "accelerated, noise",
    "accelerated, noise, before",
    "accelerated, mask known",
    "paper, γ = 1",
)
"""Methods of which each image's errors and scores are kept."""
Row = dict[str, Any]
BEFORE: dict[str, Any] = {"patience": 3, "tolerance": 1e-9, "stall": 10, "settled_counts": 1}
"""How the accelerated solver stopped by default until 2026-11-29."""
_PAPER, _ACCELERATED = Settings(solver="paper"), Settings(solver="accelerated")


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to recover."""

    name: str
    settings: Settings
    known: bool = False
    noise_std: float = 0.0


def methods(net: Net, level: float) -> Iterator[Method]:
    """All that is tried on a net; some of it only on the one with the lowest loss."""
    lowest = level == min(net.levels)
    initial_mask = "zeros" if net.widths else "random"
    paper = dataclasses.replace(_PAPER, initial_mask=initial_mask)
    accelerated = dataclasses.replace(_ACCELERATED, initial_mask=initial_mask)

    def vary(settings: Settings, **changes: Any) -> Settings:
        return dataclasses.replace(settings, **changes)

    for gamma in PUBLISHED:
        yield Method(f"paper, γ = {gamma:g}", vary(paper, gamma=gamma))
    yield Method("accelerated", accelerated)
    yield Method("accelerated, before", vary(accelerated, **BEFORE))
    yield Method("accelerated, 3 starts", vary(accelerated, starts=3))
    for gamma in GAMMAS if lowest else (0.2,):
        yield Method(f"accelerated, γ = {gamma:g}", vary(accelerated, gamma=gamma))
        yield Method(f"state kept, γ = {gamma:g}", vary(accelerated, gamma=gamma, memory=0))
    yield Method("accelerated, known pixels not restored", vary(accelerated, restore_known_pixels=False))
    if not lowest:
        return
    yield Method("paper, mask known", vary(paper, gamma=net.published_gamma), known=True)
    yield Method("accelerated, mask known", accelerated, known=True)
    noisy: dict[str, Any] = {"restore_known_pixels": False}
    yield Method("paper, noise", vary(paper, gamma=0.1, **noisy), noise_std=NOISE)
    yield Method("accelerated, noise", vary(accelerated, **noisy), noise_std=NOISE)
    yield Method("accelerated, noise, before", vary(accelerated, **noisy, **BEFORE), noise_std=NOISE)
    yield Method("accelerated, γ = 0.1, noise", vary(accelerated, gamma=0.1, **noisy), noise_std=NOISE)
    if net.sweeps:
        for memory in (1, 2, 3, 8):
            yield Method(f"memory = {memory}, γ = 0.2", vary(accelerated, gamma=0.2, memory=memory))
        for period in (1, 2, 5, 10):
            yield Method(f"mask_period = {period}, γ = 0.2", vary(accelerated, gamma=0.2, mask_period=period))
        for settle in (0, 1, 4):
            yield Method(f"settle = {settle}, γ = 0.2", vary(accelerated, gamma=0.2, settle=settle))
        for counts in (1, 4):
            yield Method(f"settled_counts = {counts}", vary(accelerated, settled_counts=counts))
        for stall in (10, 32, 200):
            yield Method(f"stall = {stall}", vary(accelerated, stall=stall))
            yield Method(f"stall = {stall}, noise", vary(accelerated, stall=stall, **noisy), noise_std=NOISE)


def trained(net: Net, members: Tensor, folder: Path) -> dict[float, tuple[nn.Module, float]]:
    """The net as it was when it reached each level, with its loss; only the levels that it reached."""
    shape = tuple(members.shape[1:])
    model: nn.Module
    if net.widths:
        model = autoencoders.UNet(shape, net.widths, net.activation, skips=net.skips)
    else:
        model = autoencoders.FullyConnected(shape, net.width, net.depth, net.activation)
    result = autoencoders.train(
        model,
        members,
        min(net.levels) / 10,
        optimizer="adam",
        max_steps=net.steps,
        learning_rate=net.learning_rate,
        checkpoints=net.levels,
        checkpoint_folder=folder,
    )
    found = {}
    for level, path in result.checkpoints.items():
        assert path is not None
        at_level = autoencoders.load(path)
        assert isinstance(at_level, nn.Module)
        found[level] = (at_level, autoencoders.evaluate(at_level, members))
    return found


def measure(model: nn.Module, images: dict[str, Tensor], method: Method, masks: tuple[str, ...]) -> dict[str, Row]:
    """The cells of a method, by mask: members and controls. All go through the same slots."""
    cells = [(name, split) for name in masks for split in images]
    shape = images["members"].shape[1:]
    true_masks = {name: degradation.make_mask(name, shape) for name in masks}
    originals = torch.cat([images[split] for _, split in cells])
    degraded = torch.cat(
        [degradation.erase(images[split], true_masks[name], noise_std=method.noise_std) for name, split in cells]
    )
    known = torch.cat([true_masks[name].expand_as(images[split]) for name, split in cells]) if method.known else None
    result = mf.recover(model, degraded, known, settings=method.settings)
    rows: dict[str, Row] = {name: {} for name in masks}
    end = 0
    for name, split in cells:
        begin, end = end, end + len(images[split])
        rows[name][split] = _summary(result, originals, slice(begin, end), method)
    return rows


def _summary(result: mf.Recovery, originals: Tensor, part: slice, method: Method) -> Row:
    mse = metrics.mse(result.images[part], originals[part])
    accurate, approximate = mse < metrics.ACCURATE_MSE, mse < metrics.APPROXIMATE_MSE
    evaluations, status = result.evaluations[part], result.status[part]
    literal = result.outer_iterations[part] * 40 if method.settings.solver == "paper" else evaluations
    row = {
        "images": len(mse),
        "accurate": int(accurate.sum()),
        "approximate": int(approximate.sum()),
        "evaluations": _middle_and_mean(evaluations),
        "literal_evaluations": _middle_and_mean(literal),
        "literal_evaluations_of_accurate": sorted(literal[accurate].tolist()),
        "statuses": {one.name: int((status == one).sum()) for one in mf.Status},
        "attempts": result.attempts[part].float().mean().item(),
        "accepted": int(result.accepted[part].sum()),
        "rejected": int(result.rejected[part].sum()),
    }
    if method.name in SCORED:
        columns = {"mse": mse, "score": result.score[part]}
        row |= {name: _rounded(values) for name, values in columns.items()}
    return row


def _middle_and_mean(counts: Tensor) -> list[float]:
    return [counts.float().quantile(0.5).item(), counts.float().mean().item()]


def _rounded(values: Tensor) -> list[float | None]:
    return [float(f"{value:.3g}") if math.isfinite(value) else None for value in values.tolist()]


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, and render."""
    parser = make_parser("accelerated", __doc__)
    parser.add_argument("nets", nargs="*", help=", ".join(net.name for net in NETS))
    parser.add_argument("--quick", action="store_true", help="a tiny net, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="folder of the rows; benchmarks/results/accelerated without it")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    unknown = set(options.nets) - {net.name for net in NETS}
    if unknown:
        parser.error(f"no such net: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    out = results_path("accelerated", options.out, options.quick)
    if options.quick:
        run(QUICK, out, MASKS_OF_QUICK)
    elif not options.render:
        for net in NETS:
            if not options.nets or net.name in options.nets:
                run(net, out)
    render({path.stem: _read(path) for path in sorted(out.glob("*.json"))}, out)


def run(net: Net, out: Path, masks: tuple[str, ...] = degradation.MASKS) -> None:
    """All rows of a net that are not there yet, with these settings."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{net.name}.json"
    members, controls = make_photographs(net.images, net.images, net.size)
    with tempfile.TemporaryDirectory() as folder:
        for level, (model, loss) in trained(net, members, Path(folder)).items():
            for method in methods(net, level):
                keys = {mask: f"{level:g} | {method.name} | {mask}" for mask in masks}
                settings = method.settings.to_dict() | {"known": method.known, "noise_std": method.noise_std}
                rows = _read(path)["rows"]
                if all(key in rows and rows[key]["settings"] == settings for key in keys.values()):
                    continue
                about = {"net": net.name, "level": level, "loss": loss, "method": method.name, "settings": settings}
                about |= {"pixels": members[0].numel(), "commit": where()["commit"]}
                found = measure(model, {"members": members, "controls": controls}, method, masks)
                _add(path, {keys[mask]: about | {"mask": mask} | row for mask, row in found.items()})
                print(f"{net.name} at {loss:.1e}: {method.name}", flush=True)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"where": {}, "rows": {}}
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _add(path: Path, rows: dict[str, Row]) -> None:
    content = _read(path)
    content["where"] = where()
    content["rows"] |= rows
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content["rows"].items())
    path.write_text(f'{{"where": {json.dumps(content["where"])}, "rows": {{\n{lines}\n}}}}\n')
