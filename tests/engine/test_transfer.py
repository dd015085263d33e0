from __future__ import annotations

import torch

from memrecon_fast.engine.prox import Prox
from memrecon_fast.engine.transfer import on_this_stream, record_event, to_device, to_host, upload, working_on

CPU = torch.device("cpu")


def test_upload_stacks_rows() -> None:
    target = torch.full((2, 3), torch.nan)
    upload([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])], target)
    assert target.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_upload_fills_what_is_not_contiguous() -> None:
    """The images of a net that is given its pixels channels-last are a view of the rows."""
    prox = Prox(lambda x: x, (3, 2, 2), CPU, channels_last=True)
    rows = torch.full((5, 12), torch.nan)
    images = torch.rand(3, 3, 2, 2)
    upload(list(images), prox.as_images(rows[1:4]))
    assert torch.equal(rows[1:4], prox.to_rows(images))
    assert rows[[0, 4]].isnan().all()


def test_on_a_cpu_there_is_nothing_to_send_and_nothing_to_wait_for() -> None:
    tensor = torch.rand(3)
    assert to_device(tensor, CPU) is tensor
    assert to_host(tensor) is tensor
    assert record_event(CPU) is None
    with working_on(CPU):
        assert torch.is_inference_mode_enabled()


def test_the_items_of_another_thread_stay_as_they_are() -> None:
    assert list(on_this_stream(iter(range(3)), CPU)) == [0, 1, 2]
