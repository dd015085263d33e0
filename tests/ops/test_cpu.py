"""The compiled CPU kernels against ops/plain.py: bit for bit, on every instruction set, by any number of threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from memrecon_fast.ops import plain

_C: Any = pytest.importorskip("memrecon_fast._C", reason="built without the C++ kernels")
cpu: Any = pytest.importorskip("memrecon_fast.ops.cpu")

OPERATIONS = ["start", "step", "close", "close_estimating_mask", "advance"]
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
GUARD = 68  # bytes on both sides of a buffer: of float32 alignment, but of no vector's

Buffers = dict[str, Tensor]


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
    buffers["mask"] = torch.rand(rows, d, generator=generator) < 0.5
    buffers["mse"] = torch.empty(rows)
    return buffers


def call(ops: Any, operation: str, b: Buffers, gamma: float) -> None:
    """Run one operation of plain.py or cpu.py."""
    if operation == "start":
        ops.start(b["s"], b["y"], b["mask"], gamma)
    elif operation == "step":
        ops.step(b["s"], b["v"], b["y"], b["mask"], gamma)
    elif operation == "advance":
        ops.advance(b["x"], b["v"], b["mse"])
    else:
        estimate_mask = operation == "close_estimating_mask"
        ops.close(b["s"], b["v"], b["y"], b["mask"], b["x"], b["mse"], gamma, estimate_mask)


def poison(buffers: Buffers, operation: str) -> None:
    """Fill what the operation writes without reading it with NaN."""
    buffers["mse"].fill_(torch.nan)
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
    """Bit for bit; mse to one unit in the last place, since it is summed in another order."""
    for name, tensor in expected.items():
        if name == "mse":  # non-negative: neighbouring floats are neighbouring integers
            assert torch.all((bits(actual[name]).long() - bits(tensor).long()).abs() <= 1), name
        else:
            assert torch.equal(bits(actual[name]), bits(tensor)), name


def check_against_plain(operation: str, buffers: Buffers, gamma: float) -> Buffers:
    """Run both on copies, cpu.py's between guards; return what cpu.py made."""
    expected = {name: tensor.clone() for name, tensor in buffers.items()}
    pairs = {name: guarded(tensor) for name, tensor in buffers.items()}
    actual = {name: pair[0] for name, pair in pairs.items()}
    for copy in (expected, actual):
        poison(copy, operation)
    call(plain, operation, expected, gamma)
    call(cpu, operation, actual, gamma)
    assert_same(actual, expected)
    for name, (_, memory) in pairs.items():
        guards = torch.cat([memory[:GUARD], memory[-GUARD:]])
        assert torch.all(guards == 0xFF), f"the kernel wrote beside {name}"
    return actual


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_bit_identical(operation: str, shape: tuple[int, int]) -> None:
    for gamma in GAMMAS:
        check_against_plain(operation, random_buffers(*shape), gamma)


@pytest.mark.parametrize("shape", LARGE_SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_threads(operation: str, shape: tuple[int, int], set_threads: Callable[[int], None]) -> None:
    results = []
    for threads in (1, 2, 3):
        set_threads(threads)
        results.append(check_against_plain(operation, random_buffers(*shape), 0.5))
    for other in results[1:]:
        assert all(torch.equal(bits(other[name]), bits(results[0][name])) for name in other)


@pytest.mark.parametrize("operation", ["close", "close_estimating_mask", "advance"])
def test_mse_is_the_same_on_all_instruction_sets(operation: str, instruction_set: str) -> None:
    results = []
    for name in ("baseline", instruction_set):
        _C.use_instruction_set(name)
        buffers = random_buffers(5, 12289)
        call(cpu, operation, buffers, 0.1)
        results.append(buffers["mse"])
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
    buffers["x"] = buffers["s"].roll(5)
    buffers["mse"] = torch.empty(1)
    check_against_plain(operation, buffers, gamma)
    # Each pixel as a row, so that mse, too, is compared value by value.
    check_against_plain(
        operation,
        {name: tensor.reshape(-1, 1) for name, tensor in buffers.items()} | {"mse": torch.empty(2 * size)},
        gamma,
    )


def test_ties_of_the_mask_rule() -> None:
    values = [k / 4 for k in range(-8, 9)] + [-0.0]
    x, y = (torch.tensor(side)[None] for side in zip(*itertools.product(values, values), strict=True))
    buffers = random_buffers(*x.shape)
    buffers |= {"s": x, "v": x, "y": y, "mask": torch.zeros_like(x, dtype=torch.bool)}
    actual = check_against_plain("close_estimating_mask", buffers, 0.5)
    assert torch.equal(actual["x"], x)


def test_any_nonzero_byte_of_a_mask_means_kept() -> None:
    # torch itself writes 0 and 1; a mask viewed from bytes can hold others.
    buffers = random_buffers(2, 97)
    buffers["mask"] = (buffers["mask"].to(torch.uint8) * 0x82).view(torch.bool)
    for operation in ("start", "step", "close"):
        check_against_plain(operation, buffers, 0.5)


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
    call(cpu, operation, buffers, gamma)
    actual = buffers["x" if operation == "close" else "s"]
    assert (actual - exact).abs().max() <= 2 * (formula - exact).abs().max()


def test_mse_is_squared_and_summed_in_float64() -> None:
    x, v, mse = torch.zeros(2, 1_000_003), torch.zeros(2, 1_000_003), torch.empty(2)
    v[0] = 0.1  # many equal terms: a sum in float32 would be far off
    v[1, :20] = 1e20  # the squares alone are too large for float32
    expected = v.double().square().mean(dim=1).float()
    cpu.advance(x, v, mse)
    assert expected.isfinite().all()
    torch.testing.assert_close(mse, expected, rtol=1.2e-7, atol=0)


ARGUMENTS = [
    (operation, name)
    for operation, names in {
        "start": ["s", "y", "mask"],
        "step": ["s", "v", "y", "mask"],
        "close": ["s", "v", "y", "mask", "x", "mse"],
        "advance": ["x", "v", "mse"],
    }.items()
    for name in names
]


def assert_refused(operation: str, buffers: Buffers, error: type[Exception], message: str) -> None:
    before = {name: tensor.clone() for name, tensor in buffers.items() if isinstance(tensor, Tensor)}
    with pytest.raises(error, match=message):
        call(cpu, operation, buffers, 0.5)
    for name, tensor in before.items():
        if tensor.device.type == "cpu" and not tensor.is_sparse:
            assert torch.equal(bits(tensor.float()), bits(buffers[name].float())), f"{name} changed"


@pytest.mark.parametrize(("operation", "name"), ARGUMENTS)
def test_what_is_refused(operation: str, name: str) -> None:
    good = random_buffers(4, 6)
    tensor = good[name]

    array: dict[str, Any] = {name: tensor.numpy()}
    assert_refused(operation, good | array, TypeError, f"^{name} must be a tensor, not ndarray")
    wrong, usual = (torch.uint8, "bool") if name == "mask" else (torch.float64, "float32")
    message = f"^{name} must be of torch.{usual}, not {wrong}"
    assert_refused(operation, good | {name: tensor.to(wrong)}, TypeError, message)
    message = f"^{name} must be a dense tensor on the CPU, not .* on meta"
    assert_refused(operation, good | {name: tensor.to("meta")}, ValueError, message)
    message = f"^{name} must be a dense tensor on the CPU, not torch.sparse_coo"
    assert_refused(operation, good | {name: tensor.to_sparse()}, ValueError, message)

    first = name == ("x" if operation == "advance" else "s")
    strided = torch.stack([tensor, tensor], dim=-1)[..., 0]
    assert_refused(operation, good | {name: strided}, ValueError, f"^{name} must be contiguous, but its strides are")
    message = f"^{name} must have the shape .*, not {[4, 6, 1] if name != 'mse' else [4, 1]}".replace("[", r"\[")
    assert_refused(operation, good | {name: tensor[..., None].contiguous()}, ValueError, message)
    if not first:
        shape = r"\[4\], not \[3\]" if name == "mse" else r"\[4, 6\], not \[3, 6\]"
        assert_refused(operation, good | {name: tensor[:3]}, ValueError, f"^{name} must have the shape {shape}")


ALIASES = [
    *[("start", "s", "y"), ("start", "s", "mask")],
    *[("step", "s", other) for other in ("v", "y", "mask")],
    *[
        ("close", *pair)
        for pair in itertools.combinations(["s", "v", "y", "mask", "x", "mse"], 2)
        if pair != ("v", "y")
    ],
    *[("advance", *pair) for pair in itertools.combinations(["x", "v", "mse"], 2)],
]


@pytest.mark.parametrize(("operation", "name", "other"), ALIASES)
def test_aliasing_is_refused(operation: str, name: str, other: str) -> None:
    buffers = random_buffers(4, 6)
    sizes = buffers[name].nbytes, buffers[other].nbytes
    memory = torch.zeros(sum(sizes), dtype=torch.uint8)
    buffers[name] = memory[: sizes[0]].view(buffers[name].dtype).view(buffers[name].shape)
    for offset in (0, sizes[0] - 4):  # all of it, and the last four bytes
        shared = memory[offset : offset + sizes[1]]
        buffers[other] = shared.view(buffers[other].dtype).view(buffers[other].shape)
        assert_refused(operation, buffers, ValueError, f"^({name}|{other}) must share no memory with ({name}|{other})")
    # Side by side is not shared.
    buffers[other] = memory[sizes[0] :].view(buffers[other].dtype).view(buffers[other].shape)
    call(cpu, operation, buffers, 0.5)


def test_arguments_that_are_only_read_may_share() -> None:
    buffers = random_buffers(4, 6)
    buffers["v"] = buffers["y"]
    for operation in ("step", "close"):
        expected = {name: tensor.clone() for name, tensor in buffers.items()}
        call(plain, operation, expected, 0.5)
        call(cpu, operation, buffers, 0.5)
        assert_same(buffers, expected)


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(ValueError, match="no instruction set called 'mmx'"):
        _C.use_instruction_set("mmx")
