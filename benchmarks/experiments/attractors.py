"""Do eigenvalues tell which images can be recovered? And do verdicts and harvests agree with iteration?

    OMP_NUM_THREADS=1 python -m benchmarks attractors        about half an hour on one core
    OMP_NUM_THREADS=1 python -m benchmarks attractors --unets        hours
    python -m benchmarks attractors --quick                  tiny, to see that it works

Trains nets on photographs of 16×16×3 and looks at each as its loss falls. Per net and loss:

- verdicts of `stability` against what they mean: whether each of three draws of noise of 1e-3 about the image iterates
  back to within 5e-4 of it. Marginal verdicts are left out;
- a harvest from 1,000 smooth starts: how many members, of those that are attractors, and how many controls it finds;
- for nets with 120 images, blind recovery of members under three masks by the accelerated solver and by iteration, and
  how well ρ, the residual, the distance to the fixed point and the basin tell beforehand which members come back
  (approximately): the area under the ROC curve, with a bootstrap interval of 95 % over the images. 0.5 tells nothing.

Writes benchmarks/results/attractors.json and .md, or attractors-unets.json and .md.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.measuring import results_path, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast import autoencoders, degradation, metrics
from memrecon_fast.attractors import Verdict
from memrecon_fast.images.photographs import make_photographs

DRAWS = 3
BOOTSTRAPS = 1000
FEWEST = 5
"""Of members that come back, and of those that do not: with fewer, there is nothing to tell apart."""


@dataclasses.dataclass(frozen=True)
class Net:
    """What is trained, on how many images, and for how many steps."""

    name: str
    images: int
    steps: int
    hard: bool
    """Whether there is room below the ceiling: then what comes back is predicted."""
    batch: int | None = None
    """Images of a step; None: all. U-Nets stop at 1e-4 with whole batches, and go on with small ones."""
    rate: float = 1e-3
    """Of Adam."""

    def build(self, size: int) -> nn.Module:
        """Not trained yet. The widths are this project's own."""
        shape = (3, size, size)
        kind, depth, width, activation = self.name.split()
        if kind == "U-Net":
            return autoencoders.UNet(shape, [int(one) for one in width.split("-")], activation)
        return autoencoders.FullyConnected(shape, int(width), int(depth), activation)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is looked at."""

    nets: tuple[Net, ...] = (
        Net("FC 6 384 leaky_relu", 30, 4000, hard=False),
        Net("FC 10 384 leaky_relu", 30, 4000, hard=False),
        Net("FC 10 384 softplus", 30, 4000, hard=False),
        Net("FC 6 384 leaky_relu", 120, 6000, hard=True),
        Net("FC 10 384 leaky_relu", 120, 6000, hard=True),
        Net("FC 10 512 prelu", 120, 6000, hard=True),
        Net("FC 20 384 leaky_relu", 30, 3000, hard=False),
    )
    size: int = 16
    losses: tuple[float, ...] = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
    masks: tuple[str, ...] = ("half", "random-80", "corner")
    starts: int = 1000
    sigmas: tuple[float, ...] | None = None
    """Of basins; None: all."""
    draws: int = 8
    """Of basins, at most."""
    iterations: int = 1000
    """Of basins, at most; of `returns` three times as many."""


UNETS = Task(
    nets=(Net("U-Net 3 24-48-192 prelu", 30, 100000, hard=True, batch=4, rate=2e-3),),
    starts=300,
    sigmas=(0.1, 0.2, 0.4, 0.8, 1.6),
    draws=3,
    iterations=300,
)
"""An application of a U-Net takes twenty times as long as one of a fully connected net: less is looked at."""
QUICK = Task(nets=(Net("FC 3 64 leaky_relu", 4, 300, hard=True),), size=8, losses=(3e-2,), masks=("half",), starts=20)


def trained(task: Task, net: Net, members: Tensor, folder: Path) -> Iterator[tuple[float, nn.Module]]:
    """The net at each loss that it reaches, with that loss; from the folder where it was trained before."""
    home = folder / f"{net.name} {net.images}".replace(" ", "-")
    if not (home / "done").exists():
        built = net.build(task.size)
        result = autoencoders.train(
            built,
            members,
            min(task.losses),
            optimizer="adam",
            max_steps=net.steps,
            batch_size=net.batch,
            learning_rate=net.rate,
            checkpoints=task.losses,
            checkpoint_folder=home,
        )
        print(f"{net.name}, {net.images} images: loss {result.loss:.1e} in {result.seconds:.0f} s", flush=True)
        if result.loss > min(task.losses):  # where it ended is a level, too
            autoencoders.save(built, home / f"loss-{result.loss:.0e}.safetensors")
        (home / "done").touch()
    for path in sorted(home.glob("loss-*.safetensors"), key=lambda path: -float(path.stem.removeprefix("loss-"))):
        model = autoencoders.load(path)
        assert isinstance(model, nn.Module)
        yield autoencoders.evaluate(model, members), model


def returns(task: Task, model: nn.Module, images: Tensor) -> Tensor:
    """bool (B,): noise of 1e-3 about the image iterates back to it, in each draw."""
    found = torch.ones(len(images), dtype=torch.bool)
    for draw in range(DRAWS):
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(draw))
        ends = mf.iterate(model, images + 1e-3 * noise, max_iterations=3 * task.iterations, tolerance=1e-13)
        found &= metrics.mse(ends.images, images) < metrics.APPROXIMATE_MSE
    return found


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> dict[str, float] | None:
    """The area under the ROC curve of scores (higher: positive), and its bootstrap interval; None where too few."""
    if min(positive.sum(), (~positive).sum()) < FEWEST:
        return None

    def area(chosen: NDArray[np.int64]) -> float:
        good, bad = scores[chosen][positive[chosen]], scores[chosen][~positive[chosen]]
        if not len(good) or not len(bad):
            return float("nan")
        return float(((good[:, None] > bad).mean() + (good[:, None] >= bad).mean()) / 2)

    random = np.random.default_rng(0)
    everything = np.arange(len(scores))
    drawn = [area(random.choice(everything, len(scores))) for _ in range(BOOTSTRAPS)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return {"auc": area(everything), "low": float(low), "high": float(high)}


def look(task: Task, net: Net, loss: float, model: nn.Module, members: Tensor, controls: Tensor) -> dict[str, Any]:
    """One row."""
    began = time.perf_counter()
    found = mf.attractors.stability(model, members)
    others = mf.attractors.stability(model, controls)
    back = returns(task, model, members)
    attractors = found.verdict == int(Verdict.ATTRACTOR)
    told = found.verdict != int(Verdict.MARGINAL)
    harvest = mf.attractors.harvest(model, members.shape[1:], starts=task.starts, members=members, controls=controls)
    stable = torch.as_tensor(harvest.verdict) == int(Verdict.ATTRACTOR)
    called = stable & (torch.as_tensor(harvest.nearest_mse) < metrics.APPROXIMATE_MSE)
    theirs = stable & (torch.as_tensor(harvest.nearest_control_mse) < metrics.APPROXIMATE_MSE)
    harvested = set(torch.as_tensor(harvest.nearest)[called].tolist())
    row: dict[str, Any] = {
        "net": net.name,
        "images": net.images,
        "loss": loss,
        "verdicts": {one.name: int((found.verdict == int(one)).sum()) for one in Verdict},
        "verdicts of controls": {one.name: int((others.verdict == int(one)).sum()) for one in Verdict},
        "agrees with iteration": int((attractors == back)[told].sum()),
        "told": int(told.sum()),
        "harvest": {
            "starts": int(harvest.starts),
            "attractors that are members": len(harvested),
            "of attractors among the members": int(attractors.sum()),
            "these that were found": int(sum(bool(attractors[i]) for i in harvested)),
            "attractors that are controls": int(theirs.sum()),
            "other attractors": int((stable & ~called).sum()),
            "evaluations": int(harvest.evaluations),
            "unseen share": float(harvest.unseen_share),
        },
    }
    if net.hard:
        row |= predict(task, model, members, found)
    row["seconds"] = round(time.perf_counter() - began, 1)
    print(row, flush=True)
    return row


def predict(task: Task, model: nn.Module, members: Tensor, found: mf.attractors.Stability) -> dict[str, Any]:
    """What comes back, and how well it is told beforehand."""
    basins = mf.attractors.basins(model, members, task.sigmas, draws=task.draws, max_iterations=task.iterations)
    tells = {
        "ρ": -found.spectra.radius.nan_to_num(torch.inf).double().numpy(),
        "residual": -found.residual_mse.double().numpy(),
        "distance": -found.fixed_points.distance_mse.double().numpy(),
        "basin": basins.size.numpy(),
    }
    methods: dict[str, Callable[..., mf.Recovery]] = {"accelerated": mf.recover, "iterate": mf.iterate}
    cells = []
    for mask in task.masks:
        degraded = degradation.erase(members, degradation.make_mask(mask, members.shape[1:]))
        for method, recover in methods.items():
            mse = metrics.mse(recover(model, degraded).images, members)
            came = (mse < metrics.APPROXIMATE_MSE).numpy()
            cells.append(
                {
                    "mask": mask,
                    "method": method,
                    "approximate": float(came.mean()),
                    "accurate": metrics.recovery_rate(mse, metrics.ACCURATE_MSE),
                    "auc": {name: auc(values, came) for name, values in tells.items()},
                }
            )
    return {"cells": cells}


def render(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The results as Markdown."""
    unets = all(row["net"].startswith("U-Net") for row in rows)
    lines = [
        f"# Attractors{' of U-Nets' if unets else ''}: verdicts, harvests, and whether they tell what can be recovered",
        "",
        f"Written by `OMP_NUM_THREADS=1 python -m benchmarks attractors{' --unets' if unets else ''}`, which says what "
        "is measured.",
        f"{about['processor']}, torch {about['torch']}, {about['date']}, commit {about['commit']}. One training each.",
        "",
        "## Verdicts and harvests",
        "",
        "*Verdicts*: attractors, marginal, repellers, no fixed point, unknown. *Agree*: with iteration, of those that",
        "are not marginal. *Harvest*: members found, of the members that are attractors, from so many starts;",
        "*controls* and *others*: attractors that are a control, or no member.",
        "",
        "| net | images | loss | verdicts | of controls | agree | harvest | controls | others | unseen share |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        verdicts, controls = ("/".join(map(str, row[key].values())) for key in ("verdicts", "verdicts of controls"))
        harvest = row["harvest"]
        lines.append(
            f"| {row['net']} | {row['images']} | {row['loss']:.1e} | {verdicts} | {controls} | "
            f"{row['agrees with iteration']} of {row['told']} | {harvest['these that were found']} of "
            f"{harvest['of attractors among the members']} from {harvest['starts']} | "
            f"{harvest['attractors that are controls']} | {harvest['other attractors']} | "
            f"{harvest['unseen share']:.3f} |"
        )
    lines += [
        "",
        "## Do they tell which members come back?",
        "",
        "The area under the ROC curve, with its interval, of members that come back approximately; – where fewer than "
        f"{FEWEST} do, or fewer than {FEWEST} do not.",
        "",
        "| net | images | loss | mask | method | come back | ρ | residual | distance | basin |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for cell in row.get("cells", ()):
            areas = [
                "–" if one is None else f"{one['auc']:.2f} ({one['low']:.2f}–{one['high']:.2f})"
                for one in cell["auc"].values()
            ]
            lines.append(
                f"| {row['net']} | {row['images']} | {row['loss']:.1e} | {cell['mask']} | {cell['method']} | "
                f"{cell['approximate']:.2f} | {' | '.join(areas)} |"
            )
    lines += ["", "Means over the cells with an area:", "", *(f"- {one}" for one in means(rows)), ""]
    return "\n".join(lines)


def means(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Of each kind of net, each method and each thing that may tell."""
    cells = [(row["net"].split()[0], cell) for row in rows for cell in row.get("cells", ())]
    for kind, method in dict.fromkeys((kind, cell["method"]) for kind, cell in cells):
        of_both = [cell["auc"] for other, cell in cells if (other, cell["method"]) == (kind, method)]
        for name in of_both[0]:
            areas = [one[name]["auc"] for one in of_both if one[name] is not None]
            if areas:
                spread = f"{min(areas):.2f} to {max(areas):.2f}"
                yield f"{kind}, {method}, {name}: {np.mean(areas):.2f} ({len(areas)} cells, {spread})"


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = make_parser("attractors", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--unets", action="store_true", help="U-Nets, which take hours, instead of the others")
    parser.add_argument(
        "--out", type=Path, help="results, without suffix [default: benchmarks/results/attractors, or attractors-unets]"
    )
    parser.add_argument("--nets", type=Path, help="a folder that keeps the trained nets, for a second run")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    about = where()
    task = QUICK if options.quick else UNETS if options.unets else Task()
    path = results_path("attractors-unets" if options.unets else "attractors", options.out, options.quick)
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-attractors-") as temporary:
        for net in task.nets:
            members, controls = make_photographs(net.images, net.images, task.size)
            for loss, model in trained(task, net, members, options.nets or Path(temporary)):
                rows.append(look(task, net, loss, model, members, controls))
                write_results(path, {"where": about, "rows": rows}, render(rows, about))
    print(render(rows, about))
