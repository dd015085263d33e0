"""Renders what `accelerated.py` measured: accelerated.md and accelerated.png, beside the folder of the rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from memrecon_fast.metrics import APPROXIMATE_MSE
from memrecon_fast.results import RECOGNIZED_BELOW, noise_floor
from memrecon_fast.settings import SOLVERS

Row = dict[str, Any]
BASELINE = "paper, γ = 0.5"
OURS = "accelerated"
IN_PLOT = ("paper, γ = 0.5", "paper, γ = 0.1", "state kept, γ = 0.2", "accelerated, γ = 0.2", OURS)


def render(nets: dict[str, Any], folder: Path) -> None:
    """Write the tables and the plot."""
    rows = [row for net in nets.values() for row in net["rows"].values()]
    if not rows:
        return
    where = next(iter(nets.values()))["where"]
    out = folder.parent
    lines = [
        "# The accelerated solver: what it recovers",
        "",
        "Written by `python -m benchmarks accelerated`. Photographs (`make_photographs`): 40 of 20×20×3 (fc-*), 60 of",
        "16×16×3 (fc20), 20 of 16×16×3 (U-Nets), and as many controls. fc-*: 8 layers × 320; fc20: 20 × 384; U-Nets:",
        "16, 32, 64, 128 channels without skip connections (unet-skips: at the lower levels). One seed. Six masks,",
        "blind unless it says otherwise. Nothing is timed: *evaluations* are applications of the autoencoder to one",
        "image. For the paper's method they are counted as Algorithm 1 makes them, 40 in each outer iteration; this",
        "library computes fewer of them (in brackets), as it knows when they would repeat.",
        f"torch {where['torch']}, {where['date']}, commit {', '.join(sorted({row['commit'] for row in rows}))}.",
        "",
        *_criteria(rows),
        *_defaults(rows),
        *_portfolio(rows),
        *_recognition(rows),
        *_against_scores(rows),
        "## All methods",
        "",
        "Rates of members: accurate / approximate, mean over the masks; controls: approximate, of all masks together.",
        "`stall` counts estimates: with another `mask_period` an image is given up after other evaluations.",
        "",
    ]
    for (net, level), group in _grouped(rows, lambda row: (row["net"], row["level"])):
        lines += _table(net, level, group)
    (out / "accelerated.md").write_text("\n".join(lines) + "\n")
    _plot(rows, out / "accelerated.png")


def _criteria(rows: list[Row]) -> list[str]:
    """The accelerated solver as it is by default against the paper's method, cell by cell."""
    thresholds = {f"{row['settings']['recognized_below']:g}" for row in rows if row["method"] == OURS}
    lines = [
        "## Against the paper's method, cell by cell",
        "",
        f'Cells: net, train loss and mask. *Accelerated*: `Settings(solver="accelerated")`, γ of '
        f"{', '.join(f'{gamma:g}' for gamma in SOLVERS['accelerated'].gammas)} one after the other until an image is "
        f"recognised (score below {' or '.join(sorted(thresholds))}).",
        "",
        "| paper with | cells where it recovers something | accelerated at least as good | worse by | mean rate there: "
        "paper, accelerated | where the paper's is below 0.7: paper, accelerated | evaluations, median of medians: "
        "paper (computed), accelerated | controls: paper, accelerated |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cells = {(row["net"], row["level"], row["mask"], row["method"]): row for row in rows}
    for baseline in (f"paper, γ = {gamma}" for gamma in ("0.1", "0.5", "1")):
        for kind in ("accurate", "approximate"):
            pairs = [
                (row, cells[(key[0], key[1], key[2], OURS)])
                for key, row in cells.items()
                if key[3] == baseline and row["members"][kind] and (key[0], key[1], key[2], OURS) in cells
            ]
            if pairs:
                lines.append(_comparison(f"{baseline}, {kind}", pairs, kind))
    return [*lines, ""]


def _comparison(name: str, pairs: list[tuple[Row, Row]], kind: str) -> str:
    def rate(row: Row) -> float:
        return float(row["members"][kind]) / float(row["members"]["images"])

    def middle(values: Iterable[float]) -> str:
        return f"{np.median(list(values)):.0f}"

    def controls(side: int) -> int:
        return sum(int(pair[side]["controls"]["approximate"]) for pair in pairs)

    worse = [rate(theirs) - rate(ours) for theirs, ours in pairs if rate(ours) < rate(theirs)]
    low = [pair for pair in pairs if rate(pair[0]) < 0.7]
    means = [
        np.mean([rate(pair[side]) for pair in group]) if group else np.nan for group in (pairs, low) for side in (0, 1)
    ]
    worst = ", ".join(f"{by:.3f}" for by in sorted(worse)) or "–"
    return (
        f"| {name} | {len(pairs)} | {len(pairs) - len(worse)} | {worst} "
        f"| {means[0]:.3f}, {means[1]:.3f} | {len(low)} cells: {means[2]:.3f}, {means[3]:.3f} "
        f"| {middle(theirs['members']['literal_evaluations'][0] for theirs, _ in pairs)} "
        f"({middle(theirs['members']['evaluations'][0] for theirs, _ in pairs)}), "
        f"{middle(ours['members']['evaluations'][0] for _, ours in pairs)} "
        f"| {controls(0)}, {controls(1)} |"
    )


def _defaults(rows: list[Row]) -> list[str]:
    """What the rules of stopping save, and whether they lose anything: today's against those before."""
    lines = [
        "## Today's rules of stopping, and those before",
        "",
        "Before: `patience=3, tolerance=1e-9, stall=10, settled_counts=1`. Means over the masks;",
        "*worst*: the mask where the rate changed most to the worse.",
        "",
        "| net | train loss | noise | accurate: before, now, worst | approximate: before, now, worst | controls "
        "| evaluations of members: before, now | of controls: before, now |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (net, _), group in _grouped(rows, lambda row: (row["net"], row["level"])):
        for noise, name in (("–", OURS), ("0.02", f"{OURS}, noise")):
            sides = [[row for row in group if row["method"] == method] for method in (f"{name}, before", name)]
            if not all(sides):
                continue
            rates = []
            for kind in ("accurate", "approximate"):
                before, now = (
                    np.array([row["members"][kind] / row["members"]["images"] for row in side]) for side in sides
                )
                rates.append(f"{before.mean():.3f}, {now.mean():.3f}, {(now - before).min():+.3f}")
            back = sum(row["controls"]["approximate"] for row in sides[1])
            means = [
                [np.mean([row[split]["evaluations"][1] for row in side]) for side in sides]
                for split in ("members", "controls")
            ]
            cost = [f"{before:.1f}, {now:.1f} ({now / before:.2f})" for before, now in means]
            lines.append(
                f"| {net} | {group[0]['loss']:.1e} | {noise} | {' | '.join(rates)} | {back} | {' | '.join(cost)} |"
            )
    return [*lines, ""]


def _portfolio(rows: list[Row]) -> list[str]:
    """Several γ, and several initial masks, with the best estimate by score, against each γ alone."""
    singles = [f"accelerated, γ = {gamma:g}" for gamma in SOLVERS["accelerated"].gammas]
    lines = [
        "## Several γ, chosen by score, against one",
        "",
        "Over the masks of a net at its lowest train loss. *Cells at least as good*: as the best single γ there.",
        "",
        f"| net | rate | {' | '.join(singles)} | {OURS} | cells at least as good | worse by | with 3 starts |",
        f"|---|---|{'---|' * len(singles)}---|---|---|---|",
    ]
    for (net, _), group in _grouped(rows, lambda row: (row["net"], row["level"])):
        of_method = {
            method: {row["mask"]: row["members"] for row in some}
            for method, some in _grouped(group, lambda row: row["method"])
        }
        if not {OURS, *singles} <= of_method.keys():
            continue
        for kind in ("accurate", "approximate"):

            def rate(method: str, kind: str = kind, of_method: dict[str, dict[str, Row]] = of_method) -> Any:
                return np.array([one[kind] / one["images"] for one in of_method[method].values()])

            behind = np.max([rate(method) for method in singles], axis=0) - rate(OURS)
            lines.append(
                f"| {net} | {kind} | {' | '.join(f'{rate(method).mean():.3f}' for method in singles)} "
                f"| {rate(OURS).mean():.3f} | {(behind <= 0).sum()} of {len(behind)} "
                f"| {', '.join(f'{by:.3f}' for by in sorted(behind[behind > 0])) or '–'} "
                f"| {rate(f'{OURS}, 3 starts').mean():.3f} |"
            )
    return [*lines, ""]


def _against_scores(rows: list[Row]) -> list[str]:
    """Image by image: does the accelerated solver ever end at a higher score than the paper's method?"""
    theirs = "paper, γ = 1"
    lines = [
        f"## Scores, image by image, against {theirs}",
        "",
        "Members and controls of all masks; the score is the residual of the fixed point and the misfit. *Both*",
        "recognised: below 10⁻⁵, where no further γ is tried. The other images are in one of the next three columns;",
        "*lost* are those that only the paper's method recovers approximately.",
        "",
        "| net | train loss | images | both | accelerated lower | equal | the paper's lower | lost "
        "| the paper's / accelerated, median | diverged: paper, accelerated |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (net, _), group in _grouped(rows, lambda row: (row["net"], row["level"])):
        sides = [[row for row in group if row["method"] == method] for method in (theirs, OURS)]
        if not all(sides):
            continue
        before, now = (_of_all(side, "score") for side in sides)
        recovered = [_of_all(side, "mse") < APPROXIMATE_MSE for side in sides]
        others = ~((before < 1e-5) & (now < 1e-5))
        compared = others & np.isfinite(before) & np.isfinite(now)
        ratio = f"{np.median(before[compared] / now[compared]):.3g}" if compared.any() else "–"
        diverged = [
            sum(row[split]["statuses"]["DIVERGED"] for row in side for split in ("members", "controls"))
            for side in sides
        ]
        lines.append(
            f"| {net} | {group[0]['loss']:.1e} | {len(now)} | {(~others).sum()} | {(others & (now < before)).sum()} "
            f"| {(others & (now == before)).sum()} | {(others & (before < now)).sum()} "
            f"| {(recovered[0] & ~recovered[1]).sum()} | {ratio} | {diverged[0]}, {diverged[1]} |"
        )
    return [*lines, ""]


def _of_all(rows: list[Row], name: str) -> Any:
    """Of members and controls, row by row."""
    return np.concatenate([_column([row], split, name) for row in rows for split in ("members", "controls")])


def _recognition(rows: list[Row]) -> list[str]:
    """What the score tells without the original."""
    lines = [
        "## Recognised without the original",
        "",
        "The score is ‖f(x) − x‖²/d + ‖y − Hx‖²/d, of the estimate x and the estimated mask H (infinite where less",
        "than nine tenths of ‖y‖² are explained). *Recovered*: approximately, by the original. AUC: of recovered",
        "members against controls. *Agreement*, of members and controls, with the verdict by the original, at a",
        "threshold of 10⁻⁴ above what noise leaves: audits set it so, or lower where a control comes close.",
        "",
        "| net | train loss | method | recovered | their highest score | members not recovered | their lowest "
        "| controls | their lowest | AUC | agreement |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    scored = [row for row in rows if "mse" in row["members"]]
    for (net, _, method), group in _grouped(scored, lambda row: (row["net"], row["level"], row["method"])):
        mse, score = _column(group, "members", "mse"), _column(group, "members", "score")
        controls = _column(group, "controls", "score")
        recovered = mse < APPROXIMATE_MSE
        pixels = group[0]["pixels"]
        threshold = RECOGNIZED_BELOW + noise_floor(group[0]["settings"]["noise_std"], pixels, pixels)
        agree = np.concatenate([(score < threshold) == recovered, ~(controls < threshold)])
        auc = np.mean([np.mean(one < controls) for one in score[recovered]]) if recovered.any() else np.nan
        lines.append(
            f"| {net} | {group[0]['loss']:.1e} | {method} | {recovered.sum()} | {_extreme(score[recovered], np.max)} "
            f"| {(~recovered).sum()} | {_extreme(score[~recovered], np.min)} | {len(controls)} "
            f"| {_extreme(controls, np.min)} | {auc:.4f} | {agree.mean():.2%} |"
        )
    return [*lines, ""]


def _extreme(values: Any, which: Callable[[Any], float]) -> str:
    finite = values[np.isfinite(values)]
    return f"{which(finite):.1e}" if len(finite) else "–"


def _column(group: list[Row], split: str, name: str) -> Any:
    return np.array([np.inf if value is None else value for row in group for value in row[split][name]])


def _table(net: str, level: float, group: list[Row]) -> list[str]:
    masks = list(dict.fromkeys(row["mask"] for row in group))
    lines = [
        f"### {net}, train loss {group[0]['loss']:.1e}",
        "",
        f"| method | members | {' | '.join(masks)} | controls | evaluations, median (computed) | mean "
        "| of controls, mean | extrapolations accepted, rejected | diverged |",
        f"|---|---|{'---|' * len(masks)}---|---|---|---|---|---|",
    ]
    for method, of_method in _grouped(group, lambda row: row["method"]):
        by_mask = {row["mask"]: row for row in of_method}
        members, controls = ([row[split] for row in of_method] for split in ("members", "controls"))

        def mean(side: list[Row], name: str, at: int) -> float:
            return float(np.mean([one[name][at] for one in side]))

        rates = [_rates(by_mask[mask]["members"]) if mask in by_mask else "–" for mask in masks]
        total = {name: sum(one[name] for one in members) for name in ("images", "accurate", "approximate")}
        diverged = sum(one["statuses"]["DIVERGED"] for one in (*members, *controls))
        lines.append(
            f"| {method} | {_rates(total)} | {' | '.join(rates)} "
            f"| {sum(one['approximate'] for one in controls)} of {sum(one['images'] for one in controls)} "
            f"| {np.median([one['literal_evaluations'][0] for one in members]):.0f} "
            f"({np.median([one['evaluations'][0] for one in members]):.0f}) "
            f"| {mean(members, 'literal_evaluations', 1):.0f} | {mean(controls, 'literal_evaluations', 1):.0f} "
            f"| {sum(one['accepted'] for one in members)}, {sum(one['rejected'] for one in members)} | {diverged} |"
        )
    return [*lines, ""]


def _rates(counts: Row) -> str:
    return f"{counts['accurate'] / counts['images']:.2f}/{counts['approximate'] / counts['images']:.2f}"


def _grouped(rows: list[Row], key: Callable[[Row], Any]) -> Iterable[tuple[Any, list[Row]]]:
    """Groups of rows in the order of their first ones."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups.items()


def _plot(rows: list[Row], path: Path) -> None:
    """The share recovered accurately against the evaluations it took, of each net at the loss where that is most."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lowest = [
        max(groups, key=lambda group: sum(row["members"]["accurate"] for row in group))
        for _, by_level in _grouped(rows, lambda row: row["net"])
        for groups in [[group for _, group in _grouped(by_level, lambda row: row["level"])]]
    ]
    shown = [group for group in lowest if sum(row["members"]["accurate"] for row in group)]
    if not shown:
        return
    figure, axes = pyplot.subplots(1, len(shown), figsize=(4.2 * len(shown), 3.6), sharey=True, squeeze=False)
    for axis, group in zip(axes[0], shown, strict=True):
        for method, of_method in _grouped(group, lambda row: row["method"]):
            if method in IN_PLOT:
                members = [row["members"] for row in of_method]
                at = sorted(itertools.chain.from_iterable(one["literal_evaluations_of_accurate"] for one in members))
                share = np.arange(len(at) + 1) / sum(one["images"] for one in members)
                axis.step([0, *at, 10_000], [*share, share[-1]], where="post", label=method)
        axis.set(xscale="log", xlim=(15, 10_000), ylim=(0, 1), xlabel="evaluations of the autoencoder")
        axis.set_title(f"{group[0]['net']}, train loss {group[0]['loss']:.0e}", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("members recovered accurately, six masks")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncols=len(IN_PLOT), fontsize=9)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110)
