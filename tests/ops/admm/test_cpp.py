"""The compiled CPU kernels against plain.py: bit for bit, on every instruction set, by any number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.ops.admm import plain
from memrecon_fast.results import RUNNING
from tests.helpers.against_plain import CLOSE_AS_IT_IS, CLOSE_ESTIMATING_MASK, MEAN_SQUARES, Buffers, launch

_C: Any = pytest.importorskip("memrecon_fast._C", reason="built without the C++ kernels")
cpu: Any = pytest.importorskip("memrecon_fast.ops.cpp").Admm

OPERATIONS: dict[str, tuple[Any, ...]] = {
    "start": ("start",),
    "step": ("step",),
    "close": CLOSE_AS_IT_IS,
    "close_estimating_mask": CLOSE_ESTIMATING_MASK,
    "advance": ("advance",),
    "mean_squares": MEAN_SQUARES,
}
GAMMAS = [1e-12, 0.1, 0.5, 1.0, 2.0, 2.2, 30.0]  # at 2 the factor g - 1 of v is zero
SHAPES = [
    *[(0, 5), (3, 0), (0, 0), (1, 1), (5, 1), (1, 2), (2, 3)],
    *[
        (1, 15),
        (3, 16),
        (2, 17),
        (5, 31),
        (2, 33),
        (7, 97),
        (3, 257),
        (2, 511),
        (2, 512),
        (3, 513),
        (2, 1031),
    ],
]
LARGE_SHAPES = [(1, 70001), (3, 40009), (7, 12289), (64, 3072)]  # enough for two threads
GUARD = 80  # bytes on both sides of a buffer: of the alignment that is asked for, but of no wide vector's


@pytest.fixture(params=_C.instruction_sets(), autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on each instruction set of this processor."""
    usual = _C.instruction_set()
    _C.use_instruction_set(request.param)
    yield request.param
    _C.use_instruction_set(usual)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """`torch.set_num_threads`, undone at the end."""
    usual = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(usual)


def random_buffers(rows: int, d: int, seed: int = 0) -> Buffers:
    generator = torch.Generator().manual_seed(seed)
    buffers = {name: torch.randn(rows, d, generator=generator) for name in "svyx"}
    buffers |= {name: torch.rand(rows, d, generator=generator) < 0.5 for name in ("mask", "anchor")}
    return buffers | vectors(rows)


def vectors(rows: int, gamma: float = 0.5) -> Buffers:
    """What there is one of per row; all rows are RUNNING, with the same gamma; every other one renews."""
    return {
        "residual": torch.empty(rows),
        "settled": torch.zeros(rows, dtype=torch.bool),
        "recurs": torch.zeros(rows, dtype=torch.bool),
        "renew": torch.arange(rows) % 2 == 1,
        "status": torch.full((rows,), RUNNING, dtype=torch.int8),
        "coefficients": coefficients([gamma] * rows),
    }


def coefficients(gammas: list[float]) -> Tensor:
    return plain.coefficients(torch.tensor(gammas, dtype=torch.float64))


def call(ops: Any, operation: str, buffers: Buffers) -> None:
    """Run one operation of plain.py or cpp.py."""
    launch(ops, OPERATIONS[operation], buffers)


def poison(buffers: Buffers, operation: str) -> None:
    """Fill what the operation writes without reading it with NaN, or with what it is not to become."""
    buffers["residual"].fill_(torch.nan)
    buffers["settled"].fill_(operation == "close_estimating_mask")
    buffers["recurs"].fill_(True)
    if operation == "start":
        buffers["s"].fill_(torch.nan)


def guarded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A copy between two guards of 0xFF bytes, which read as NaN; and the memory of all three."""
    memory = torch.full((tensor.nbytes + 2 * GUARD,), 0xFF, dtype=torch.uint8)
    inside = memory[GUARD : GUARD + tensor.nbytes]
    inside.copy_(tensor.reshape(-1).view(torch.uint8))
    return inside.view(tensor.dtype).view(tensor.shape), memory


def bits(tensor: Tensor) -> Tensor:
    """The bits of a float32 tensor, those of all NaNs made equal; other tensors as they are."""
    if tensor.dtype != torch.float32:
        return tensor
    return torch.where(tensor.isnan(), torch.nan, tensor).view(torch.int32)


def assert_same(actual: Buffers, expected: Buffers) -> None:
    """Bit for bit; residual to one unit in the last place, since it is summed in another order."""
    for name, tensor in expected.items():
        if name == "residual":  # non-negative: neighbouring floats are neighbouring integers
            assert torch.all((bits(actual[name]).long() - bits(tensor).long()).abs() <= 1), name
        else:
            assert torch.equal(bits(actual[name]), bits(tensor)), name


def check_against_plain(operation: str, buffers: Buffers) -> Buffers:
    """Run both on copies, cpp.py's between guards; return what cpp.py made."""
    expected = {name: tensor.clone() for name, tensor in buffers.items()}
    pairs = {name: guarded(tensor) for name, tensor in buffers.items()}
    actual = {name: pair[0] for name, pair in pairs.items()}
    for copy in (expected, actual):
        poison(copy, operation)
    call(plain, operation, expected)
    call(cpu, operation, actual)
    assert_same(actual, expected)
    assert_guards_are_whole(pairs)
    return actual


def assert_guards_are_whole(pairs: dict[str, tuple[Tensor, Tensor]]) -> None:
    for name, (_, memory) in pairs.items():
        guards = torch.cat([memory[:GUARD], memory[-GUARD:]])
        assert torch.all(guards == 0xFF), f"the kernel wrote beside {name}"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_bit_identical(operation: str, shape: tuple[int, int]) -> None:
    for gamma in GAMMAS:
        buffers = random_buffers(*shape)
        buffers["coefficients"] = coefficients([gamma] * shape[0])
        check_against_plain(operation, buffers)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_rows_with_different_gammas(operation: str, shape: tuple[int, int]) -> None:
    rows = shape[0]
    buffers = random_buffers(*shape)
    for run in (1, 2, rows):  # rows of the same gamma that follow one another
        buffers["coefficients"] = coefficients([GAMMAS[row // max(run, 1) % len(GAMMAS)] for row in range(rows)])
        check_against_plain(operation, buffers)
    # Factors that compare equal, but are not the same: 0 and -0, whose product with v has another sign.
    buffers["coefficients"] = torch.tensor([[1.0, 0.0, 0.5], [1.0, -0.0, 0.5]]).repeat(rows, 1)[:rows]
    buffers |= {name: torch.full(shape, -0.0) for name in "sy"}
    check_against_plain(operation, buffers)


def with_mixed_status(buffers: Buffers) -> Buffers:
    rows = len(buffers["status"])
    return buffers | {"status": torch.tensor([-1, 1, -1, 0, 2, -1, -1, 2, 0], dtype=torch.int8).repeat(rows)[:rows]}


@pytest.mark.parametrize("shape", [(4, 1), (9, 17), (18, 513), (37, 4099)])
@pytest.mark.parametrize("operation", ["close", "close_estimating_mask", "advance"])
def test_rows_that_do_not_run_are_left_as_they_are(
    operation: str, shape: tuple[int, int], set_threads: Callable[[int], None]
) -> None:
    buffers = with_mixed_status(random_buffers(*shape))
    frozen = buffers["status"] != RUNNING
    for name in ("s", "v", "y", "x"):  # what a row is frozen with may be anything
        buffers[name][frozen, ::3] = torch.nan
        buffers[name][frozen, 1::3] = torch.inf
    buffers["settled"] = torch.arange(shape[0]) % 2 == 0
    buffers["recurs"] = torch.arange(shape[0]) % 3 == 0
    buffers["residual"] = torch.where(torch.arange(shape[0]) % 3 == 0, torch.nan, 7.0)
    for threads in (1, 2):
        set_threads(threads)
        expected = {name: tensor.clone() for name, tensor in buffers.items()}
        pairs = {name: guarded(tensor) for name, tensor in buffers.items()}
        actual = {name: pair[0] for name, pair in pairs.items()}
        call(plain, operation, expected)
        call(cpu, operation, actual)
        assert_same(actual, expected)
        assert_guards_are_whole(pairs)
        for name, tensor in buffers.items():
            kept, was = (t[frozen].contiguous().view(torch.uint8) for t in (actual[name], tensor))
            assert torch.equal(kept, was), name
        assert not torch.equal(actual["x"][~frozen], buffers["x"][~frozen])
        renewed = buffers["renew"] & ~frozen & (operation == "close_estimating_mask")
        assert torch.equal(actual["anchor"], torch.where(renewed[:, None], buffers["mask"], buffers["anchor"]))


@pytest.mark.parametrize("operation", ["close", "close_estimating_mask"])
@pytest.mark.parametrize("d", [1, 2, 15, 16, 17, 31, 32, 33, 511, 512, 513, 1031])
def test_one_pixel_decides_whether_the_mask_settled_or_recurs(operation: str, d: int) -> None:
    # With g = 1, 0 < y and w = 2v - s = v = s, the output is (y + w)/2 where kept, w where erased: w = y is found kept
    # in both, w = 9y erased in both. So the estimate is known; mask and anchor are it, but for one pixel each or none.
    changes = [None, *sorted({0, d // 2, d - 1})]
    cases = list(itertools.product(changes, changes, (False, True), (False, True)))
    buffers = random_buffers(len(cases), d) | {"coefficients": coefficients([2.0] * len(cases))}
    estimate = buffers["mask"].clone()
    for row, (*pixels, kept, _) in enumerate(cases):
        for pixel in pixels:
            if pixel is not None:
                estimate[row, pixel] = kept
    mask, anchor = estimate.clone(), estimate.clone()
    for row, (of_mask, of_anchor, _, _) in enumerate(cases):
        if of_mask is not None:
            mask[row, of_mask] ^= True
        if of_anchor is not None:
            anchor[row, of_anchor] ^= True
    renew = torch.tensor([renew for *_, renew in cases])
    y = 1 + buffers["y"].abs()
    w = torch.where(estimate, y, 9 * y)
    buffers |= {"s": w, "v": w, "y": y, "mask": mask, "anchor": anchor, "renew": renew}

    actual = check_against_plain(operation, buffers)
    if operation == "close":
        assert actual["settled"].all()
        assert not actual["recurs"].any()
        assert torch.equal(actual["mask"], mask)
        assert torch.equal(actual["anchor"], anchor)
        return
    assert actual["settled"].tolist() == [of_mask is None for of_mask, *_ in cases]
    recurs = [(of_mask if renewed else of_anchor) is None for of_mask, of_anchor, _, renewed in cases]
    assert actual["recurs"].tolist() == recurs
    assert torch.equal(actual["mask"], estimate)
    assert torch.equal(actual["anchor"], torch.where(renew[:, None], mask, anchor))


@pytest.mark.parametrize("shape", LARGE_SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_threads(operation: str, shape: tuple[int, int], set_threads: Callable[[int], None]) -> None:
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        buffers = with_mixed_status(random_buffers(*shape))
        buffers["coefficients"] = coefficients((GAMMAS * shape[0])[: shape[0]])
        results.append(check_against_plain(operation, buffers))
    for other in results[1:]:
        assert all(torch.equal(bits(other[name]), bits(results[0][name])) for name in other)


@pytest.mark.parametrize("operation", ["close", "close_estimating_mask", "advance", "mean_squares"])
def test_residual_is_the_same_on_all_instruction_sets(operation: str, instruction_set: str) -> None:
    results = []
    for name in ("baseline", instruction_set):
        _C.use_instruction_set(name)
        buffers = random_buffers(5, 12289)
        call(cpu, operation, buffers)
        results.append(buffers["residual"])
    assert torch.equal(*results)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_special_values(operation: str, gamma: float) -> None:
    nan, inf, tiny, huge = (
        torch.nan,
        torch.inf,
        torch.finfo(torch.float32).tiny,
        torch.finfo(torch.float32).max,
    )
    values = [nan, inf, -inf, 0.0, -0.0, 1e-45, -3e-40, tiny, huge, -huge, 1.0, -0.5, 3e38, 1e-3]
    triples = torch.tensor(list(itertools.product(values, repeat=3)))
    buffers = {name: triples[:, column].repeat(2)[None] for column, name in enumerate("svy")}
    size = len(triples)
    buffers["mask"] = torch.arange(2 * size)[None] < size
    buffers["anchor"] = torch.arange(2 * size)[None] % 3 == 0
    buffers["x"] = buffers["s"].roll(5)
    check_against_plain(operation, buffers | vectors(1, gamma))
    # Each pixel as a row, so that residual, settled and recurs, too, are compared value by value.
    columns = {name: tensor.reshape(-1, 1) for name, tensor in buffers.items()}
    check_against_plain(operation, columns | vectors(2 * size, gamma))


def test_ties_of_the_mask_rule() -> None:
    values = [k / 4 for k in range(-8, 9)] + [-0.0]
    x, y = (torch.tensor(side)[None] for side in zip(*itertools.product(values, values), strict=True))
    buffers = random_buffers(*x.shape)
    buffers |= {"s": x, "v": x, "y": y, "mask": torch.zeros_like(x, dtype=torch.bool)}
    actual = check_against_plain("close_estimating_mask", buffers)
    assert torch.equal(actual["x"], x)


def test_any_nonzero_byte_of_a_mask_means_kept() -> None:
    # torch itself writes 0 and 1; a mask viewed from bytes can hold others.
    buffers = random_buffers(2, 97)
    buffers["mask"] = (buffers["mask"].to(torch.uint8) * 0x82).view(torch.bool)
    buffers["anchor"] = (buffers["anchor"].to(torch.uint8) * 0x41).view(torch.bool)
    for operation in ("start", "step", "close"):
        check_against_plain(operation, buffers)
    # For the kernels such a byte and an estimate of kept are the same. torch compares bytes here and there: plain.py is
    # asked about the same masks in zeros and ones. An anchor that is not renewed keeps its bytes.
    usual = buffers | {name: buffers[name].view(torch.uint8).ne(0) for name in ("mask", "anchor")}
    odd = {name: guarded(tensor)[0] for name, tensor in buffers.items()}  # clone() would write zeros and ones
    call(cpu, "close_estimating_mask", odd)
    assert torch.equal(odd["anchor"][0].view(torch.uint8), buffers["anchor"][0].view(torch.uint8))
    odd["anchor"][0] = odd["anchor"][0].view(torch.uint8).ne(0)
    assert_same(odd, check_against_plain("close_estimating_mask", usual))

    pixels = {name: torch.ones(2, 1) for name in "svyx"} | vectors(2)
    pixels["mask"] = torch.full((2, 1), 0x82, dtype=torch.uint8).view(torch.bool)
    pixels["anchor"] = torch.tensor([[0x41], [0]], dtype=torch.uint8).view(torch.bool)
    call(cpu, "close_estimating_mask", pixels)
    assert pixels["settled"].all()
    assert pixels["recurs"].all()
    assert pixels["mask"].view(torch.uint8).tolist() == [[1], [1]]
    assert pixels["anchor"].view(torch.uint8).tolist() == [[0x41], [1]]


@pytest.mark.parametrize("operation", ["start", "step", "close"])
def test_error_against_float64(operation: str) -> None:
    # The contract of all kernels: at most twice the error of the formula in float32 torch, with its divisions.
    buffers, gamma = random_buffers(16, 4099, seed=5), 0.1
    outputs = []
    for dtype in (torch.float64, torch.float32):
        s, v, y = (buffers[name].to(dtype) for name in "svy")
        mask, g = buffers["mask"], gamma / 2
        outputs.append(
            {
                "start": torch.where(mask, y / (1 + g), 0.0),
                "step": torch.where(mask, (y + s + (g - 1) * v) / (1 + g), v),
                "close": torch.where(mask, (y + g * (2 * v - s)) / (1 + g), 2 * v - s),
            }[operation]
        )
    exact, formula = outputs
    buffers["coefficients"] = coefficients([gamma] * 16)
    call(cpu, operation, buffers)
    actual = buffers["x" if operation == "close" else "s"]
    assert (actual - exact).abs().max() <= 2 * (formula - exact).abs().max()


@pytest.mark.parametrize("operation", ["advance", "mean_squares"])
def test_residual_is_squared_and_summed_in_float64(operation: str) -> None:
    x, v = torch.zeros(2, 1_000_003), torch.zeros(2, 1_000_003)
    v[0] = 0.1  # many equal terms: a sum in float32 would be far off
    v[1, :20] = 1e20  # the squares alone are too large for float32
    buffers = vectors(2) | {"x": x, "v": v}
    expected = v.double().square().mean(dim=1).float()
    call(cpu, operation, buffers)
    assert expected.isfinite().all()
    torch.testing.assert_close(buffers["residual"], expected, rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("shape", [(5, 1), (3, 513), (4, 12289)])
def test_images_are_compared_as_successive_estimates_are(shape: tuple[int, int]) -> None:
    """To the bit: scores do not hang on which of the two operations they come from."""
    advanced, compared = random_buffers(*shape), random_buffers(*shape)
    call(cpu, "mean_squares", compared)
    call(cpu, "advance", advanced)
    assert torch.equal(advanced["residual"], compared["residual"])
    assert torch.equal(advanced["x"], compared["v"])


@pytest.mark.parametrize("operation", ["step", "close", "close_estimating_mask", "advance"])
def test_a_wrong_v_is_refused_before_anything_is_written(operation: str) -> None:
    """tests/ops/test_state.py has what is refused."""
    good = random_buffers(4, 6)
    written = "x" if operation == "advance" else "s"
    for v in (good["v"].double(), good["v"][:3], torch.rand(6, 4).T, written):
        buffers = {name: tensor.clone() for name, tensor in good.items()}
        buffers["v"] = buffers[v] if isinstance(v, str) else v
        with pytest.raises((TypeError, ValueError), match=r"^v must "):
            call(cpu, operation, buffers)
        for name in set(good) - {"v"}:
            assert torch.equal(bits(buffers[name]), bits(good[name])), f"{name} changed"


@pytest.mark.parametrize("wrong", ["a", "b", "out"])
def test_what_cannot_be_compared_is_refused(wrong: str) -> None:
    good = {"a": torch.rand(4, 6), "b": torch.rand(4, 6), "out": torch.zeros(4)}
    for fault in (good[wrong].double(), good[wrong][:3], good[wrong][..., None]):
        if wrong != "a" or fault.dtype != torch.float32:
            with pytest.raises((TypeError, ValueError), match=f"^{wrong} must "):
                cpu.mean_squares(**{**good, wrong: fault})


def test_v_may_share_memory_with_what_is_only_read() -> None:
    buffers = random_buffers(4, 6)
    buffers["v"] = buffers["y"]
    for operation in ("step", "close"):
        expected = {name: tensor.clone() for name, tensor in buffers.items()}
        call(plain, operation, expected)
        call(cpu, operation, buffers)
        assert_same(buffers, expected)


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no instruction set called 'mmx'"):
        _C.use_instruction_set("mmx")


def test_addresses_that_are_not_as_many_as_an_operation_has_are_refused() -> None:
    for addresses in ((), (0, 0, 0), (0, 0, 0, -1), [0, 0, 0, 0], (0.0, 0, 0, 0)):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            _C.start(0, 1, 1, addresses)
