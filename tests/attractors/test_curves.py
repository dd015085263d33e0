"""Recovery curves of maps whose answers are known, and of a net that memorised."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.attractors.curves import gather_passages, passages_of, prepare_curve
from memrecon_fast.attractors.starts import make_start
from tests.helpers.memorised import Memorised

GENERATOR = torch.Generator().manual_seed(3)
IMAGES = torch.rand(5, 2, 4, 4, generator=GENERATOR)


def test_a_constant_super_attracts() -> None:
    found = mf.attractors.recovery_curve(lambda x: IMAGES[3].expand_as(x).clone(), IMAGES, "gaussian", [1, 7], count=20)
    assert found.share.tolist() == [1.0, 1.0]
    assert found.different.tolist() == [1, 1]
    assert (found.nearest == 3).all()
    assert (found.nearest_mse == 0).all()
    assert torch.equal(found.one_step, IMAGES[3].expand(12, -1, -1, -1))
    assert found.one_step_nearest.tolist() == [3] * 12
    assert "π(1) = 1 (0.839 to 1), 1 different" in repr(found)


def test_a_contraction_arrives_when_it_must() -> None:
    """‖x_t − m‖²/d = a^2t ‖x_0 − m‖²/d: below 5e-4 from a t on that is known."""
    starts = IMAGES[1] + torch.linspace(0.5, 40, 9).view(-1, 1, 1, 1) * torch.ones(2, 4, 4)
    times = list(range(1, 30))
    found = mf.attractors.recovery_curve(lambda x: IMAGES[1] + 0.7 * (x - IMAGES[1]), IMAGES[:2], starts, times)
    for row, away in enumerate(torch.linspace(0.5, 40, 9).tolist()):
        arrives = math.ceil(math.log(math.sqrt(5e-4) / away) / math.log(0.7))
        assert found.recovered[row].tolist() == [time >= arrives for time in times]
    torch.testing.assert_close(found.nearest_mse[0, :4], 0.25 * 0.7 ** (2 * torch.arange(1.0, 5).double()))
    assert found.kind == "given"


def test_what_drifts_past_is_counted_only_while_it_is_there() -> None:
    images = torch.tensor([[0.5], [0.9]])
    found = mf.attractors.recovery_curve(lambda x: x + 0.1, images, torch.tensor([[0.2], [0.3]]), [1, 2, 3, 4, 6, 7, 8])
    assert found.share.tolist() == [0.0, 0.5, 0.5, 0.0, 0.5, 0.5, 0.0]
    assert found.different.tolist() == [0, 1, 1, 0, 1, 1, 0]
    assert found.nearest[1].tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_what_diverges_is_counted_apart() -> None:
    found = mf.attractors.recovery_curve(
        lambda x: x.square(), torch.zeros(1, 3), torch.tensor([[0.5] * 3, [30.0] * 3]), [1, 4, 5, 9]
    )
    assert found.diverged.tolist() == [0, 1, 1, 1]  # 30² is not, 30^16 is far from all images
    assert found.nearest[1].tolist() == [0, -1, -1, -1]
    assert found.nearest_mse[1].isnan().tolist() == [False, True, True, True]
    assert found.share.tolist() == [0, 0.5, 0.5, 0.5]
    assert "1 diverged" in repr(found)


def test_a_net_that_memorised_against_a_plain_loop(memorised: Memorised) -> None:
    times = (1, 3, 10, 40, 100)
    found = mf.attractors.recovery_curve(memorised.autoencoder, memorised.members, "smooth", times, count=50, seed=5)
    x = torch.stack([make_start("smooth", (3, 8, 8), 5, index) for index in range(50)])
    assert torch.equal(found.shown, x[:12])
    expected: list[Tensor] = []
    with torch.inference_mode():
        for time in range(1, 101):
            x = memorised.autoencoder(x)
            if time in times:
                mse = (x[:, None] - memorised.members[None]).double().square().flatten(2).mean(dim=2)
                expected.append(mse.min(dim=1).values)
    # another number of rows rounds otherwise, which contraction forgets and a boundary between basins does not
    same = (found.nearest_mse - torch.stack(expected, dim=1)).abs() < 1e-4
    assert same.all(dim=1).sum() >= 48
    assert found.share[0] < 0.2
    assert found.share[-1] > 0.5
    assert found.different[-1] >= 5
    near = mf.attractors.recovery_curve(memorised.autoencoder, memorised.members, memorised.members, [1])
    assert near.share.item() == 1.0
    assert near.nearest.flatten().tolist() == list(range(16))


def test_nothing_depends_on_blocks_or_on_what_is_computed_when(memorised: Memorised) -> None:
    times = (1, 5, 30)
    whole = mf.attractors.recovery_curve(memorised.autoencoder, memorised.members, "smooth", times, count=21)
    few = mf.attractors.recovery_curve(memorised.autoencoder, memorised.members, "smooth", times, count=21, rows=5)
    course = prepare_curve(memorised.autoencoder, memorised.members, "smooth", times, count=21)
    pieces = [passages_of(course, indices) for indices in ([20, 3, 7], range(8, 20), [0, 1, 2, 4, 5, 6])]
    joined = gather_passages(course, pieces)
    for other in (few, joined):
        for name in ("times", "nearest", "nearest_mse", "shown", "one_step", "one_step_nearest"):
            assert torch.equal(getattr(whole, name), getattr(other, name)), name
    with pytest.raises(ValueError, match="21 starts takes the passages of each of them, once"):
        gather_passages(course, pieces[1:])
    with pytest.raises(ValueError, match="each of them, once"):
        gather_passages(course, [*pieces, pieces[0]])


def test_starts_of_a_kind_are_those_of_a_harvest() -> None:
    def model(x: Tensor) -> Tensor:
        return 0.5 * x

    given = torch.stack([make_start("images", (2, 4, 4), 9, index, IMAGES) for index in range(7)])
    by_name = mf.attractors.recovery_curve(model, IMAGES, "images", [1, 2], count=7, seed=9, pictures=IMAGES)
    by_image = mf.attractors.recovery_curve(model, IMAGES, given, [1, 2])
    assert torch.equal(by_name.nearest_mse, by_image.nearest_mse)


def test_one_pixel_and_one_image() -> None:
    found = mf.attractors.recovery_curve(lambda x: 0 * x + 0.25, torch.tensor([[0.25]]), times=(1,), count=1)
    assert found.share.item() == 1


def test_a_model_that_takes_one_image_at_a_time_and_images_with_gradients() -> None:
    class Single(nn.Module):
        batch_sizes = range(1, 2)

        def forward(self, x: Tensor) -> Tensor:
            assert len(x) == 1
            return 0.5 * x

    images = IMAGES.clone().requires_grad_()
    with pytest.warns(RuntimeWarning, match="takes 1 images at a time"):
        found = mf.attractors.recovery_curve(Single().eval(), images, images, [2, 3])
    expected = mf.attractors.recovery_curve(lambda x: 0.5 * x, IMAGES, IMAGES, [2, 3])
    assert torch.equal(found.nearest_mse, expected.nearest_mse)
    assert torch.equal(found.one_step, 0.5 * IMAGES)
    with pytest.warns(RuntimeWarning, match="takes 1 images at a time"):
        back = mf.attractors.basins(Single().eval(), images, [0.1], draws=1)
    assert not back.returns.any()
    with pytest.warns(RuntimeWarning, match="takes 1 images at a time"):
        assert (mf.attractors.cycles(Single().eval(), images).motion == 0).all()


def test_what_is_wrong_is_said() -> None:
    def model(x: Tensor) -> Tensor:
        return 0.5 * x

    def noisy(x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)

    for keywords, error, message in (
        ({"autoencoder": noisy}, ValueError, "answers differently to the same images"),
        ({"autoencoder": 3}, TypeError, "autoencoder must be callable"),
        ({"autoencoder": nn.Linear(4, 4).half().eval()}, TypeError, "float32"),
        ({"images": (IMAGES * 255).to(torch.uint8)}, TypeError, "uint8 pixels"),
        ({"images": IMAGES[:0]}, ValueError, "images must be at least one image: there is nothing to come to"),
        ({"images": IMAGES * torch.nan}, ValueError, "NaN"),
        ({"images": IMAGES * 255}, ValueError, r"pixels in \[0, 1\]"),
        ({"starts": IMAGES[:0]}, ValueError, "starts must be at least one"),
        ({"starts": IMAGES[:, :1]}, ValueError, "of the images' shape"),
        ({"starts": IMAGES.double()}, TypeError, "starts must be float32"),
        ({"starts": IMAGES / 0}, ValueError, "starts have NaN or infinite"),
        ({"starts": "smoth"}, ValueError, "did you mean 'smooth'"),
        ({"starts": "images"}, ValueError, "pictures"),
        ({"starts": IMAGES, "pictures": IMAGES}, ValueError, "these starts are given"),
        ({"count": 0}, ValueError, "count must be at least 1"),
        ({"seed": -1}, ValueError, "seed"),
        ({"rows": 0}, ValueError, "rows must be at least 1"),
        ({"times": [1, 10, 5]}, ValueError, "ascending"),
        ({"times": [1, 1]}, ValueError, "ascending"),
        ({"times": []}, ValueError, "at least one"),
        ({"times": [0, 1]}, ValueError, "times must be at least 1"),
        ({"times": [-3]}, ValueError, "times must be at least 1"),
        ({"times": [1.5]}, TypeError, "times must be an integer"),
        ({"times": 10}, TypeError, "times must be a sequence"),
    ):
        arguments = {"autoencoder": model, "images": IMAGES, **keywords}
        with pytest.raises(error, match=message):
            mf.attractors.recovery_curve(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda model: mf.attractors.basins(model, IMAGES, [0.1, 0.4]),
        lambda model: mf.attractors.recovery_curve(model, IMAGES, "uniform", [1, 20], count=3),
        lambda model: mf.attractors.cycles(model, IMAGES),
    ],
)
def test_a_model_that_changes_on_the_way_puts_the_result_in_doubt(call: Callable[[nn.Module], object]) -> None:
    class Drifting(nn.Module):
        made = 0

        def forward(self, x: Tensor) -> Tensor:
            self.made += 1
            return (0.5 if self.made < 30 else 0.51) * x

    model = Drifting().eval()
    with pytest.warns(RuntimeWarning, match="the result is in doubt"):
        call(model)
    assert model.made > 30
