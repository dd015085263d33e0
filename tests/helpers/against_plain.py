"""What any implementation of the operations must do to be exchangeable for ops/admm/plain.py: tests to inherit.

A subclass says which module is tested, and where its buffers live; see triton_interpreted.py. What is expected is
always computed by plain.py on the CPU.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from memrecon_fast.ops.admm import ADVANCE, CLOSE, START, STEP, STOP, AdmmState, plain
from memrecon_fast.ops.state import Buffer, SomeState
from memrecon_fast.results import RUNNING, Status

Buffers = dict[str, Tensor]

ORDERS = {"start": START, "step": STEP, "close": CLOSE, "advance": ADVANCE, "stop": STOP}
NUMBERS = {"close": ("estimate_mask",), "stop": ("tolerance", "patience", "limit", "first_comparison")}
# Operations with their numbers.
CLOSE_AS_IT_IS, CLOSE_ESTIMATING_MASK, MEAN_SQUARES = ("close", False), ("close", True), ("mean_squares",)
OF_STATE: list[tuple[Any, ...]] = [("start",), ("step",), CLOSE_AS_IT_IS, CLOSE_ESTIMATING_MASK, ("advance",)]
OF_IMAGES: list[tuple[Any, ...]] = [*OF_STATE, MEAN_SQUARES]
GAMMAS = [0.5, 1e-12, 0.1, 1.0, 2.0, 2.2, 30.0, 1e6]  # at 2 the factor g - 1 of v is zero
STATUSES = [RUNNING, *(int(status) for status in Status), 77]  # the last is nothing but not RUNNING
GUARD = 16384  # bytes on both sides of a buffer: more than a block of any kernel, and a multiple of any alignment
SHAPES = [
    *[(0, 5), (3, 0), (0, 0), (1, 1), (5, 1), (1, 2), (2, 3), (130, 1), (171, 3)],
    *[(16, 33), (32, 97), (3, 127), (2, 128), (3, 129), (1, 257), (4, 511), (2, 512), (3, 513), (13, 70)],
    *[(2, 769), (3, 1024), (2, 1031), (2, 2048), (1, 2049), (3, 4095), (2, 4097), (5, 12)],
]
FEW_SHAPES = [
    *[(0, 5), (3, 0), (1, 1), (5, 1), (2, 3), (16, 33), (3, 127), (2, 128), (3, 129)],
    *[(2, 512), (3, 513), (13, 70), (2, 769), (1, 2049), (2, 4097), (5, 12)],
]
"""Of these, for the interpreter, which takes long for a row: no row, no pixel and one; d odd, even and a multiple of 4;
less than a block of threads, just one, and a little more; one, two and three turns of the loop over a row. What is left
out are further numbers of rows, which are programs of their own, and further sizes between these; a GPU runs all."""


class AgainstPlain:
    """Tests of `ops` on `device`."""

    ops: ClassVar[Any]
    device: ClassVar[str]
    large_shapes: ClassVar[list[tuple[int, int]]] = []
    most_rows: ClassVar[int] = 10**9
    """In tests of combinations, each in a row: about so many, evenly chosen."""

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("operation", OF_IMAGES)
    def test_shapes(self, operation: tuple[Any, ...], shape: tuple[int, int]) -> None:
        self.check(operation, random_buffers(*shape))

    @pytest.mark.parametrize("operation", OF_IMAGES)
    def test_large_shapes(self, operation: tuple[Any, ...]) -> None:
        for shape in self.large_shapes:
            self.check(operation, random_buffers(*shape))

    @pytest.mark.parametrize("operation", OF_IMAGES)
    def test_special_values(self, operation: tuple[Any, ...]) -> None:
        numbers = torch.finfo(torch.float32)
        values = [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-45, -3e-40, numbers.tiny, 3e38]
        values += [numbers.max, -numbers.max, 1.0, -0.5, 1e-3]
        triples = torch.tensor(list(itertools.product(values, repeat=3)))
        d = 2 * len(triples)
        for order in ("svyx", "xvys", "yxvs"):  # the fourth is none of the triples, but one of the values
            columns = [*triples.repeat(2, 1).T, triples[:, 1].roll(5).repeat(2)]
            images = {name: column[None] for name, column in zip(order, columns, strict=True)}
            mask = torch.arange(d)[None] < d // 2
            for gamma in (0.5, 2.0, 2.2):
                self.check(operation, images | {"mask": mask} | vectors([gamma]))
        # Each pixel as a row, so that the residual, too, is compared value by value.
        some = slice(None, None, max(1, d // self.most_rows))
        pixels = {name: image[0, some, None].contiguous() for name, image in (images | {"mask": mask}).items()}
        gammas = [GAMMAS[row % len(GAMMAS)] for row in range(len(pixels["s"]))]
        self.check(operation, pixels | vectors(gammas))

    def test_ties_of_the_mask_rule(self) -> None:
        values = [k / 4 for k in range(-8, 9)] + [-0.0]
        pairs = torch.tensor(list(itertools.product(values, values)))
        x, y = (side[None].contiguous() for side in pairs.T)
        x = torch.cat([x, torch.nextafter(x, torch.tensor(9.0)), torch.nextafter(x, torch.tensor(-9.0))], dim=1)
        for kept in (False, True):  # erased: the estimate is x itself; kept: y = 0 and s = 2x - x give ties as well
            images = {"s": x, "v": x, "y": y.repeat(1, 3), "x": x, "mask": torch.full(x.shape, kept)}
            self.check(CLOSE_ESTIMATING_MASK, images | vectors([0.5]))

    @pytest.mark.parametrize("d", [1, 70, 513, 768, 4097])
    def test_settled_hangs_on_every_pixel(self, d: int) -> None:
        buffers = random_buffers(9, d)
        buffers["status"].fill_(RUNNING)
        buffers["y"] = buffers["mask"].float()  # so that with s = v = 1 the mask is estimated as it is
        buffers["s"], buffers["v"] = torch.ones(9, d), torch.ones(9, d)
        for row, pixel in enumerate([0, 1 % d, d // 2, (d - 2) % d, d - 1]):
            buffers["y"][row, pixel] = 1 - buffers["y"][row, pixel]
        actual = self.check(CLOSE_ESTIMATING_MASK, buffers)
        assert actual["settled"].tolist() == [False] * 5 + [True] * 4

    @pytest.mark.parametrize("d", [1, 70, 513, 768, 4097])
    def test_recurs_hangs_on_every_pixel(self, d: int) -> None:
        buffers = random_buffers(12, d)
        buffers["status"].fill_(RUNNING)
        estimated = buffers["y"] >= 0.5  # with s = v = 1 a pixel is kept where 1 is at most 2y
        buffers["s"], buffers["v"] = torch.ones(12, d), torch.ones(12, d)
        buffers["mask"], buffers["renew"] = torch.zeros(12, d, dtype=torch.bool), torch.zeros(12, dtype=torch.bool)
        buffers["anchor"] = estimated.clone()
        for row, pixel in enumerate([0, 1 % d, d // 2, (d - 2) % d, d - 1]):
            buffers["anchor"][row, pixel] ^= True
        buffers["renew"][9:] = True  # these are compared with the mask as it was
        buffers["mask"][10] = estimated[10]
        actual = self.check(CLOSE_ESTIMATING_MASK, buffers)
        assert actual["recurs"].tolist()[:9] == [False] * 5 + [True] * 4
        assert actual["recurs"][10]
        assert torch.equal(actual["recurs"][9:], actual["settled"][9:])
        assert torch.equal(actual["anchor"][9:], buffers["mask"][9:])

    @pytest.mark.parametrize("operation", [CLOSE_AS_IT_IS, CLOSE_ESTIMATING_MASK, ("advance",)])
    def test_only_running_rows_are_touched(self, operation: tuple[Any, ...]) -> None:
        buffers = random_buffers(2 * len(STATUSES), 600)
        buffers["status"] = torch.tensor(STATUSES * 2, dtype=torch.int8)
        before = clone(buffers)
        actual = self.check(operation, buffers)
        frozen = buffers["status"] != RUNNING
        for name in before:
            assert torch.equal(bits(actual[name][frozen]), bits(before[name][frozen])), name

    def test_any_nonzero_byte_of_a_mask_means_kept(self) -> None:
        for operation in OF_STATE[:-1]:  # torch itself writes 0 and 1; a mask viewed from bytes can hold others
            buffers = random_buffers(5, 97)
            usual = self.run(self.ops, operation, self.here(buffers))
            other = self.here(buffers)
            other["mask"] = (other["mask"].to(torch.uint8) * 0x82).view(torch.bool)
            unusual = self.run(self.ops, operation, other)
            for name in usual:
                if name != "mask":
                    assert torch.equal(bits(unusual[name]), bits(usual[name])), (operation, name)
            if operation == CLOSE_ESTIMATING_MASK:
                running = buffers["status"] == RUNNING
                assert torch.equal(unusual["mask"].view(torch.uint8)[running], usual["mask"].view(torch.uint8)[running])

    def test_the_residual_is_squared_and_summed_in_float64(self) -> None:
        d = 100_003
        buffers = random_buffers(2, d)
        buffers |= {
            "x": torch.zeros(2, d),
            "v": torch.zeros(2, d),
            "status": torch.full((2,), RUNNING, dtype=torch.int8),
        }
        buffers["v"][0] = 0.1  # many equal terms: a sum in float32 would be far off
        buffers["v"][1, :20] = 1e20  # the squares alone are too large for float32
        assert self.check(("advance",), buffers)["residual"].isfinite().all()

    @pytest.mark.parametrize("operation", [CLOSE_AS_IT_IS, CLOSE_ESTIMATING_MASK, ("advance",)])
    def test_the_residual_of_a_row_is_the_same_in_every_batch(self, operation: tuple[Any, ...]) -> None:
        buffers = random_buffers(9, 2309)
        buffers["status"].fill_(RUNNING)
        together = self.run(self.ops, operation, self.here(buffers))["residual"]
        for row in range(9):
            one = self.here({name: tensor[row : row + 1].clone() for name, tensor in buffers.items()})
            assert torch.equal(self.run(self.ops, operation, one)["residual"], together[row : row + 1])

    def test_vectors_may_begin_anywhere(self) -> None:
        for operation in OF_IMAGES:
            self.check(operation, random_buffers(5, 97), shift_vectors=True)
        self.check(("stop", 1e-9, 3, 200, 2), random_buffers(5, 97), shift_vectors=True)

    @pytest.mark.parametrize("rows", [0, 1, 2, 31, 32, 33, 129])
    def test_stop_on_random_counters(self, rows: int) -> None:
        for seed, (patience, limit, first) in enumerate(itertools.product((1, 3), (1, 7, 200), (1, 2, 5))):
            self.check(("stop", 0.3, patience, limit, first), random_buffers(rows, 1, seed))

    @pytest.mark.parametrize("numbers", [(1, 1, 1), (3, 200, 2), (16, 17, 32), (2**31 - 1,) * 3, (5, 2**31 - 1, 2)])
    @pytest.mark.parametrize("tolerance", [1e-9, 0.0, 1e-50, 3.5e38, torch.inf])
    def test_stop_on_extremes(self, tolerance: float, numbers: tuple[int, int, int]) -> None:
        patience, limit, _ = numbers
        below_tolerance = torch.nextafter(torch.tensor(tolerance), torch.tensor(0.0)).item()
        residuals = [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-45, 3e38, 1.0, 1e-9, below_tolerance]
        counters = sorted({0, 1, 2, min(limit, 2**31 - 1) - 2, limit - 1} - {-1})
        belows = sorted({0, 1, patience - 1, max(patience - 2, 0)})
        table = list(itertools.product(residuals, [False, True], counters, belows, STATUSES[:2]))
        table = table[:: max(1, len(table) // self.most_rows)]
        residual, settled, iterations, below, status = zip(*table, strict=True)
        buffers = {
            "residual": torch.tensor(residual),
            "settled": torch.tensor(settled),
            "iterations": torch.tensor(iterations, dtype=torch.int32),
            "blocks": torch.tensor(iterations, dtype=torch.int32) // 2,
            "below": torch.tensor(below, dtype=torch.int32),
            **cycles(len(table), torch.tensor(iterations, dtype=torch.int32)),
            "status": torch.tensor(status, dtype=torch.int8),
        }
        self.check(("stop", tolerance, *numbers), buffers)

    def check(self, operation: tuple[Any, ...], buffers: Buffers, shift_vectors: bool = False) -> Buffers:
        """Run both on copies, `ops` between guards; what `ops` made, on the CPU."""
        buffers = clone(buffers)
        if operation[0] == "close":
            buffers.setdefault("anchor", ~buffers["mask"])
        poison(operation, buffers)
        expected = self.run(plain, operation, clone(buffers))
        pairs = {name: guarded(tensor, self.device, shift_vectors) for name, tensor in buffers.items()}
        actual = self.run(self.ops, operation, {name: pair[0] for name, pair in pairs.items()})
        assert_same(actual, expected)
        for name, (inside, memory) in pairs.items():
            begin = inside.data_ptr() - memory.data_ptr() if inside.numel() else GUARD
            guards = torch.cat([memory[:begin], memory[begin + inside.nbytes :]])
            assert torch.all(guards == 0xFF), f"{operation[0]} wrote beside {name}"
        return actual

    def here(self, buffers: Buffers) -> Buffers:
        """Copies on the device."""
        return {name: tensor.clone().to(self.device) for name, tensor in buffers.items()}

    @staticmethod
    def run(ops: Any, operation: tuple[Any, ...], buffers: Buffers) -> Buffers:
        """Run an operation of `ops` in place; copies of its buffers on the CPU."""
        launch(ops, operation, buffers)
        return {name: tensor.cpu() for name, tensor in buffers.items()}


def launch(ops: Any, operation: tuple[Any, ...], buffers: Buffers) -> None:
    """Run an operation of `ops` in place; `mean_squares` compares v with x."""
    if operation == MEAN_SQUARES:
        ops.mean_squares(buffers["v"], buffers["x"], buffers["residual"])
        return
    name, *numbers = operation
    v = [buffers["v"]] if "v" in ORDERS[name].names else []
    getattr(ops, name)(state_of(AdmmState, buffers), *v, **dict(zip(NUMBERS.get(name, ()), numbers, strict=True)))


def state_of(kind: type[SomeState], buffers: Buffers) -> SomeState:
    """A state of these buffers; what it has besides is 0."""
    given = {name: buffers[name] for name in kind.buffers() if name in buffers}
    sizes: dict[int | str, int] = {"d": 1, "q": 1}
    for name, tensor in given.items():
        sizes |= dict(zip(kind.buffers()[name].axes, tensor.shape, strict=False))

    def zeros(buffer: Buffer) -> Tensor:
        shape = [sizes.get(axis, axis) for axis in buffer.axes]
        return torch.zeros(shape, dtype=buffer.dtype, device=next(iter(given.values())).device)  # type: ignore[arg-type]

    return kind(**{name: given[name] if name in given else zeros(one) for name, one in kind.buffers().items()})


def random_buffers(rows: int, d: int, seed: int = 0) -> Buffers:
    """Images, a γ of its own for each row, and counters; two of three rows are running."""
    generator = torch.Generator().manual_seed(seed)
    buffers = {name: torch.randn(rows, d, generator=generator) for name in "svyx"}
    buffers["mask"] = torch.rand(rows, d, generator=generator) < 0.5
    buffers |= vectors([GAMMAS[row % len(GAMMAS)] for row in range(rows)])
    buffers["residual"] = torch.rand(rows, generator=generator)
    buffers["settled"] = torch.rand(rows, generator=generator) < 0.5
    for name in ("iterations", "blocks", "below"):
        buffers[name] = torch.randint(7, (rows,), generator=generator, dtype=torch.int32)
    buffers["anchor"] = torch.rand(rows, d, generator=generator) < 0.5
    buffers |= cycles(rows, buffers["iterations"], seed)
    others = torch.tensor(STATUSES, dtype=torch.int8)[torch.randint(len(STATUSES), (rows,), generator=generator)]
    buffers["status"] = torch.where(torch.arange(rows) % 3 == 2, others, RUNNING)
    return buffers


def cycles(rows: int, iterations: Tensor, seed: int = 0) -> Buffers:
    """The counters of the search for cycles; in half of the rows the anchor recurs after the same number as before."""
    generator = torch.Generator().manual_seed(seed)
    anchored = (iterations * torch.rand(rows, generator=generator)).to(torch.int32)
    period = iterations + 1 - anchored
    other = torch.randint(4, (rows,), generator=generator, dtype=torch.int32)
    return {
        "recurs": torch.rand(rows, generator=generator) < 0.7,
        "renew": torch.rand(rows, generator=generator) < 0.5,
        "anchored": anchored,
        "period": torch.where(torch.rand(rows, generator=generator) < 0.5, period, other),
    }


def vectors(gammas: list[float]) -> Buffers:
    """What the operations on images have besides images, all rows running."""
    rows = len(gammas)
    return {
        "coefficients": plain.coefficients(torch.tensor(gammas, dtype=torch.float64)),
        "residual": torch.zeros(rows),
        "settled": torch.arange(rows) % 2 == 0,
        "recurs": torch.arange(rows) % 2 == 1,
        "renew": torch.arange(rows) % 3 == 0,
        "status": torch.full((rows,), RUNNING, dtype=torch.int8),
    }


def poison(operation: tuple[Any, ...], buffers: Buffers) -> None:
    """Fill what the operation writes without reading it with NaN."""
    if operation[0] == "start":
        buffers["s"].fill_(torch.nan)
    elif operation == MEAN_SQUARES:
        buffers["residual"].fill_(torch.nan)
    elif operation[0] in ("close", "advance"):
        buffers["residual"].masked_fill_(buffers["status"] == RUNNING, torch.nan)


def guarded(tensor: Tensor, device: str, shift: bool) -> tuple[Tensor, Tensor]:
    """A copy on the device between two guards of 0xFF bytes, which read as NaN; and the memory of all three.

    With `shift` a vector begins at a multiple of its elements' size, but of nothing larger.
    """
    begin = GUARD + (tensor.element_size() if shift and tensor.dim() == 1 else 0)
    memory = torch.full((begin + tensor.nbytes + GUARD,), 0xFF, dtype=torch.uint8, device=device)
    inside = memory[begin : begin + tensor.nbytes]
    inside.copy_(tensor.reshape(-1).view(torch.uint8))
    return inside.view(tensor.dtype).view(tensor.shape), memory


def clone(buffers: Buffers) -> Buffers:
    return {name: tensor.clone() for name, tensor in buffers.items()}


def bits(tensor: Tensor) -> Tensor:
    """The bits of a float32 tensor, those of all NaNs made equal; other tensors as they are."""
    if tensor.dtype != torch.float32:
        return tensor
    return torch.where(tensor.isnan(), torch.nan, tensor).view(torch.int32)


def assert_same(actual: Buffers, expected: Buffers) -> None:
    """Bit for bit; the residual to one unit in the last place, since it is summed in another order."""
    for name, tensor in expected.items():
        if name == "residual":  # of one sign: neighbouring floats are neighbouring integers
            assert torch.all((bits(actual[name]).long() - bits(tensor).long()).abs() <= 1), name
        else:
            assert torch.equal(bits(actual[name]), bits(tensor)), name
