"""The experiments that answer questions which the paper leaves open run, and say what is true of small nets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memrecon_fast import experiments
from memrecon_fast.experiments.experiment import Outcome, Pictures, Row, Scale
from memrecon_fast.experiments.recovery import failures, near_duplicates, noise, set_size
from memrecon_fast.experiments.recovery.audits import OURS, Task
from memrecon_fast.experiments.recovery.near_copies import NEAR_COPIES
from memrecon_fast.experiments.recovery.small import ITERATED, small_net
from memrecon_fast.experiments.running import Part, Reproduction, make_plan, reproduce
from memrecon_fast.results import Recovery, Status

NET = small_net(depth=4, width=96, side=8, max_outer_iterations=10, training={"max_steps": 1500})


def made(name: str, folder: Path, **cells: Any) -> Reproduction:
    scale = Scale(cells, 0.1, pictures=Pictures(6, 6, 8))
    experiment = dataclasses.replace(experiments.find(name), scales={"small": scale})
    found = reproduce(make_plan(experiment), folder)
    assert (folder / f"{name}.png").stat().st_size > 5000
    assert (folder / f"{name}.csv").exists()
    return found


def of(rows: Sequence[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_near_copies() -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    made_of = {name: copy(images, 42) for name, copy in NEAR_COPIES.items()}
    assert all(copies.shape == images.shape and copies.dtype == images.dtype for copies in made_of.values())
    assert all(copies.min() >= 0 and copies.max() <= 1 for copies in made_of.values())
    assert made_of["none"].equal(images)
    assert made_of["mirror"][0, 1, 2, 0] == images[0, 1, 2, 7]
    assert made_of["shift by a pixel"][0, 1, 2, 5] == images[0, 1, 2, 4]
    assert made_of["mean of two"][2].allclose((images[2] + images[0]) / 2)
    assert made_of["brightness -20 %"].allclose(0.8 * images)
    assert made_of["brightness +3 %"].max() == 1
    inside = (images > 0.1) & (images < 0.9)
    assert (made_of["noise 0.02"] - images)[inside].std() == pytest.approx(0.02, rel=0.1)  # of some 450 pixels
    assert 1e-4 < (made_of["JPEG, quality 50"] - images).square().mean() < 0.1  # noise, of which JPEG keeps little


def test_a_grey_image_goes_through_jpeg() -> None:
    image = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    assert (NEAR_COPIES["JPEG, quality 50"](image, 42) - image).abs().max() < 0.1


def test_near_duplicates(tmp_path: Path) -> None:
    """What was measured: a darker copy is nearly a fixed point of this net, and passes; a mirrored one is none."""
    copies = ("none", "brightness -20 %", "mirror")
    found = made("near-duplicates", tmp_path, fc={"net": NET, "copies": copies, "masks": ("center",)})
    for method in (OURS, "paper"):
        ends = {row["copy"]: row for row in of(found.rows, method=method)}
        assert ends["none"]["the member"] == 6
        assert ends["none"]["accurately"] > 0
        assert (ends["brightness -20 %"]["itself"], ends["brightness -20 %"]["the member"]) == (6, 0)
        assert ends["brightness -20 %"]["passes"] == 6
        assert ends["brightness -20 %"]["apart"] > 5e-4  # the threshold: they are no longer the same image
        for never_back in ("mirror", near_duplicates.OTHERS):
            assert ends[never_back]["itself"] == ends[never_back]["passes"] == 0
        assert all(sum(row[end] for end in near_duplicates.ENDS) == 6 for row in ends.values())


def test_noise(tmp_path: Path) -> None:
    net = dataclasses.replace(NET, gamma=0.1)
    found = made("noise", tmp_path, fc={"net": net, "sigmas": (0.0, 0.1), "masks": ("center",)})
    for method in (OURS, "paper"):
        rates = [row["accurate"] for row in of(found.rows, split="members", method=method)]
        after = [row["accurate"] for row in of(found.rows, split="members", method=f"{method}{ITERATED}")]
        assert rates[1] == 0  # an estimate is no better than its noise
        assert after[1] > 0  # which the autoencoder takes away
    assert {row["approximate"] for row in of(found.rows, split="controls")} == {0}
    (told,) = [row for row in found.tables["noise-accurate"].rows if row[:3] == ["members", "center", OURS]]
    without = of(found.rows, split="members", method=OURS, sigma=0.0)[0]["accurate"]
    assert told[3:] == [f"{100 * without:.3g}", "0", "0.050"]


@pytest.mark.parametrize(("rates", "largest"), [
    ([1, 0.9, 0.1, 0], 0.15),
    ([0.8, 0.4, 0.3, 0.3], 0.1),
    ([1, 0.9, 0.8, 0.7], float("inf")),
    ([0, 0, 0, 0], None),
])  # fmt: skip
def test_the_largest_tolerable_noise(rates: list[float], largest: float | None) -> None:
    assert noise.largest_tolerable([0, 0.1, 0.2, 0.4], rates) == pytest.approx(largest)


def test_initial_masks(tmp_path: Path) -> None:
    found = made("initial-masks", tmp_path, fc={"net": NET, "masks": ("random-80",)})
    assert all(row["approximate"] == 1 for row in of(found.rows, method=OURS))
    cost = {row["first"]: row["evaluations"] for row in of(found.rows, method="paper")}
    assert cost["the true mask"] < min(cost[first] for first in cost if first != "the true mask")
    seeds = [cost[f"random, seed {seed}"] for seed in (42, 43, 44)]
    assert len(set(seeds)) > 1


def test_kinds_of_nets(tmp_path: Path) -> None:
    task = Task((1e-5,), ("center",), (OURS,), controls=(OURS,))
    short = dataclasses.replace(NET, title="short", training={"max_steps": 330})
    cells = {name: {"net": net, "task": task} for name, net in (("fc-10", NET), ("fc-5", short))}
    found = made("nets", tmp_path, **cells)
    whole, early = [row for row in found.tables["nets"].rows if row[1] == OURS]
    assert str(whole[2]).endswith(" / 100")  # approximately, at 1e-5
    assert whole[3:5] == ["–", "–"]  # losses that were not asked for
    assert (early[0], early[2]) == ("short", "–")  # it did not come so far
    assert float(str(early[5])) > 1e-5
    assert (whole[6], early[6]) == ("0 of 6", "0 of 6")


def outcomes_of(law: Any) -> dict[str, Outcome]:
    """Of nets whose rates follow a law of (n, width, loss)."""
    rows = [
        {"split": "members", "n": n, "width": width, "n/width": n / width, "loss": loss, "level": loss,
         "accurate": law(n, width, loss), "approximate": 1.0}
        for n in (8, 16, 32) for width in (10, 20, 40) for loss in (1e-4, 1e-6)
    ]  # fmt: skip
    return {"all": Outcome(rows)}


def test_what_decides() -> None:
    rows = set_size.points(outcomes_of(lambda n, width, loss: 0.5 - 0.1 * np.log10(n / width)))
    assert len(rows) == 18
    share, (slope,) = set_size.explained(rows, "accurate", ("n/width",))
    assert share == pytest.approx(1)
    assert slope == pytest.approx(-0.1)
    share, slopes = set_size.explained(rows, "accurate", ("loss", "n", "width"))
    assert slopes == pytest.approx([0, -0.1, 0.1], abs=1e-9)
    assert set_size.explained(rows, "accurate", ("loss",))[0] == pytest.approx(0, abs=1e-9)
    assert np.isnan(set_size.explained(rows, "approximate", ("loss",))[0])


def test_set_size(tmp_path: Path) -> None:
    task = Task((1e-4,), ("center",), (OURS,), controls=(OURS,))
    cells = {f"part-{part}": {"net": NET, "part": part, "task": task} for part in (2, 1)}
    found = made("set-size", tmp_path, **cells)
    assert {(row["cell"], row["n"], row["n/width"]) for row in found.rows} == {
        ("part-2", 3, 3 / 96),
        ("part-1", 6, 6 / 96),
    }
    assert {row["images"] for row in of(found.rows, split="members", cell="part-2")} == {3}
    assert max(row["approximate"] for row in of(found.rows, split="controls")) == 0
    assert len(found.tables["set-size"].rows) == 2
    assert {row[2] for row in found.tables["set-size-law"].rows} == {"–"}  # of two nets nothing is told


def test_a_part_of_too_few() -> None:
    with pytest.raises(ValueError, match="--limit of set-size must be at least 8, not 7"):
        make_plan(experiments.find("set-size"), part=Part(limit=7))
    make_plan(experiments.find("set-size"), part=Part(limit=8))


def test_what_became_of_a_member() -> None:
    members = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1)) / 2
    members[3] = 1.0
    images = members.clone()
    images[0] += 1e-5
    images[1] = members[2]
    images[2] = 0.3 * members[0] + 0.7 * members[1]
    images[3] = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(2))
    one = torch.zeros(4)
    recovery: Any = {name.name: one for name in dataclasses.fields(Recovery)}
    about = {"images": images, "masks": images > 0, "status": one.to(torch.int8), "backend": "torch", "doubt": ""}

    def ends(**more: Any) -> list[str]:
        return failures.ends_of(Recovery(**{**recovery, **about, "execution": "eager", **more}), members)

    still = "a fixed point that is no member"
    assert ends() == ["accurate", "another member", "a mixture of members", still]
    assert ends(fixed_point_mse=one + 1e-3)[3] == "converged, no fixed point"
    assert ends(fixed_point_mse=one + 1e-3, status=(one + Status.STALLED).to(torch.int8))[3] == "not converged"
    assert ends(images=images + 0.01)[0] == "approximate"
    diverged: dict[str, Any] = {"images": images * float("nan"), "fixed_point_mse": one * float("nan")}
    assert ends(**diverged)[0] == "converged, no fixed point"
    rows = failures._rows(OURS, Recovery(**{**recovery, **about, "execution": "eager", **diverged}), members)
    assert [row["nearest"] for row in rows] == [None] * 4
    assert (
        failures._tables({"fc": Outcome([{"loss": 1e-4, "mask": "half", **row} for row in rows])})["failures"].rows[0][
            -1
        ]
        == 0
    )  # none went astray


def test_failures(tmp_path: Path) -> None:
    cell = {"net": NET, "levels": (1e-2, 1e-5), "masks": ("center", "random-80")}
    found = made("failures", tmp_path, fc=cell)
    assert len(found.rows) == 2 * 2 * 4 * 6  # levels, masks, methods, members
    high, low = sorted({row["loss"] for row in found.rows}, reverse=True)
    assert all(
        row["end"] in failures.BACK for method in failures.METHODS for row in of(found.rows, loss=low, method=method)
    )
    after = of(found.rows, loss=low, method=f"{OURS}{ITERATED}")
    assert any(row["end"] not in failures.BACK for row in after)  # not all members of this net are attractors
    assert not of(found.rows, loss=high, end="accurate")
    counts = [int(str(count)) for row in found.tables["failures"].rows for count in row[3:-1]]
    assert sum(counts) == len(found.rows)
    assert all((row["mse"] < 5e-4) == (row["end"] in failures.BACK) for row in found.rows)
