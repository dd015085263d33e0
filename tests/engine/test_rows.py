"""Images that lie one behind the other, so that many are copied as one; on a GPU in pinned memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from memrecon_fast.engine import rows
from memrecon_fast.engine.rows import in_rows
from memrecon_fast.engine.samples import Sample, Staged
from memrecon_fast.engine.transfer import copy_blocks, runs


def staged(count: int, side: int = 2) -> Iterator[Staged]:
    generator = torch.Generator().manual_seed(0)
    for index in range(count):
        y = torch.rand(3, side, side, generator=generator)
        yield Staged(Sample(index, y), {"y": y, "mask": y < 0.5}, gamma=0.5)


def test_the_samples_are_the_same() -> None:
    got, expected = list(in_rows(staged(10), 4, pinned=False)), list(staged(10))
    assert [one.sample.index for one in got] == list(range(10))
    for one, other in zip(got, expected, strict=True):
        assert one.gamma == other.gamma
        assert one.images.keys() == other.images.keys()
        assert all(torch.equal(image, other.images[name]) for name, image in one.images.items())


def test_as_many_follow_each_other_as_are_read_ahead() -> None:
    got = list(in_rows(staged(10), 4, pinned=False))
    for name in ("y", "mask"):
        images = [one.images[name] for one in got]
        blocks = runs(images)
        assert [len(block) for block in blocks] == [4, 4, 2]
        target = torch.zeros(10, 3, 2, 2, dtype=images[0].dtype)
        copy_blocks(blocks, target)
        assert torch.equal(target, torch.stack(images))


def test_a_piece_takes_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BYTES", 2 * 3 * 2 * 2 * 4)
    images = [one.images["y"] for one in in_rows(staged(5), 4, pinned=False)]
    assert [len(block) for block in runs(images)] == [2, 2, 1]
    monkeypatch.setattr(rows, "BYTES", 1)
    images = [one.images["y"] for one in in_rows(staged(3), 4, pinned=False)]
    assert all(image.untyped_storage().nbytes() == 3 * 2 * 2 * 4 for image in images)


def test_images_of_another_shape_begin_a_new_piece() -> None:
    items = [*staged(2), *staged(2, side=3)]
    got = [one.images["y"] for one in in_rows(items, 4, pinned=False)]
    assert all(torch.equal(image, one.images["y"]) for image, one in zip(got, items, strict=True))


def test_images_on_a_device_stay_there() -> None:
    y = torch.empty(3, 2, 2, device="meta")
    (one,) = in_rows([Staged(Sample(0, y), {"y": y})], 4, pinned=False)
    assert one.images["y"] is y


@pytest.mark.parametrize(
    ("order", "lengths"), [([0, 1, 2, 3], [4]), ([0, 2, 3, 1], [1, 2, 1]), ([3, 2, 1, 0], [1, 1, 1, 1]), ([2], [1])]
)
def test_runs_follow_each_other_in_one_memory(order: list[int], lengths: list[int]) -> None:
    together = torch.rand(4, 2, 3)
    images = [together[i] for i in order]
    blocks = runs(images)
    assert [len(block) for block in blocks] == lengths
    assert torch.equal(torch.cat(blocks), torch.stack(images))


def test_what_only_looks_as_if_it_followed_does_not() -> None:
    transposed = list(torch.rand(3, 2, 2).transpose(1, 2))
    assert [len(block) for block in runs(transposed)] == [1, 1, 1]
    assert torch.equal(torch.cat(runs(transposed)), torch.stack(transposed))
    apart: list[Tensor] = [torch.rand(2), torch.rand(2)]
    assert [len(block) for block in runs(apart)] == [1, 1]
    assert runs([]) == []


def test_an_image_that_takes_part_in_autograd_is_copied_without_it() -> None:
    y = torch.rand(3, 2, 2, requires_grad=True)
    (one, other) = in_rows([Staged(Sample(0, y), {"y": y}), *staged(1)], 4, pinned=False)
    assert not one.images["y"].requires_grad
    assert not other.images["y"].requires_grad
    assert torch.equal(one.images["y"], y)
