from __future__ import annotations

import torch

from memrecon_fast.engine.slots import JudgedSlots, clear, judged_buffers, narrow, put, take, tensors
from memrecon_fast.results import RUNNING


def test_views_are_views() -> None:
    slots = JudgedSlots(**judged_buffers(4, 3, torch.device("cpu")))
    clear(narrow(slots, 1, 3))
    assert slots.status.tolist() == [0, RUNNING, RUNNING, 0]


def test_taking_copies_and_putting_writes_all_that_belongs_to_a_slot() -> None:
    slots = JudgedSlots(**judged_buffers(5, 3, torch.device("cpu")))
    for number, tensor in enumerate(tensors(slots).values()):
        tensor.copy_((torch.arange(5) * 10 + number).view(5, *[1] * (tensor.dim() - 1)))
    before = take(slots, torch.arange(5))
    put(take(slots, torch.tensor([4, 0])), slots, torch.tensor([1, 4]))
    for name, tensor in tensors(slots).items():
        assert torch.equal(tensor, tensors(before)[name][[0, 4, 2, 3, 0]]), name
