"""How much memory there is, how much slots take, and how many of them suit it."""

from __future__ import annotations

import bisect
import math
import sys

import torch

from memrecon_fast.common.memory import available_memory, in_units
from memrecon_fast.engine.solver import Solver

ARRIVALS = 256
"""At most so many images are loaded at a time, and read ahead on a GPU ..."""
BYTES_OF_ARRIVALS = 64 * 2**20
"""... and, beyond the first one, no more than fit into this."""
MAX_SLOTS_ON_GPU = 4096
"""Enough to keep a large GPU busy; with more, the last few images of a run would cost more."""
MIN_SLOTS_OF_TWO_GROUPS = 2048
"""With fewer, two groups of half as many slots take longer than one: a GPU is not busy with so few rows."""
MAX_SLOTS_ON_CPU = 256
"""With more rows no forward pass was faster; how many of these slots are filled, `Width` finds."""
SHARE_OF_MEMORY = 0.5
"""Of the free memory: what the slots may take by estimate, where their number is not asked for."""


def groups_of(device: torch.device, slots: int) -> int:
    """Into how many tables the slots are divided."""
    return 2 if device.type == "cuda" and slots >= MIN_SLOTS_OF_TWO_GROUPS else 1


def bytes_of_slot(solver: Solver) -> int:
    """What a slot takes: its row of all buffers."""
    buffers = solver.allocate(0).tensors().values()
    return sum(math.prod(tensor.shape[1:]) * tensor.itemsize for tensor in buffers)


def arrivals_of(bytes_of_slot: int, slots: int) -> int:
    """How many images are loaded at a time, into rows of their own, where there are so many slots."""
    return max(1, min(slots, ARRIVALS, BYTES_OF_ARRIVALS // max(bytes_of_slot, 1)))


class Need:
    """What slots of a solver take, and those of its early one."""

    def __init__(self, solver: Solver) -> None:
        stages = [stage for stage in (solver, solver.early) if stage is not None]
        self._stages = [(stage.prox, bytes_of_slot(stage)) for stage in stages]
        self._device = solver.prox.device
        self._shape = solver.prox.image_shape

    def least(self, slots: int) -> int:
        """Bytes: the slots, what is loaded into them, and what enters and leaves f."""
        return self._bytes(slots, inside=0)

    def estimate(self, slots: int) -> int:
        """Bytes, with all tensors that f computes: what it frees in time is counted, too."""
        return self._bytes(slots, inside=1)

    def fitting(self, size: float, most: int, estimated: bool = False) -> int:
        """How many slots fit into so many bytes, at most `most`; 0 where not even one does."""
        return bisect.bisect_right(range(1, min(most, 2**40) + 1), size, key=self.estimate if estimated else self.least)

    def check(self, slots: int) -> None:
        """Raise ValueError where there is certainly too little memory for so many slots."""
        there, needed = free_memory(self._device), self.least(slots)
        if needed <= there:
            return
        fit = self.fitting(there, slots)
        advice = f"at most {fit} fit" if fit else "not even one fits: the images are too large"
        raise ValueError(
            f"slots={slots} for images of shape {self._shape} take at least {in_units(needed)} of memory, and "
            f"{in_units(there)} are free: {advice}"
        )

    def _bytes(self, slots: int, inside: int) -> int:
        groups = groups_of(self._device, slots)
        share = -(-slots // groups)
        total = 0
        for prox, row in self._stages:
            total += row * groups * (share + arrivals_of(row, share))
            total += prox.block_sizes(share)[-1] * (2 * 4 * prox.pixels + inside * prox.bytes_per_row)
        return total


def slots_by_default(solver: Solver, share_of_memory: float = SHARE_OF_MEMORY) -> int:
    """The number of slots where none is asked for: 256 on a CPU, 4096 on a GPU, or as many as this share of its free
    memory should hold; at least 1."""
    device = solver.prox.device
    most = MAX_SLOTS_ON_GPU if device.type == "cuda" else MAX_SLOTS_ON_CPU
    return max(1, Need(solver).fitting(share_of_memory * free_memory(device), most, estimated=True))


def free_memory(device: torch.device) -> int:
    """Bytes that may still be taken; as good as infinite where the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = available_memory()
    return sys.maxsize if available is None else available
