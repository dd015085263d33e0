"""What any implementation of the accelerated solver's operations must do to be exchangeable for its plain.py.

Tests to inherit, as those of against_plain.py; what is expected is always computed by plain.py on the CPU.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from memrecon_fast.ops import anderson
from memrecon_fast.ops.admm.plain import coefficients
from memrecon_fast.ops.anderson import AndersonState, plain
from memrecon_fast.results import RUNNING
from memrecon_fast.settings import PROGRESS
from tests.helpers.against_plain import GAMMAS, GUARD, SHAPES, STATUSES, Buffers, clone, guarded, state_of

ORDERS = {
    "measure": anderson.MEASURE,
    "estimate": anderson.ESTIMATE,
    "stop": anderson.STOP,
    "weigh": anderson.WEIGH,
    "mix": anderson.MIX,
}
NUMBERS_OF = {
    "estimate": ("estimate_mask",),
    "stop": ("tolerance", "patience", "stall", "settled_counts", "limit"),
    "weigh": ("settle",),
}
# Operations with their numbers.
MEASURE, MIX, WEIGH = ("measure",), ("mix",), ("weigh", 2)
ESTIMATE, ESTIMATE_MASK = ("estimate", False), ("estimate", True)
STOP = ("stop", 0.3, 3, 4, 2, 7)
OF_IMAGES: list[tuple[Any, ...]] = [MEASURE, ESTIMATE, ESTIMATE_MASK, MIX]
ALL: list[tuple[Any, ...]] = [*OF_IMAGES, WEIGH, STOP]
NUMBERS = torch.finfo(torch.float32)
SPECIAL = [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-45, -3e-40, NUMBERS.tiny, 3e38]
SPECIAL += [NUMBERS.max, -NUMBERS.max, 1.0, -0.5, 1e-3]


class AndersonAgainstPlain:
    """Tests of `ops` on `device`."""

    ops: ClassVar[Any]
    device: ClassVar[str]
    large_shapes: ClassVar[list[tuple[int, int]]] = []
    most_rows: ClassVar[int] = 10**9
    """In tests of combinations, each in a row: about so many, evenly chosen."""

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("operation", OF_IMAGES)
    def test_shapes(self, operation: tuple[Any, ...], shape: tuple[int, int]) -> None:
        rows, d = shape
        self.check(operation, random_buffers(rows, d, 1 + (rows + d) % 9))

    @pytest.mark.parametrize("operation", OF_IMAGES)
    def test_large_shapes(self, operation: tuple[Any, ...]) -> None:
        for rows, d in self.large_shapes:
            self.check(operation, random_buffers(rows, d, 4))

    @pytest.mark.parametrize("places", [*range(1, 10), 33])
    def test_every_place_and_number_of_evaluations(self, places: int) -> None:
        table = list(itertools.product(range(places), [*range(places), places, places + 3]))
        head, filled = zip(*table[:: -(-len(table) // self.most_rows)], strict=True)
        buffers = random_buffers(len(head), 37, places)
        buffers["head"], buffers["filled"] = (torch.tensor(side, dtype=torch.int32) for side in (head, filled))
        buffers["base"] = torch.where(torch.arange(len(head)) % 2 == 0, buffers["head"], buffers["base"])
        for operation in ALL:
            self.check(operation, buffers)

    @pytest.mark.parametrize("settle", [0, 1, 2**31 - 1])
    @pytest.mark.parametrize("rows", [0, 1, 2, 33, 300])
    def test_weigh_on_random_products(self, rows: int, settle: int) -> None:
        # Of nine residuals in two dimensions only the ridge makes a system, and any difference in rounding shows.
        for places, d in ((1, 12), (2, 12), (3, 12), (6, 12), (9, 2)):
            buffers = random_buffers(min(rows, self.most_rows), d, places, seed=places)
            buffers["held"].clamp_(max=2).masked_fill_(buffers["held"] == 2, 2**31 - 1)
            actual = self.check(("weigh", settle), buffers)
            if rows == 300 and places > 1 and settle < 2:
                running = buffers["status"] == RUNNING
                assert actual["extrapolated"][running].float().mean() > 0.1
                assert (actual["rejected"] - buffers["rejected"]).sum() > 10
                assert (actual["accepted"] - buffers["accepted"]).sum() > 10

    def test_weigh_where_there_is_no_solution(self) -> None:
        places = 5
        nan, inf, huge = torch.nan, torch.inf, torch.finfo(torch.float64).max
        faults: list[tuple[int, int, float]] = [
            *[(i, j, value) for i in range(places) for j in range(i, places) for value in (nan, inf, -inf, huge)],
            *[(i, i, -1e6) for i in range(places)],  # not positive definite
        ]
        buffers = random_buffers(3 * len(faults) + 3, 23, places)
        buffers["status"].fill_(RUNNING)
        buffers["held"].fill_(2)
        buffers["filled"].copy_(torch.arange(len(buffers["filled"])) % places)
        untouched = self.run(self.ops, WEIGH, self.here(buffers))
        gram = buffers["gram"]
        for row, (i, j, value) in enumerate(faults):
            for k in (3 * row, 3 * row + 1):
                gram[k, i, j] = gram[k, j, i] = value
        gram[-3] = 0.0
        gram[-2] = 1.0  # the residual has not changed
        gram[-1] *= 1e-320  # denormal
        actual = self.check(WEIGH, buffers)
        assert actual["weights"].isfinite().all()
        for name, tensor in actual.items():
            if name != "gram":
                assert torch.equal(bits(tensor[2:-3:3]), bits(untouched[name][2:-3:3])), name
        assert not actual["extrapolated"][-3:-1].any()
        assert not actual["weights"][-3:-1].any()

    def test_weigh_on_weights_of_any_size(self) -> None:
        # Of one difference: its product with the residual, its square, and the weight that makes. No residuals have
        # such products, but a kernel cannot know that.
        cases = [(1e50, 1.0, torch.inf), (-1e50, 1.0, -torch.inf), (1e-50, 1.0, 0.0), (-1e-50, 1.0, -0.0)]
        cases += [(-5e-324, 4.0, 0.0), (1e300, 1e-300, 0.0)]  # α is -0; α is infinite: there is no solution
        rows = len(cases)
        buffers = random_buffers(rows, 3, 3)
        buffers |= {"status": running(rows), "extrapolated": torch.zeros(rows, dtype=torch.bool)}
        buffers["head"].fill_(1)  # the order of the places is 1, 0, 2
        buffers["filled"].fill_(1)
        buffers["held"].fill_(2)
        for row, (product, square, _) in enumerate(cases):
            buffers["gram"][row, :2, :2] = torch.tensor([[square, product], [0.0, product]], dtype=torch.float64)
        actual = self.check(WEIGH, buffers)
        assert torch.equal(bits(actual["weights"][:, 0]), bits(torch.tensor([weight for *_, weight in cases])))
        assert actual["extrapolated"].tolist() == [True] * (rows - 1) + [False]

    @pytest.mark.parametrize("newest", [1.0, 2.0, 3.0, torch.nan, torch.inf])
    @pytest.mark.parametrize("places", [1, 2, 3, 7])
    def test_weigh_rejects_what_grew(self, places: int, newest: float) -> None:
        buffers = random_buffers(6, 11, places)
        buffers |= {"status": running(6), "extrapolated": torch.arange(6) < 4}
        head, rows = buffers["head"].long(), torch.arange(6)
        before = (head - 1) % places
        buffers["gram"][rows, before, before] = 2.0
        buffers["gram"][rows, head, head] = newest
        actual = self.check(WEIGH, buffers)
        grew = (rows < 4) & (math.isnan(newest) if places == 1 else not newest <= 2.0)
        assert torch.equal(actual["rejected"] - buffers["rejected"], grew.int())
        assert torch.equal(actual["accepted"] - buffers["accepted"], ((rows < 4) & ~grew).int())
        assert torch.equal(actual["base"].long(), torch.where(grew, before, head))
        assert torch.equal(actual["head"].long(), (head + 1) % places)
        assert not actual["filled"][grew].any()
        assert not actual["weights"][grew].any()
        assert not actual["extrapolated"][grew].any()

    def test_weigh_remembers_nothing_before_the_mask_has_held(self) -> None:
        for places in (1, 2, 5):
            buffers = random_buffers(5, 11, places)
            buffers |= {"status": running(5), "extrapolated": torch.zeros(5, dtype=torch.bool)}
            buffers["held"].copy_(torch.arange(5))
            buffers["filled"].fill_(places - 1)
            actual = self.check(("weigh", 3), buffers)
            assert actual["filled"].tolist() == [min(1, places - 1)] * 3 + [places - 1] * 2
            assert actual["extrapolated"].tolist() == [False] * 3 + [places > 1] * 2

    def test_mix_does_not_read_what_has_no_weight(self) -> None:
        for places in (1, 2, 6):
            buffers = random_buffers(2 * places, 1031, places)
            buffers |= {"status": running(2 * places)}
            buffers["weights"][::2] = 0.0  # in these rows only the base is read
            buffers["weights"][::4] = -0.0
            nothing = buffers["weights"] == 0
            others = nothing & (torch.arange(places) != buffers["base"][:, None])
            buffers["steps"][others] = torch.nan
            actual = self.check(MIX, buffers)
            assert actual["s"].isfinite().all()
            base = buffers["steps"][torch.arange(2 * places), buffers["base"].long()]
            assert torch.equal(actual["s"][::2], base[::2])
            buffers["weights"][1::2] = torch.nan
            assert self.check(MIX, buffers)["s"][1::2].isnan().all()

    @pytest.mark.parametrize("rows", [0, 3])
    def test_mix_without_pixels_or_weights(self, rows: int) -> None:
        self.check(MIX, random_buffers(rows, 0, 2) | {"status": running(rows), "weights": torch.zeros(rows, 2)})

    def test_mix_on_special_values(self) -> None:
        table = torch.tensor(list(itertools.product(SPECIAL, repeat=3)))  # base, another step, weight
        table = table[:: -(-len(table) // self.most_rows)]
        buffers = random_buffers(len(table), 2, 3)
        buffers |= {"status": running(len(table))}
        buffers["base"].fill_(1)
        buffers["steps"] = table[:, [1, 0, 1]][:, :, None].repeat(1, 1, 2)
        buffers["weights"] = torch.stack([table[:, 2], table[:, 2].roll(1), -0.5 * table[:, 2]], dim=1)
        self.check(MIX, buffers)

    @pytest.mark.parametrize("operation", OF_IMAGES[:-1])
    def test_special_values(self, operation: tuple[Any, ...]) -> None:
        triples = torch.tensor(list(itertools.product(SPECIAL, repeat=3)))
        d = 2 * len(triples)
        columns = [*triples.repeat(2, 1).T, triples[:, 1].roll(5).repeat(2)]
        images = dict(zip("svyx", columns, strict=True)) | {"mask": torch.arange(d) < d // 2}
        others = torch.tensor(SPECIAL).repeat(d)[: 2 * d].view(2, d)
        for gamma in (0.5, 2.0, 2.2):
            buffers = random_buffers(1, d, 3) | {name: image[None].contiguous() for name, image in images.items()}
            buffers |= {"status": running(1), "coefficients": of_gammas([gamma]), "best_score": torch.full((1,), 1.0)}
            buffers["filled"].fill_(2)
            self.check(operation, buffers)
        # Each pixel as a row, so that sums, too, are compared value by value.
        some = slice(None, None, -(-d // self.most_rows))
        pixels = {name: image[some, None].contiguous() for name, image in images.items()}
        rows = len(pixels["s"])
        buffers = random_buffers(rows, 1, 3) | pixels | {"status": running(rows)}
        buffers["filled"].fill_(2)
        buffers["best_score"] = torch.tensor(SPECIAL).repeat(rows)[:rows]
        buffers["residuals"][torch.arange(rows), (buffers["head"].long() + 1) % 3, 0] = others[0][some]
        buffers["residuals"][torch.arange(rows), (buffers["head"].long() + 2) % 3, 0] = others[1][some]
        self.check(operation, buffers)

    def test_ties_of_the_mask_rule(self) -> None:
        values = [k / 4 for k in range(-8, 9)] + [-0.0]
        pairs = torch.tensor(list(itertools.product(values, values)))
        x, y = (side[None].contiguous() for side in pairs.T)
        x = torch.cat([x, torch.nextafter(x, torch.tensor(9.0)), torch.nextafter(x, torch.tensor(-9.0))], dim=1)
        for kept in (False, True):  # erased: the estimate is x itself; kept: y = 0 and s = 2x - x give ties as well
            images = {"s": x, "v": x, "y": y.repeat(1, 3), "x": x, "mask": torch.full(x.shape, kept)}
            self.check(ESTIMATE_MASK, random_buffers(1, x.shape[1], 1) | images)

    def test_ties_of_the_score(self) -> None:
        # Of one pixel there is no order of summation: the score is the same to the bit, and no better than itself.
        buffers = random_buffers(40, 1, 1)
        buffers |= {"status": running(40)}
        for operation in (ESTIMATE, ESTIMATE_MASK):
            score = self.run(plain, operation, clone(buffers))["score"]
            one = torch.tensor(9.0)
            buffers["best_score"] = torch.where(torch.arange(40) % 2 == 0, score, torch.nextafter(score, one))
            actual = self.check(operation, buffers)
            better = torch.arange(40) % 2 == 1
            assert torch.equal(actual["best"], torch.where(better[:, None], actual["x"], buffers["best"]))
            mask = torch.where(better[:, None], actual["mask"], buffers["best_mask"])
            assert torch.equal(actual["best_mask"], mask)

    @pytest.mark.parametrize("d", [1, 70, 513, 768, 4097])
    def test_changed_hangs_on_every_pixel(self, d: int) -> None:
        buffers = random_buffers(9, d, 1)
        buffers |= {"status": running(9), "s": torch.ones(9, d), "v": torch.ones(9, d)}
        buffers["y"] = buffers["mask"].float()  # so that with s = v = 1 the mask is estimated as it is
        for row, pixel in enumerate([0, 1 % d, d // 2, (d - 2) % d, d - 1]):
            buffers["y"][row, pixel] = 1 - buffers["y"][row, pixel]
        assert self.check(ESTIMATE_MASK, buffers)["changed"].tolist() == [True] * 5 + [False] * 4
        assert not self.check(ESTIMATE, buffers)["changed"].any()

    @pytest.mark.parametrize("operation", ALL)
    def test_only_running_rows_are_touched(self, operation: tuple[Any, ...]) -> None:
        buffers = random_buffers(2 * len(STATUSES), 600, 4)
        buffers["status"] = torch.tensor(STATUSES * 2, dtype=torch.int8)
        buffers["best_score"].fill_(torch.inf)
        frozen = buffers["status"] != RUNNING
        for tensor in buffers.values():  # what a row is frozen with may be anything
            if tensor.dtype.is_floating_point and tensor.dim() > 1:
                tensor[frozen, ..., ::2] = torch.nan
        before = clone(buffers)
        actual = self.check(operation, buffers)
        changed = {name for name in before if not torch.equal(bits(actual[name]), bits(before[name]))}
        for name in before:
            assert torch.equal(bits(actual[name][frozen]), bits(before[name][frozen])), name
        assert changed & {"steps", "best", "s", "head", "iterations"}

    def test_any_nonzero_byte_of_a_mask_means_kept(self) -> None:
        for operation in OF_IMAGES[:-1]:  # torch itself writes 0 and 1; a mask viewed from bytes can hold others
            buffers = random_buffers(5, 97, 2)
            usual = self.run(self.ops, operation, self.here(buffers))
            other = self.here(buffers)
            other["mask"] = (other["mask"].to(torch.uint8) * 0x82).view(torch.bool)
            unusual = self.run(self.ops, operation, other)
            for name in usual:
                if name not in ("mask", "best_mask"):
                    assert torch.equal(bits(unusual[name]), bits(usual[name])), (operation, name)
            for name in ("mask", "best_mask"):
                kept, usually = (side[name].view(torch.uint8) != 0 for side in (unusual, usual))
                assert torch.equal(kept, usually), (operation, name)

    def test_products_and_squares_are_summed_in_float64(self) -> None:
        d = 100_003
        buffers = random_buffers(2, d, 2)
        buffers |= {name: torch.zeros(2, d) for name in "syx"} | {"mask": torch.zeros(2, d, dtype=torch.bool)}
        buffers |= {"status": running(2), "v": torch.zeros(2, d)}
        buffers["v"][0] = 0.1  # many equal terms: a sum in float32 would be far off
        buffers["v"][1, :20] = 1e20  # the squares alone are too large for float32
        for tensor in (buffers["head"], buffers["base"]):
            tensor.zero_()
        buffers["filled"].fill_(1)
        buffers["residuals"][:, 1] = 3 * buffers["v"]
        gram = self.check(MEASURE, buffers)["gram"]
        exact = [d * float(buffers["v"][0, 0]) ** 2, 20 * float(buffers["v"][1, 0]) ** 2]
        torch.testing.assert_close(gram[:, 0, 0], torch.tensor(exact, dtype=torch.float64), rtol=1e-10, atol=0)
        torch.testing.assert_close(gram[:, 1, 0] / gram[:, 0, 0], torch.full((2,), 3.0).double(), rtol=1e-6, atol=0)
        for operation in (ESTIMATE, ESTIMATE_MASK):
            actual = self.check(operation, buffers)
            assert actual["residual"].isfinite().all()
            assert actual["score"].isfinite().all()

    @pytest.mark.parametrize("operation", [MEASURE, ESTIMATE, ESTIMATE_MASK])
    def test_the_sums_of_a_row_are_the_same_in_every_batch(self, operation: tuple[Any, ...]) -> None:
        buffers = random_buffers(9, 2309, 4)
        buffers |= {"status": running(9)}
        together = self.run(self.ops, operation, self.here(buffers))
        for row in range(9):
            one = self.here({name: tensor[row : row + 1].clone() for name, tensor in buffers.items()})
            alone = self.run(self.ops, operation, one)
            for name in ("gram", "residual", "score"):
                assert torch.equal(bits(alone[name]), bits(together[name][row : row + 1])), name

    @pytest.mark.parametrize("operation", [MEASURE, WEIGH, STOP, MIX])
    def test_numbers_beside_the_ring_count_as_the_nearest(self, operation: tuple[Any, ...]) -> None:
        check_beside_the_ring(self.ops, self.device, operation)

    def test_vectors_may_begin_anywhere(self) -> None:
        for operation in ALL:
            self.check(operation, random_buffers(5, 97, 3), shift_vectors=True)

    @pytest.mark.parametrize("rows", [0, 1, 33, 129])
    def test_stop_on_random_counters(self, rows: int) -> None:
        for seed, (patience, stall, counts, limit) in enumerate(
            itertools.product((1, 3), (1, 4, 100), (1, 3), (1, 7, 200))
        ):
            self.check(("stop", 0.3, patience, stall, counts, limit), random_buffers(rows, 1, 3, seed))

    @pytest.mark.parametrize("places", [1, 2, 4])
    def test_evaluations_one_after_the_other(self, places: int) -> None:
        # f(s) = A s + b in every row, so that extrapolations are made, accepted and rejected as they come; the mask
        # changes once. Both implementations work on from what `ops` made.
        rows, d = 6, 40
        generator = torch.Generator().manual_seed(3)
        matrix = torch.randn(d, d, generator=generator) * 0.9 / d**0.5
        shift = torch.randn(d, generator=generator)
        buffers = random_buffers(rows, d, places) | {"status": running(rows), "best_score": torch.full((rows,), 1e9)}
        for name in ("head", "filled", "extrapolated", "held", "accepted", "rejected", "iterations", "below"):
            buffers[name].zero_()
        for turn in range(30):
            buffers["v"] = buffers["s"] @ matrix + shift
            buffers = self.check(MEASURE, buffers)
            if turn % 3 == 0:
                buffers = self.check(("estimate", turn == 12), buffers)
                buffers = self.check(("stop", 0.0, 1, 1000, 4, 1000), buffers)
            buffers = self.check(("weigh", 1), buffers)
            buffers = self.check(MIX, buffers)
        assert (buffers["mask_changes"] > 0).any()
        assert bool(buffers["accepted"].all()) == (places > 1)

    def check(self, operation: tuple[Any, ...], buffers: Buffers, shift_vectors: bool = False) -> Buffers:
        """Run both on copies, `ops` between guards; what `ops` made, on the CPU."""
        buffers = clone(buffers)
        poison(operation, buffers)
        with roots_rounded_to_nearest():
            expected = self.run(plain, operation, clone(buffers))
        pairs = {name: guarded(tensor, self.device, shift_vectors) for name, tensor in buffers.items()}
        actual = self.run(self.ops, operation, {name: pair[0] for name, pair in pairs.items()})
        assert_same(operation, actual, expected)
        for name, (inside, memory) in pairs.items():
            begin = inside.data_ptr() - memory.data_ptr() if inside.numel() else GUARD
            guards = torch.cat([memory[:begin], memory[begin + inside.nbytes :]])
            assert torch.all(guards == 0xFF), f"{operation[0]} wrote beside {name}"
        return actual

    def here(self, buffers: Buffers) -> Buffers:
        """Copies on the device."""
        return {name: tensor.clone().to(self.device) for name, tensor in buffers.items()}

    def run(self, ops: Any, operation: tuple[Any, ...], buffers: Buffers) -> Buffers:
        """Run an operation of `ops` in place; copies of its buffers on the CPU."""
        launch(ops, operation, buffers)
        return {name: tensor.cpu() for name, tensor in buffers.items()}


def check_beside_the_ring(ops: Any, device: str, operation: tuple[Any, ...]) -> None:
    """Whatever `head`, `filled` and `base` are, all is as if they were the nearest numbers in [0, q)."""
    numbers = torch.tensor([-(2**31), -1000, -4, -1, 0, 1, 2, 3, 4, 1000, 2**31 - 1], dtype=torch.int32)
    rows, places = len(numbers), 3
    beside = {"head": numbers, "filled": numbers.roll(3), "base": numbers.roll(7)}
    buffers = random_buffers(rows, 5, places) | {"status": running(rows)}
    buffers |= {name: wild.clamp(0, places - 1) for name, wild in beside.items()}
    buffers["held"].fill_(2)
    here = {name: tensor.clone().to(device) for name, tensor in buffers.items()}
    state = state_of(AndersonState, here)  # which would refuse them
    for name, wild in beside.items():
        getattr(state, name).copy_(wild)
    call(ops, operation, state, here["v"])
    actual = {name: tensor.cpu() for name, tensor in here.items()}
    for name, wild in beside.items():  # what is only read stays as it was
        assert name in ORDERS[operation[0]].written or torch.equal(actual[name], wild), name
        actual[name] = torch.where(actual[name] == wild, buffers[name], actual[name])
    with roots_rounded_to_nearest():
        launch(plain, operation, buffers)
    assert_same(operation, actual, buffers)


def launch(ops: Any, operation: tuple[Any, ...], buffers: Buffers) -> None:
    """Run an operation of `ops` in place."""
    call(ops, operation, state_of(AndersonState, buffers), buffers["v"])


def call(ops: Any, operation: tuple[Any, ...], state: AndersonState, v: Tensor) -> None:
    """Run an operation of `ops` on a state."""
    name, *numbers = operation
    given = [state, v] if "v" in ORDERS[name].names else [state]
    getattr(ops, name)(*given, **dict(zip(NUMBERS_OF.get(name, ()), numbers, strict=True)))


def random_buffers(rows: int, d: int, places: int, seed: int = 0) -> Buffers:
    """Images, each with a γ and a ring of its own, with residuals of different sizes; two of three rows are running."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def counter(below: int) -> Tensor:
        return torch.randint(below, (rows,), generator=generator, dtype=torch.int32)

    buffers = {name: torch.randn(rows, d, generator=generator) for name in ("s", "v", "y", "x", "best")}
    buffers |= {name: uniform(rows, d) < 0.5 for name in ("mask", "best_mask")}
    buffers["steps"] = torch.randn(rows, places, d, generator=generator)
    sizes = torch.pow(10.0, 2 * uniform(rows, places, 1) - 1)
    buffers["residuals"] = torch.randn(rows, places, d, generator=generator) * sizes
    wide = buffers["residuals"].double()
    gram = wide @ wide.transpose(1, 2)
    buffers["gram"] = (gram + gram.transpose(1, 2)) / 2  # to the bit the same on both sides of the diagonal
    buffers["weights"] = torch.randn(rows, places, generator=generator) * (uniform(rows, places) < 0.6)
    buffers |= {name: uniform(rows) for name in ("residual", "score")}
    buffers["milestone"] = torch.where(torch.arange(rows) % 4 == 0, buffers["score"] / PROGRESS, 2 * uniform(rows))
    # Far from any score, so that it does not hang on the order of summation which of them is the better one.
    buffers["best_score"] = torch.where(uniform(rows) < 0.5, 1e-6, 1e6)
    buffers |= {name: uniform(rows) < 0.5 for name in ("changed", "extrapolated")}
    buffers |= {name: counter(places) for name in ("head", "filled", "base")}
    buffers |= {name: counter(7) for name in ("held", "accepted", "rejected", "stalled", "mask_changes")}
    buffers |= {name: counter(7) for name in ("iterations", "below")}
    buffers["coefficients"] = of_gammas([GAMMAS[row % len(GAMMAS)] for row in range(rows)])
    others = torch.tensor(STATUSES, dtype=torch.int8)[counter(len(STATUSES)).long()]
    buffers["status"] = torch.where(torch.arange(rows) % 3 == 2, others, RUNNING)
    return buffers


def of_gammas(gammas: list[float]) -> Tensor:
    return coefficients(torch.tensor(gammas, dtype=torch.float64))


@contextlib.contextmanager
def roots_rounded_to_nearest() -> Iterator[None]:
    """As processors and GPUs do it. In one of about fifty float64 numbers torch is off by the last bit on CPUs."""
    with mock.patch.object(Tensor, "sqrt", lambda tensor: torch.from_numpy(np.sqrt(tensor.numpy()))):
        yield


def running(rows: int) -> Tensor:
    return torch.full((rows,), RUNNING, dtype=torch.int8)


def ages(buffers: Buffers) -> Tensor:
    """How many evaluations before the one at `head` each place was written, [rows, q]."""
    places = buffers["gram"].shape[1]
    return (buffers["head"][:, None] - torch.arange(places)) % places


def poison(operation: tuple[Any, ...], buffers: Buffers) -> None:
    """Fill what the operation writes without reading it, and what it is not to read, with NaN."""
    works = buffers["status"] == RUNNING
    if operation[0] == "measure":
        age = ages(buffers)
        buffers["residuals"][works[:, None] & (age > buffers["filled"][:, None])] = torch.nan
        here = works[:, None] & (age == 0)
        for name in ("steps", "residuals", "gram"):
            buffers[name][here] = torch.nan
        buffers["gram"].transpose(1, 2)[here] = torch.nan
    elif operation[0] == "estimate":
        for name in ("residual", "score"):
            buffers[name].masked_fill_(works, torch.nan)
    elif operation[0] == "weigh":
        buffers["weights"][works] = torch.nan
        other = (buffers["head"] + 1) % buffers["gram"].shape[
            1
        ]  # a place, but none that the base may become, if it can
        buffers["base"].copy_(torch.where(works, other, buffers["base"]))
        # of residuals that are not known of
        known = torch.where(buffers["extrapolated"], 1, 0).maximum(buffers["filled"])[:, None]
        unknown = works[:, None] & (ages(buffers) > known)
        buffers["gram"].masked_fill_(unknown[:, :, None] | unknown[:, None, :], torch.nan)
    elif operation[0] == "mix":
        buffers["s"][works] = torch.nan


def bits(tensor: Tensor) -> Tensor:
    """The bits of a floating-point tensor, those of all NaNs made equal; other tensors as they are."""
    if not tensor.dtype.is_floating_point:
        return tensor
    whole = torch.where(tensor.isnan(), torch.nan, tensor).to(tensor.dtype)
    return whole.view(torch.int32 if tensor.dtype == torch.float32 else torch.int64)


def assert_same(operation: tuple[Any, ...], actual: Buffers, expected: Buffers) -> None:
    """Bit for bit, but for sums over pixels, which are made in another order: see there."""
    for name, tensor in expected.items():
        if operation[0] == "measure" and name == "gram":
            assert_same_products(actual, expected)
        elif operation[0] == "estimate" and name in ("residual", "score", "best_score"):
            # Of squares, in float64: one unit in the last place of float32. Floats of one sign are as near each other
            # as their bits are.
            assert torch.all((bits(actual[name]).long() - bits(tensor).long()).abs() <= 1), name
        else:
            assert torch.equal(bits(actual[name]), bits(tensor)), name


def assert_same_products(actual: Buffers, expected: Buffers) -> None:
    """To the error of a sum of d terms in float64, which is at most d ε/2 Σ|terms| in any order, once for each side."""
    age = ages(expected)
    summed = (age <= expected["filled"][:, None]) & (expected["status"] == RUNNING)[:, None]
    new = (summed & (age == 0))[:, :, None] & summed[:, None, :]
    new = (new | new.transpose(1, 2)) & expected["gram"].isfinite()
    size = expected["residuals"].double().abs().nan_to_num(0.0, 0.0, 0.0)
    bound = size.shape[2] * torch.finfo(torch.float64).eps * (size @ size.transpose(1, 2))
    error = torch.where(new, actual["gram"] - expected["gram"], 0.0).abs()
    assert torch.all(error <= torch.where(new, bound, 0.0))
    assert torch.equal(bits(actual["gram"])[~new], bits(expected["gram"])[~new])
    works = expected["status"] == RUNNING
    assert torch.equal(bits(actual["gram"])[works], bits(actual["gram"]).transpose(1, 2)[works])
