"""What stands between Python and kernels that trust their pointers: states, and the v of each call."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from memrecon_fast.ops import admm, anderson
from memrecon_fast.ops.admm import AdmmState, IterationState, Pairs
from memrecon_fast.ops.anderson import AndersonState
from memrecon_fast.ops.state import MAX_PLACES, Order, SomeState, State
from memrecon_fast.results import RUNNING
from tests.helpers.broken import NO_PLAIN, WITHOUT_MEMORY, resized, set_elsewhere

CPU = torch.device("cpu")
KINDS: tuple[type[State], ...] = (IterationState, AdmmState, AndersonState)
FIELDS = [(kind, name) for kind in KINDS for name in kind.buffers()]
ORDERS: list[tuple[type[State], Order]] = [
    (AdmmState, admm.START),
    (AdmmState, admm.STEP),
    (AdmmState, admm.CLOSE),
    (IterationState, admm.ADVANCE),
    (IterationState, admm.STOP),
    (Pairs, admm.MEAN_SQUARES),
    *((AndersonState, getattr(anderson, name)) for name in ("MEASURE", "ESTIMATE", "STOP", "WEIGH", "MIX")),
]


LOSSES: list[Callable[[Tensor], Any]] = [
    lambda tensor: resized(tensor, 0),
    lambda tensor: resized(tensor, tensor.nbytes - 1),
    lambda tensor: resized(resized(tensor, 0), 1),
    set_elsewhere,
]


def grown(tensor: Tensor) -> Tensor:
    return resized(tensor, 2**16)


def some(kind: type[SomeState], rows: int = 4, d: int = 6, places: int = 3) -> SomeState:
    return kind.allocate(rows, d, CPU, places)


def refused(kind: type[State], error: type[Exception], message: str, **changes: Any) -> None:
    with pytest.raises(error, match=message):
        kind(**{**some(kind).tensors(), **changes})


def filled(kind: type[SomeState], rows: int, together: bool, seed: int) -> SomeState:
    """With other numbers everywhere; the same ones however the buffers lie in memory."""
    state = kind.allocate(rows, 6, CPU, 3, together)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.tensors().items():
        below = 3 if kind.buffers()[name].is_place else 2 if tensor.dtype == torch.bool else 100
        tensor.copy_(torch.randint(below, tensor.shape, generator=generator))
    return state


class Counted(TorchDispatchMode):
    """Counts what would be launches on a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.launches += name in ("index_copy_", "index_select", "zero_")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_lie_together_are_moved_together_and_are_the_same(kind: type[State]) -> None:
    indices = torch.tensor([3, 0])
    states, launches = [], []
    for together in (False, True):
        state, rows = filled(kind, 5, together, 1), filled(kind, 3, together, 2).narrow(2)
        for one in (state, rows, state.narrow(4)):
            kind(**one.tensors())  # nothing of it is refused
        with Counted() as counted:
            state.narrow(4).put(indices, rows)
            taken = state.take(indices)
        launches.append(counted.launches)
        assert all(torch.equal(taken.tensors()[name], tensor) for name, tensor in rows.tensors().items())
        taken.put(torch.tensor([1]), filled(kind, 1, together, 3))
        state.narrow(2).zero()
        states.append((state, taken))
    for apart, joined in zip(*states, strict=True):
        assert all(torch.equal(joined.tensors()[name], tensor) for name, tensor in apart.tensors().items())
    buffers = kind.buffers().values()
    numbers = [buffer.dtype for buffer in buffers if buffer.axes == ("rows",)]
    assert launches == [2 * len(buffers), 2 * (len(buffers) - len(numbers) + len(set(numbers)))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_other_buffers_is_no_table(kind: type[State]) -> None:
    """`dataclasses.replace` puts a buffer where the table does not reach."""
    state = filled(kind, 4, True, 1)
    name = next(name for name, buffer in kind.buffers().items() if buffer.axes == ("rows",))
    other = dataclasses.replace(state, **{name: getattr(state, name).clone()})
    other.put(torch.tensor([1]), filled(kind, 1, True, 2))
    assert torch.equal(getattr(other, name)[1:2], getattr(filled(kind, 1, True, 2), name))
    other.zero()
    assert not getattr(other, name).any()


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_what_is_refused(kind: type[State], name: str) -> None:
    tensor = getattr(some(kind), name)
    shape = re.escape(str([*tensor.shape]))
    wrong = {torch.float32: torch.float64, torch.float64: torch.float32}.get(tensor.dtype, torch.uint8)
    refused(kind, TypeError, f"^{name} must be a tensor, not ndarray$", **{name: tensor.numpy()})
    refused(kind, TypeError, f"^{name} must be of {tensor.dtype}, not {wrong}$", **{name: tensor.to(wrong)})
    sparse = f"^{name} must be a dense tensor on cpu, not torch.sparse_coo on cpu$"
    refused(kind, ValueError, sparse, **{name: tensor.to_sparse()})
    strided = torch.stack([tensor, tensor], dim=-1)[..., 0]
    refused(kind, ValueError, f"^{name} must be contiguous, but its strides are", **{name: strided})
    for other in (tensor[..., None].contiguous(), *(() if name == "x" else (tensor[:3],))):
        message = rf"^{name} must have the shape .*, not {re.escape(str([*other.shape]))}$"
        refused(kind, ValueError, message, **{name: other})
    for dimension in range(1, tensor.dim()):
        if name == "x":
            continue  # the first buffer says how many rows and pixels there are
        narrow = tensor.narrow(dimension, 0, 2).contiguous()
        if "steps" in kind.buffers() and name == "steps" and dimension == 1:
            continue  # the first one with places says how many there are
        message = rf"^{name} must have the shape {shape}, not {re.escape(str([*narrow.shape]))}$"
        refused(kind, ValueError, message, **{name: narrow})
    unit = 16 if tensor.shape[-1] == 6 else tensor.element_size()
    if unit > 1:
        memory = torch.zeros(tensor.nbytes + unit, dtype=torch.uint8)[unit // 2 :][: tensor.nbytes]
        with pytest.raises(
            (ValueError, RuntimeError), match=f"^{name} must begin at a multiple of {unit} bytes|offset"
        ):
            kind(**{**some(kind).tensors(), name: memory.view(tensor.dtype).view(tensor.shape)})


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_buffer_elsewhere_is_refused(kind: type[State], name: str) -> None:
    tensor = getattr(some(kind), name)
    first = next(iter(kind.buffers()))
    where = "x must be wholly in memory" if name == first else f"{name} must be a dense tensor on cpu, not .* on meta"
    refused(kind, ValueError, f"^{where}", **{name: tensor.to("meta")})


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_buffer_that_is_not_wholly_in_memory_is_refused(kind: type[State], name: str) -> None:
    for left in (0, 1):
        tensor = torch.zeros_like(getattr(some(kind), name))
        tensor.untyped_storage().resize_(left * (tensor.nbytes - 1))
        message = rf"^{name} must be wholly in memory, but its storage has {left * (tensor.nbytes - 1)} bytes"
        refused(kind, ValueError, message, **{name: tensor})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", [*WITHOUT_MEMORY, *NO_PLAIN])
def test_a_buffer_of_another_kind_than_tensors_with_memory_is_refused(kind: type[State], fault: str) -> None:
    for name in list(kind.buffers())[1:]:
        broken = (WITHOUT_MEMORY | NO_PLAIN)[fault](getattr(some(kind), name))
        with pytest.raises((TypeError, ValueError), match=rf"^{name} must be "):
            kind(**{**some(kind).tensors(), name: broken})


def test_tensors_of_a_transform_are_refused() -> None:
    """Inside of it, too."""
    state = some(AdmmState)

    def step(v: Tensor) -> Tensor:
        with pytest.raises(ValueError, match=r"^v must be a plain tensor with memory of its own: "):
            state.addresses(admm.STEP, v)
        return v.sum()

    torch.vmap(step)(torch.rand(2, 4, 6))
    torch.func.grad(step)(torch.rand(4, 6))


@pytest.mark.parametrize("lose", [*LOSSES, grown])
@pytest.mark.parametrize(("kind", "order"), ORDERS)
def test_memory_that_is_lost_after_slots_were_used_is_noticed(
    kind: type[State], order: Order, lose: Callable[[Tensor], Any]
) -> None:
    v = [torch.rand(4, 6)] if "v" in order.names else []
    some_v = [one[:3] for one in v]
    for name in set(order.names) - {"v"}:
        state, indices = some(kind), torch.tensor([1])
        state.check(order, *v)
        narrowed = state.narrow(3)
        narrowed.check(order, *some_v)
        lose(getattr(state, name))
        works: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            *[(pass_on, (order, *v)) for pass_on in (state.addresses, state.arguments, state.check)],
            *[(narrowed.check, (order, *some_v))] * (lose is not set_elsewhere),  # there the views keep the memory
            (state.take, (indices,)),
            (state.put, (indices, some(kind, 1))),
            (state.narrow, (2,)),
        ]
        for work, arguments in works:
            with pytest.raises(ValueError, match=rf"^{name} must stay where it was when the slots were made"):
                work(*arguments)


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize(("kind", "order"), ORDERS)
def test_memory_that_is_lost_before_the_first_use_is_noticed(
    kind: type[State], order: Order, lose: Callable[[Tensor], Any]
) -> None:
    v = [torch.rand(4, 6)] if "v" in order.names else []
    for name in set(order.names) - {"v"}:
        state = some(kind)
        lose(getattr(state, name))
        for pass_on in (state.addresses, state.arguments, state.check):
            with pytest.raises(ValueError, match=rf"^{name} must be wholly in memory"):
                pass_on(order, *v)


def test_a_parameter_is_as_good_as_any_tensor() -> None:
    state = some(AdmmState)
    assert state.addresses(admm.STEP, nn.Parameter(torch.rand(4, 6)))


def test_a_lazy_view_is_refused() -> None:
    numbers = torch.zeros(4, dtype=torch.complex64)
    negative = torch.imag(numbers.conj())[:1]
    assert negative.is_neg()
    with pytest.raises(ValueError, match=r"^residual must be no lazy view: call .resolve_neg\(\)"):
        IterationState(**{**some(IterationState, rows=1).tensors(), "residual": negative})


@pytest.mark.parametrize("kind", KINDS)
def test_buffers_that_share_memory_are_refused(kind: type[State]) -> None:
    good = some(kind).tensors()
    for name, tensor in good.items():
        for other, beside in good.items():
            if name == other:
                continue
            memory = torch.zeros(tensor.nbytes + beside.nbytes + 16, dtype=torch.uint8)
            at = (tensor.nbytes - 1) // 16 * 16  # the last bytes
            changes = {
                name: memory[: tensor.nbytes].view(tensor.dtype).view(tensor.shape),
                other: memory[at : at + beside.nbytes].view(beside.dtype).view(beside.shape),
            }
            message = f"^({name}|{other}) must share no memory with ({name}|{other})$"
            refused(kind, ValueError, message, **changes)


def test_side_by_side_is_not_shared() -> None:
    memory = torch.zeros(2 * 4 * 8)
    good = some(AdmmState, d=8).tensors()
    AdmmState(**{**good, "x": memory[:32].view(4, 8), "y": memory[32:].view(4, 8)})


@pytest.mark.parametrize("places", [0, MAX_PLACES + 1])
def test_too_few_or_too_many_places_are_refused(places: int) -> None:
    with pytest.raises(ValueError, match=f"^there must be 1 to 33 places for evaluations, not {places}$"):
        some(AndersonState, places=places)
    assert some(AndersonState, places=MAX_PLACES).places == MAX_PLACES


@pytest.mark.parametrize("name", ["head", "base"])
@pytest.mark.parametrize("place", [-1, 3])
def test_what_is_no_place_of_the_ring_is_refused(name: str, place: int) -> None:
    wrong = torch.tensor([0, 1, 2, place], dtype=torch.int32)
    refused(AndersonState, ValueError, f"^{name} must be places of the ring, from 0 to 2$", **{name: wrong})


@pytest.mark.parametrize(("kind", "order"), ORDERS)
def test_an_order_names_what_is_there(kind: type[State], order: Order) -> None:
    assert len(set(order.names)) == len(order.names)
    assert set(order.names) <= {*kind.buffers(), "v"}
    assert order.written
    assert order.written <= set(order.names) - {"v"}
    state, v = some(kind), torch.zeros(4, 6)
    of_v = (v,) if "v" in order.names else ()
    tensors = state.arguments(order, *of_v)
    expected = [v if name == "v" else getattr(state, name) for name in order.names]
    assert all(one is other for one, other in zip(tensors, expected, strict=True))
    assert state.addresses(order, *of_v) == tuple(tensor.data_ptr() for tensor in expected)


@pytest.mark.parametrize(("kind", "order"), [pair for pair in ORDERS if "v" in pair[1].names])
def test_a_wrong_v_is_refused_in_each_call(kind: type[State], order: Order) -> None:
    state, v = some(kind), torch.rand(4, 6)
    shrunk = torch.rand(4, 6)
    shrunk.untyped_storage().resize_(4 * 6 * 4 - 1)
    faults: list[tuple[Any, type[Exception] | tuple[type[Exception], ...], str]] = [
        (None, TypeError, "must be a tensor, not NoneType"),
        (v.numpy(), TypeError, "must be a tensor, not ndarray"),
        (v.double(), TypeError, "must be of torch.float32, not torch.float64"),
        (v.to("meta"), ValueError, "must be a dense tensor on cpu, not torch.strided on meta"),
        (v.to_sparse(), ValueError, "must be a dense tensor on cpu, not torch.sparse_coo on cpu"),
        (v[:3], ValueError, r"must have the shape \[4, 6\], not \[3, 6\]"),
        (v[:, :5].contiguous(), ValueError, r"must have the shape \[4, 6\], not \[4, 5\]"),
        (v.view(2, 2, 6), ValueError, r"must have the shape \[4, 6\], not \[2, 2, 6\]"),
        (torch.rand(6, 4).T, ValueError, "must be contiguous, but its strides are"),
        (torch.rand(25)[1:].view(4, 6), ValueError, "must begin at a multiple of 16 bytes"),
        *[(make(v), (TypeError, ValueError), "must be ") for make in (WITHOUT_MEMORY | NO_PLAIN).values()],
        (shrunk, ValueError, "must be wholly in memory, but its storage has 95 bytes"),
        *[(getattr(state, name), ValueError, f"must share no memory with {name}, ") for name in _like_v(state, order)],
    ]
    state.addresses(order, v)
    for fault, error, message in faults:
        for pass_on in (state.addresses, state.arguments, state.check):
            with pytest.raises(error, match=rf"^v {message}"):
                pass_on(order, fault)


def _like_v(state: State, order: Order) -> list[str]:
    images = [name for name in sorted(order.written) if getattr(state, name).shape == (4, 6)]
    return [name for name in images if getattr(state, name).dtype == torch.float32]


def test_v_may_share_memory_with_what_is_only_read() -> None:
    state = some(AdmmState)
    state.addresses(admm.STEP, state.y)
    ring = some(AndersonState, places=1)
    with pytest.raises(ValueError, match=r"^v must share no memory with steps, which is written"):
        ring.addresses(anderson.MEASURE, ring.steps[:, 0])


def test_compared_images_may_share_memory_but_not_with_the_result() -> None:
    a = torch.rand(1, 8)
    Pairs(a, a, torch.zeros(1))
    with pytest.raises(ValueError, match=r"^a must share no memory with out$"):
        Pairs(a, a.clone(), a[0, :1])


def test_a_kernel_of_the_cpu_is_given_nothing_else() -> None:
    state = object.__new__(IterationState)
    state.__dict__.update({name: tensor.to("meta") for name, tensor in some(IterationState).tensors().items()})
    with pytest.raises(ValueError, match=r"^the slots must be on cpu, not on meta$"):
        state.addresses(admm.STOP)


def numbered(kind: type[SomeState], rows: int) -> SomeState:
    """All that belongs to a slot tells which slot and which buffer it is of."""
    state = some(kind, rows)
    for number, tensor in enumerate(state.tensors().values()):
        tensor.copy_((torch.arange(rows) * 10 + number).view(rows, *[1] * (tensor.dim() - 1)))
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_views_are_views(kind: type[State]) -> None:
    state = numbered(kind, 4)
    first = state.narrow(3)
    assert (first.rows, first.d) == (3, 6)
    for name, tensor in first.tensors().items():
        assert tensor.data_ptr() == getattr(state, name).data_ptr()
        assert torch.equal(tensor, getattr(state, name)[:3])
    assert state.narrow(4) is state


@pytest.mark.parametrize("kind", KINDS)
def test_taking_copies_and_putting_writes_all_that_belongs_to_a_slot(kind: type[State]) -> None:
    state = numbered(kind, 5)
    before = state.take(torch.arange(5))
    state.put(torch.tensor([1, 4]), state.take(torch.tensor([4, 0])))
    for name, tensor in state.tensors().items():
        assert torch.equal(tensor, getattr(before, name)[[0, 4, 2, 3, 0]]), name
    rows = state.at(torch.tensor([3]))
    assert torch.equal(rows("x"), before.x[[3]])  # type: ignore[attr-defined]


def test_slots_that_begin_have_no_estimate_and_no_counts() -> None:
    state = numbered(AdmmState, 4)
    state.narrow(2).begin()
    assert state.status.tolist()[:2] == [RUNNING] * 2
    assert not state.x[:2].any()
    for name, buffer in AdmmState.buffers().items():
        tensor: Tensor = getattr(state, name)
        if buffer.axes == ("rows",) and name != "status":
            assert not tensor[:2].any(), name
        assert tensor[2:].any(), name
