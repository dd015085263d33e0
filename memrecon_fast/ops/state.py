"""Buffers that describe themselves: the state of the slots is a dataclass of tensors, which the operations work on.

A field says once what its buffer is (`pixels`, `per_row`, `place`): its dtype and its axes. `rows` is the number of
slots, d that of pixels, q that of places in the ring of evaluations. All buffers are checked when a state is made. An
operation takes a state, and beside it only v, what the autoencoder answered: that is checked in each call, and whether
the memory of the buffers is still there: whoever holds a tensor can free its storage. After these checks kernels trust
the addresses. They trust no number in a buffer: places of the ring are clamped to it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from memrecon_fast.common.errors import one_line

MAX_PLACES = 33
"""Of the ring of evaluations, q: what the kernels have room for."""
ALIGNMENT = 16
"""In bytes, of what has pixels: what a GPU moves at once."""

SomeState = TypeVar("SomeState", bound="State")
_Span = tuple[int, int, str]
"""Where a buffer begins and ends in memory, and its name."""
_PLAIN = (Tensor, nn.Parameter)
"""Other tensors need not have memory, whatever they say of themselves."""
_STRIDED = torch.strided
_begin_of = Tensor.data_ptr
_size_of = torch.UntypedStorage.nbytes


@dataclasses.dataclass(frozen=True)
class Buffer:
    """What a buffer is."""

    dtype: torch.dtype
    axes: tuple[int | str, ...]
    """The sizes: "rows", "d" and "q", which all buffers of a state agree on, or a number."""
    is_place: bool = False
    """Whether the entries are places of the ring, from 0 to q − 1."""

    @property
    def has_pixels(self) -> bool:
        """Whether there is an entry for every pixel."""
        return self.axes[-1] == "d"


def per_row(dtype: torch.dtype = torch.float32, *axes: int | str) -> Any:
    """A field of `State`: [rows, *axes]."""
    return dataclasses.field(metadata={"buffer": Buffer(dtype, ("rows", *axes))})


def pixels(dtype: torch.dtype = torch.float32) -> Any:
    """A field of `State`: [rows, d]."""
    return per_row(dtype, "d")


def place() -> Any:
    """A field of `State`: int32 [rows], a place of the ring."""
    return dataclasses.field(metadata={"buffer": Buffer(torch.int32, ("rows",), is_place=True)})


class Order:
    """The buffers of an operation in the order in which its kernels take them, by name; `!` marks what it writes.

    v is what the autoencoder answered; all others are fields of the state.
    """

    def __init__(self, names: str) -> None:
        self.names = tuple(name.rstrip("!") for name in names.split())
        self.written = frozenset(name[:-1] for name in names.split() if name.endswith("!"))


@dataclasses.dataclass(frozen=True)
class _Passed:
    """What of a state goes to the kernel of an operation; 0 and None stand for v."""

    addresses: tuple[int, ...]
    tensors: tuple[Tensor | None, ...]
    v_at: int | None
    written: tuple[_Span, ...]
    memory: _Memory


class _Memory:
    """Where buffers are, and their storages: whether that is still so is quickly asked."""

    def __init__(self, buffers: dict[str, Tensor]) -> None:
        for name, tensor in buffers.items():
            check_in_memory(name, tensor)
        self._names, self._tensors = tuple(buffers), tuple(buffers.values())
        self._storages = tuple(tensor.untyped_storage() for tensor in self._tensors)
        self._begins, self._sizes = self._now()

    def check(self) -> None:
        """Raise ValueError for a buffer whose memory was freed, cut or moved."""
        begins, sizes = self._now()
        if begins == self._begins and sizes == self._sizes:
            return
        before, now = (zip(*both, strict=True) for both in ((self._begins, self._sizes), (begins, sizes)))
        name, (begin, size) = next(
            (name, place) for name, was, place in zip(self._names, before, now, strict=True) if place != was
        )
        raise ValueError(
            f"{name} must stay where it was when the slots were made, but now it is in {size} bytes at {begin}; "
            f"an autoencoder must leave its input alone"
        )

    def _now(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(map(_begin_of, self._tensors)), tuple(map(_size_of, self._storages))


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """Row i of every buffer belongs to slot i. The memory of a buffer stays where it is: addresses are kept.

    Making one raises TypeError for a buffer that is no plain tensor or has another dtype than its field says, and
    ValueError for one that has another shape, is not contiguous, is on another device than the others, or not wholly in
    memory, shares memory with another one, or has pixels that do not begin at a multiple of 16 bytes; for a number of
    places that is not 1 to 33, and for a place that is not one of the ring. Later use raises ValueError where the
    memory of a buffer was freed, cut or moved.
    """

    may_share: ClassVar[frozenset[str]] = frozenset()
    """Buffers that may share memory with one another, since no operation writes them."""
    not_read_at_first: ClassVar[frozenset[str]] = frozenset()
    """Buffers of which an image that begins reads nothing that it has not written."""

    def __post_init__(self) -> None:
        device = next((t.device for t in self.tensors().values() if isinstance(t, Tensor)), torch.device("cpu"))
        sizes: dict[int | str, int] = {}
        tensors = self.tensors()
        spans = [_check(name, tensors[name], buffer, sizes, device) for name, buffer in self.buffers().items()]
        if not 1 <= sizes.get("q", 1) <= MAX_PLACES:
            raise ValueError(f"there must be 1 to {MAX_PLACES} places for evaluations, not {sizes['q']}")
        _check_sharing(spans, self.may_share)
        for name, buffer in self.buffers().items():
            if buffer.is_place and bool(((tensors[name] < 0) | (tensors[name] >= sizes["q"])).any()):
                raise ValueError(f"{name} must be places of the ring, from 0 to {sizes['q'] - 1}")

    @classmethod
    def allocate(
        cls: type[SomeState],
        rows: int,
        d: int,
        device: torch.device,
        places: int = 1,
        together: bool | None = None,
    ) -> SomeState:
        """Buffers full of zeros, but for what is not read before it is written.

        together: whether those with one entry for each slot are rows of one table for each dtype, which `put`, `take`
            and `zero` move as one. None: on a GPU, where each of them would be a launch.
        """
        sizes = {"rows": rows, "d": d, "q": places}

        def make(name: str) -> Tensor:
            buffer = cls.buffers()[name]
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in buffer.axes]
            fill = torch.empty if name in cls.not_read_at_first else torch.zeros
            return fill(shape, dtype=buffer.dtype, device=device)

        if not 1 <= places <= MAX_PLACES:
            raise ValueError(f"there must be 1 to {MAX_PLACES} places for evaluations, not {places}")
        together = device.type == "cuda" if together is None else together
        names = cls._names_of_tables() if together else {}
        tables = {dtype: torch.zeros(len(names[dtype]), rows, dtype=dtype, device=device) for dtype in names}
        return cls._of_tables(tables, make)

    @classmethod
    @functools.cache
    def buffers(cls) -> dict[str, Buffer]:
        """What the buffers are, by name."""
        return {field.name: field.metadata["buffer"] for field in dataclasses.fields(cls)}

    def tensors(self) -> dict[str, Tensor]:
        """All buffers, by name."""
        return {name: getattr(self, name) for name in self.buffers()}

    @functools.cached_property
    def rows(self) -> int:
        """The number of slots."""
        return self._size("rows")

    @functools.cached_property
    def d(self) -> int:
        """The number of pixels."""
        return self._size("d")

    @functools.cached_property
    def places(self) -> int:
        """The number of places in the ring."""
        return self._size("q")

    @functools.cached_property
    def device(self) -> torch.device:
        """Where all buffers are."""
        return next(iter(self.tensors().values())).device

    def narrow(self: SomeState, rows: int) -> SomeState:
        """A view of the first `rows` slots."""
        if rows == self.rows:
            return self
        self._memory.check()
        narrowed = self.__dict__.get("_narrowed")  # most often that of the block before
        if narrowed is None or narrowed.rows != rows:
            tables = {dtype: table[:, :rows] for dtype, table in self._tables.items()}
            narrowed = self._of({name: tensor[:rows] for name, tensor in self.tensors().items()}, tables)
            self.__dict__["_narrowed"] = narrowed
        return narrowed

    def take(self: SomeState, indices: Tensor) -> SomeState:
        """A copy of the slots with these indices, int64 [n]."""
        rows = self.at(indices)
        tables = {dtype: torch.index_select(table, 1, indices) for dtype, table in self._tables.items()}
        return self._of_tables(tables, rows)

    def at(self, indices: Tensor) -> Callable[[str], Tensor]:
        """Copies the rows with these indices, int64 [n], of a buffer by its name."""
        self._memory.check()
        return lambda name: torch.index_select(getattr(self, name), 0, indices)

    def put(self: SomeState, indices: Tensor, rows: SomeState, begun: bool = False) -> None:
        """Make the slots with these indices, int64 [n], what `rows` has.

        begun: its images have just begun: what they do not read at first stays as it is.
        """
        self._memory.check()
        together = bool(self._tables and rows._tables)
        if together:  # on a GPU each copy is a launch
            for dtype, table in self._tables.items():
                table.index_copy_(1, indices, rows._tables[dtype])
        for name, tensor in rows.tensors().items():
            left = (together and self.buffers()[name].axes == ("rows",)) or (begun and name in self.not_read_at_first)
            if not left:
                getattr(self, name).index_copy_(0, indices, tensor)

    def zero(self) -> None:
        """Make all 0 that has one entry for each slot."""
        for table in self._tables.values():
            table.zero_()
        for name, buffer in self.buffers().items():
            if buffer.axes == ("rows",) and not self._tables:
                getattr(self, name).zero_()

    def addresses(self, order: Order, v: Tensor | None = None) -> tuple[int, ...]:
        """What a kernel on the CPU is given. Raises TypeError or ValueError for a v that it must not have."""
        if self.device.type != "cpu":
            raise ValueError(f"the slots must be on cpu, not on {self.device}")
        passed = self._pass(order)
        passed.memory.check()
        if passed.v_at is None:
            return passed.addresses
        begin = self._check_v(v, passed.written)
        return (*passed.addresses[: passed.v_at], begin, *passed.addresses[passed.v_at + 1 :])

    def arguments(self, order: Order, v: Tensor | None = None) -> tuple[Tensor | None, ...]:
        """What a kernel of Triton's is given. Raises TypeError or ValueError for a v that it must not have."""
        passed = self._pass(order)
        passed.memory.check()
        if passed.v_at is None:
            return passed.tensors
        self._check_v(v, passed.written)
        return (*passed.tensors[: passed.v_at], v, *passed.tensors[passed.v_at + 1 :])

    def check(self, order: Order, v: Tensor | None = None) -> None:
        """What torch is given, in `plain`. Raises TypeError or ValueError for a v that it must not have."""
        self.arguments(order, v)

    @classmethod
    def _of(
        cls: type[SomeState], tensors: dict[str, Tensor], tables: dict[torch.dtype, Tensor] | None = None
    ) -> SomeState:
        """A state of buffers that need no check, which on a GPU would wait for it."""
        state = object.__new__(cls)
        state.__dict__.update(tensors)
        state.__dict__["_tables"] = tables or {}
        return state

    @classmethod
    def _of_tables(
        cls: type[SomeState], tables: dict[torch.dtype, Tensor], other: Callable[[str], Tensor]
    ) -> SomeState:
        """A state whose buffers with one entry for each slot are the rows of these tables, if there are any, and whose
        others are made by name."""
        names = cls._names_of_tables()
        known = {name: row for dtype in tables for name, row in zip(names[dtype], tables[dtype].unbind(), strict=True)}
        return cls._of({name: known[name] if name in known else other(name) for name in cls.buffers()}, tables)

    @classmethod
    @functools.cache
    def _names_of_tables(cls) -> dict[torch.dtype, list[str]]:
        """The buffers with one entry for each slot, by dtype."""
        names: dict[torch.dtype, list[str]] = {}
        for name, buffer in cls.buffers().items():
            if buffer.axes == ("rows",):
                names.setdefault(buffer.dtype, []).append(name)
        return names

    @functools.cached_property
    def _tables(self) -> dict[torch.dtype, Tensor]:
        """By dtype [buffers, rows]: the memory of all buffers with one entry for each slot, where they were allocated
        together; empty where they were not."""
        return {}

    def _size(self, axis: str) -> int:
        found = ((name, one.axes.index(axis)) for name, one in self.buffers().items() if axis in one.axes)
        name, dimension = next(found)
        return int(getattr(self, name).shape[dimension])

    def _pass(self, order: Order) -> _Passed:
        if order not in self._passed:
            tensors = tuple(None if name == "v" else getattr(self, name) for name in order.names)
            self._passed[order] = _Passed(
                addresses=tuple(0 if tensor is None else tensor.data_ptr() for tensor in tensors),
                tensors=tensors,
                v_at=order.names.index("v") if "v" in order.names else None,
                written=tuple(_span(name, getattr(self, name)) for name in sorted(order.written)),
                memory=_Memory({name: getattr(self, name) for name in order.names if name != "v"}),
            )
        return self._passed[order]

    @functools.cached_property
    def _passed(self) -> dict[Order, _Passed]:
        return {}

    @functools.cached_property
    def _memory(self) -> _Memory:
        return _Memory(self.tensors())

    @functools.cached_property
    def _shape(self) -> tuple[int, int]:
        return (self.rows, self.d)

    @functools.cached_property
    def _bytes_of_v(self) -> int:
        return self.rows * self.d * _V.dtype.itemsize

    def _check_v(self, v: Tensor | None, written: Iterable[_Span]) -> int:
        """Where it begins."""
        begin = self._begin_of_good(v)
        if not begin:
            begin, _, _ = _check("v", v, _V, {"rows": self.rows, "d": self.d}, self.device)
        end = begin + self._bytes_of_v
        for other_begin, other_end, other in written:
            if begin < other_end and other_begin < end:
                raise ValueError(f"v must share no memory with {other}, which is written")
        return begin

    def _begin_of_good(self, v: Any) -> int:
        """Where v begins, found in less time than by `_check`; 0 for one that is unusual or wrong."""
        if type(v) is not Tensor or v.dtype is not _V.dtype or v.layout is not _STRIDED or v.is_nested:
            return 0
        if v.shape != self._shape or v.device != self.device or not v.is_contiguous() or v.is_neg():
            return 0
        try:
            begin, size = v.data_ptr(), v.untyped_storage().nbytes()
        except RuntimeError:
            return 0
        inside = v.storage_offset() * _V.dtype.itemsize + self._bytes_of_v <= size
        return begin if inside and not begin % ALIGNMENT else 0


_V = Buffer(torch.float32, ("rows", "d"))


def check_in_memory(name: str, tensor: Tensor) -> None:
    """Raise TypeError or ValueError for a dense tensor that is not wholly in memory: torch, too, would read beside it.

    Its storage may have been freed or cut after it was made, or there is none: fake, zero and wrapped tensors.
    """
    if type(tensor) not in _PLAIN:
        raise TypeError(f"{name} must be a plain tensor, not {type(tensor).__name__}")
    try:
        storage = tensor.untyped_storage()
        begin, size = storage.data_ptr(), storage.nbytes()
        entries = tensor.numel()
        if entries and not tensor.is_contiguous():
            entries = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        used = (tensor.storage_offset() + entries) * tensor.itemsize if entries else 0
        unusual = not entries and (tensor._is_zerotensor() or torch._is_functional_tensor(tensor))
    except RuntimeError as error:
        raise ValueError(f"{name} must be a plain tensor with memory of its own: {one_line(error)}") from error
    if unusual:
        raise ValueError(f"{name} must be a plain tensor with memory of its own")
    if used > size or (used and not begin):
        raise ValueError(f"{name} must be wholly in memory, but its storage has {size} bytes at {begin}")


def _check(
    name: str, tensor: Tensor | None, buffer: Buffer, sizes: dict[int | str, int], device: torch.device
) -> _Span:
    """Where the buffer is, if a kernel may have it; `sizes` has those that are known, and gets those that are not."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
    if type(tensor) not in _PLAIN:
        raise TypeError(f"{name} must be a plain tensor, not {type(tensor).__name__}")
    if tensor.dtype is not buffer.dtype:
        raise TypeError(f"{name} must be of {buffer.dtype}, not {tensor.dtype}")
    if tensor.device != device or tensor.layout is not _STRIDED or tensor.is_nested:
        raise ValueError(f"{name} must be a dense tensor on {device}, not {tensor.layout} on {tensor.device}")
    shape, axes = tensor.shape, buffer.axes
    fits = len(shape) == len(axes)
    for axis, size in zip(axes, shape, strict=False):
        fits = fits and (sizes.setdefault(axis, size) if isinstance(axis, str) else axis) == size
    if not fits:
        expected = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
        raise ValueError(f"{name} must have the shape [{expected}], not {list(shape)}")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous, but its strides are {list(tensor.stride())}")
    if tensor.is_neg():  # its memory has the numbers with another sign
        raise ValueError(f"{name} must be no lazy view: call .resolve_neg()")
    check_in_memory(name, tensor)
    begin, _, _ = span = _span(name, tensor)
    if begin % (ALIGNMENT if buffer.has_pixels else tensor.itemsize):
        unit = ALIGNMENT if buffer.has_pixels else tensor.itemsize
        raise ValueError(f"{name} must begin at a multiple of {unit} bytes, as what torch allocates does")
    return span


def _span(name: str, tensor: Tensor) -> _Span:
    begin = tensor.data_ptr()
    return begin, begin + tensor.nbytes, name


def _check_sharing(spans: list[_Span], may_share: frozenset[str]) -> None:
    for (begin, end, name), (other_begin, other_end, other) in itertools.combinations(spans, 2):
        if begin < other_end and other_begin < end and not {name, other} <= may_share:
            raise ValueError(f"{name} must share no memory with {other}")
