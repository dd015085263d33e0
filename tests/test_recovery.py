from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast import Recovery, Settings, Status, degradation, metrics, prepare_recover, recovery, reference
from tests.helpers.interpreter import run_interpreted
from tests.helpers.memorised import Memorised

BACKENDS = [name for name, state in mf.backends().items() if state == "available"]
SHAPE = (3, 8, 8)


def literal(memorised: Memorised, degraded: Tensor, settings: Settings) -> tuple[Recovery, Recovery]:
    """The reference in float32 and in float64."""
    in_float64 = copy.deepcopy(memorised.autoencoder).double()
    return (
        reference.recover(memorised.autoencoder, degraded, settings=settings),
        reference.recover(in_float64, degraded.double(), settings=settings),
    )


def assert_same_recovery(got: Recovery, oracles: tuple[Recovery, Recovery], originals: Tensor) -> None:
    """The contract between the fast path and the literal one.

    Images agree to 1e-4 per pixel: they are converged to a successive MSE of 1e-9 (3e-5 per pixel), and rounding moves
    them within that. Outer iterations agree within 1 with the literal form in float32 or in float64: where these two
    differ, rounding decides one entry of the mask, which keeps the successive MSE just above the tolerance, or not.
    """
    oracle, in_float64 = oracles
    for threshold in (metrics.ACCURATE_MSE, metrics.APPROXIMATE_MSE):
        verdicts = [metrics.mse(result.images, originals) < threshold for result in (got, oracle)]
        assert torch.equal(*verdicts)
    sensitive = (oracle.outer_iterations - in_float64.outer_iterations).abs() > 1
    assert sensitive.sum() <= 2  # of 16 or 32
    agrees = [
        ((got.outer_iterations - one.outer_iterations).abs() <= 1) & (got.status == one.status)
        for one in (oracle, in_float64)
    ]
    assert (agrees[0] | (sensitive & agrees[1])).all()
    converged = got.status == Status.CONVERGED
    torch.testing.assert_close(got.images[converged], oracle.images[converged], rtol=0, atol=1e-4)
    assert (got.masks == oracle.masks)[converged].float().mean() > 0.999


@pytest.mark.parametrize("initial_mask", ["random", "zeros"])
@pytest.mark.parametrize("name", degradation.MASKS)
def test_blind_recovery_agrees_with_the_reference(memorised: Memorised, initial_mask: str, name: str) -> None:
    images = torch.cat([memorised.members, memorised.controls])
    degraded = degradation.erase(images, degradation.make_mask(name, SHAPE))
    settings = Settings(solver="paper", gamma=0.1, max_outer_iterations=25, initial_mask=initial_mask)
    oracles = literal(memorised, degraded, settings)
    shared = int(initial_mask == "zeros")
    for backend in BACKENDS:
        got = mf.recover(memorised.autoencoder, degraded, settings=settings, backend=backend)
        assert_same_recovery(got, oracles, images)
        assert got.backend == backend
        computed = (got.outer_iterations - shared) * 39
        assert (got.evaluations <= computed).all()
        assert got.evaluations.sum() < 0.8 * computed.sum()  # what repeats is not computed


def test_noisy_images_agree_with_the_reference(memorised: Memorised) -> None:
    degraded = degradation.erase(memorised.members, degradation.make_mask("center", SHAPE), noise_std=0.02, seed=1)
    assert (degraded < 0).any()
    settings = Settings(solver="paper", gamma=0.1, max_outer_iterations=25)
    oracles = literal(memorised, degraded, settings)
    for backend in BACKENDS:
        got = mf.recover(memorised.autoencoder, degraded, settings=settings, backend=backend)
        assert_same_recovery(got, oracles, memorised.members)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("restore", [True, False])
def test_known_masks_agree_with_the_reference(memorised: Memorised, backend: str, restore: bool) -> None:
    """Also one mask for each image. 39 iterations of a map that is at most mildly expansive: 1e-4 per pixel."""
    images = memorised.members
    masks = torch.stack([degradation.make_mask("random-50", SHAPE, seed) for seed in range(len(images))])
    degraded = degradation.erase(images, masks)
    settings = Settings(solver="paper", gamma=0.1, restore_known_pixels=restore)
    oracle = reference.recover(memorised.autoencoder, degraded, masks, settings)
    got = mf.recover(memorised.autoencoder, degraded, masks, settings, backend=backend, slots=4)
    torch.testing.assert_close(got.images, oracle.images, rtol=0, atol=1e-4)
    assert torch.equal(got.masks, masks)
    assert got.evaluations.tolist() == [39] * len(images)
    assert got.status.tolist() == [Status.MAX_ITERATIONS] * len(images)
    assert got.residual.isnan().all()
    assert torch.equal(got.images[masks], degraded[masks]) == restore


@pytest.mark.parametrize("backend", BACKENDS)
def test_members_are_recovered_and_controls_are_not(memorised: Memorised, backend: str) -> None:
    rates = []
    for images in (memorised.members, memorised.controls):
        degraded = degradation.erase(images, degradation.make_mask("center", SHAPE))
        got = mf.recover(memorised.autoencoder, degraded, settings=Settings(solver="paper", gamma=0.1), backend=backend)
        rates.append(metrics.recovery_rate(metrics.mse(got.images, images), metrics.APPROXIMATE_MSE))
    assert rates[0] > 0.8
    assert rates[1] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_iterate_is_the_iteration_of_f(memorised: Memorised, backend: str) -> None:
    degraded = degradation.erase(memorised.members, degradation.make_mask("stripes", SHAPE))
    got = mf.iterate(memorised.autoencoder, degraded, max_iterations=60, tolerance=1e-8, backend=backend, slots=8)
    assert {Status.CONVERGED, Status.MAX_ITERATIONS} == set(got.status.tolist())
    for i, y in enumerate(degraded):
        x = y.expand(4, *SHAPE)
        iterations = 0
        while iterations < 60:
            iterations += 1
            with torch.inference_mode():
                after = memorised.autoencoder(x)
            residual = (after - x)[0].double().square().mean().float()
            x = after
            if residual < 1e-8:
                break
        assert torch.equal(got.images[i], x[0])  # the same forward passes, and copies
        assert got.outer_iterations[i] == got.evaluations[i] == iterations
        assert got.residual[i].item() == pytest.approx(residual.item(), rel=1e-6)  # sums in another order
    assert got.masks.all()


def test_convolutional_autoencoders_and_greyscale_images(memorised: Memorised) -> None:
    torch.manual_seed(0)
    autoencoder = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 1, 3, padding=1)).eval()
    images = memorised.members[:, :1]
    settings = Settings(solver="paper", gamma=1.0, max_outer_iterations=4, initial_mask="zeros")
    oracle = reference.recover(autoencoder, images, settings=settings)
    for backend in BACKENDS:
        got = mf.recover(autoencoder, images, settings=settings, backend=backend)
        assert torch.equal(got.outer_iterations, oracle.outer_iterations)
        # this net memorised nothing; 160 non-expansive steps of float32 rounding
        torch.testing.assert_close(got.images, oracle.images, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_backends_give_bit_identical_images(memorised: Memorised, backend: str) -> None:
    degraded = degradation.erase(memorised.members, degradation.make_mask("half", SHAPE))
    expected = mf.recover(
        memorised.autoencoder, degraded, settings=Settings(solver="paper", gamma=0.3), backend="torch"
    )
    got = mf.recover(memorised.autoencoder, degraded, settings=Settings(solver="paper", gamma=0.3), backend=backend)
    assert torch.equal(got.images, expected.images)
    assert torch.equal(got.masks, expected.masks)


def test_triton_interpreted() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    run_interpreted("recovery_interpreted.py")


def test_results_can_be_used_with_autograd_and_inputs_stay_as_they_were(memorised: Memorised) -> None:
    degraded = degradation.erase(memorised.members[:5], degradation.make_mask("half", SHAPE))
    odd_layout = degraded.to(memory_format=torch.channels_last)
    before = degraded.clone()
    got = mf.recover(memorised.autoencoder, odd_layout, settings=Settings(solver="paper", max_outer_iterations=2))
    assert torch.equal(odd_layout, before)
    assert torch.equal(
        got.images,
        mf.recover(memorised.autoencoder, degraded, settings=Settings(solver="paper", max_outer_iterations=2)).images,
    )
    weight = torch.ones((), requires_grad=True)
    (got.images * weight).sum().backward()  # an inference tensor would raise
    assert weight.grad is not None


def test_no_images() -> None:
    for got in (mf.recover(nn.Identity().eval(), torch.empty(0, 3, 2, 2)), mf.iterate(lambda x: x, torch.empty(0, 4))):
        assert len(got.images) == len(got.status) == len(got.residual) == 0


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"degraded": [1.0]}, TypeError, "degraded must be a torch tensor, not list"),
        ({"degraded": torch.zeros(2, 3, dtype=torch.uint8)}, TypeError, "degraded must be float32 .* not torch.uint8"),
        (
            {"degraded": torch.zeros(3)},
            ValueError,
            r"degraded must be a batch \(B, \*image_shape\), not of shape \(3,\)",
        ),
        ({"degraded": torch.zeros(3, 0)}, ValueError, "degraded must be a batch"),
        ({"degraded": torch.tensor([[0.0], [torch.nan]])}, ValueError, "NaN or infinite pixels, first in image 1"),
        ({"degraded": torch.tensor([[0.0], [-torch.inf]])}, ValueError, "NaN or infinite pixels, first in image 1"),
        (
            {"degraded": torch.full((1, 4), 255.0)},
            ValueError,
            r"pixels in \[0, 1\], but for noise; it has \[255, 255\]",
        ),
        ({"mask": torch.ones(4)}, TypeError, "mask must be a boolean tensor"),
        ({"mask": torch.ones(5, dtype=torch.bool)}, ValueError, r"mask of shape \(5,\) does not broadcast"),
        ({"settings": {"gamma": 1}}, TypeError, "settings must be a Settings, not dict"),
        ({"backend": "cuda"}, ValueError, "backend must be one of 'auto', 'torch', 'cpp', 'triton', not 'cuda'"),
        ({"backend": "triton"}, ValueError, "backend 'triton' is not available: "),
        ({"slots": 0}, ValueError, "slots must be at least 1, not 0"),
        ({"slots": 2.5}, TypeError, "slots must be an integer, not 2.5"),
        ({"autoencoder": nn.Linear(4, 4)}, ValueError, "in training mode"),
        ({"autoencoder": nn.Linear(3, 4).eval()}, ValueError, r"fails on a batch of shape \(16, 4\)"),
        (
            {"autoencoder": nn.Linear(4, 3).eval()},
            ValueError,
            r"must return the shape it is given, \(16, 4\), not \(16, 3\)",
        ),
    ],
)
def test_bad_arguments_are_named_before_work_starts(
    change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {"autoencoder": nn.Identity().eval(), "degraded": torch.zeros(2, 4)} | change
    with pytest.raises(kind, match=message):
        mf.recover(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"max_iterations": 0}, "max_iterations must be at least 1"), ({"tolerance": -1.0}, "tolerance must be finite")],
)
def test_bad_arguments_of_iterate(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mf.iterate(nn.Identity().eval(), torch.zeros(2, 4), **change)


def test_a_fallback_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memrecon_fast.ops._why_no_cpp", lambda: "no compiler")
    assert mf.backends()["cpp"] == "no compiler"
    with pytest.warns(RuntimeWarning, match=r"compiled kernels are not available \(no compiler\); using torch"):
        got = mf.recover(
            nn.Identity().eval(), torch.zeros(2, 4), settings=Settings(solver="paper", max_outer_iterations=1)
        )
    assert got.backend == "torch"
    with pytest.raises(ValueError, match="backend 'cpp' is not available: no compiler"):
        mf.recover(nn.Identity().eval(), torch.zeros(2, 4), backend="cpp")


def test_importing_needs_torch_and_numpy_only_and_recovering_does_not_import_the_compiler_of_torch() -> None:
    """Which takes two seconds, in each process that makes an audit."""
    code = """
import sys, torch, numpy
before = set(sys.modules)
import memrecon_fast
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(name for name in new if name not in sys.stdlib_module_names))
memrecon_fast.recover(torch.nn.Linear(4, 4).eval(), torch.zeros(2, 4))
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["['memrecon_fast']", "False"]


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: nn.Sequential(net).eval(), torch.nn.DataParallel])
def test_images_of_another_shape_than_the_model_states(wrap: Any) -> None:
    net = wrap(mf.autoencoders.FullyConnected((3, 6, 6), 10, 2, "leaky_relu").eval()).eval()
    channels_last = torch.rand(4, 6, 6, 3)
    message = r"the model is for images of shape \(3, 6, 6\); these are \(6, 6, 3\): channels come first, \(C, H, W\)"
    with pytest.raises(ValueError, match=message):
        mf.recover(net, channels_last)
    with pytest.raises(ValueError, match=message):
        mf.iterate(net, channels_last)
    with pytest.raises(ValueError, match=r"of shape \(3, 6, 6\); these are \(1, 6, 6\)$"):
        prepare_recover(net, (1, 6, 6))
    assert mf.iterate(net, channels_last.permute(0, 3, 1, 2), max_iterations=2).images.shape == (4, 3, 6, 6)


def test_an_image_without_the_axis_of_a_batch_is_explained() -> None:
    stated = mf.autoencoders.FullyConnected((3, 8, 8), 10, 2, "leaky_relu").eval()
    silent = nn.Conv2d(3, 3, 3, padding=1).eval()
    for recover in (mf.recover, mf.iterate):
        with pytest.raises(ValueError, match=r"\(3, 8, 8\); these are \(8, 8\): .* is a batch as image\[None\]$"):
            recover(stated, torch.rand(3, 8, 8))
        with pytest.raises(ValueError, match=r"of shape \(8, 8\): an image alone, .*, is a batch as image\[None\]"):
            recover(silent, torch.rand(3, 8, 8))


def test_a_net_of_convolutions_that_fails_on_images_with_their_channels_last_is_explained() -> None:
    with pytest.raises(ValueError, match=r"images are channels-first, \(C, H, W\), and \(8, 8, 3\) looks like \(H, W"):
        mf.recover(nn.Conv2d(3, 3, 3, padding=1).eval(), torch.rand(4, 8, 8, 3))


def test_images_of_which_nothing_is_erased_are_said(memorised: Memorised) -> None:
    holes = mf.degradation.make_mask("center", (3, 8, 8))
    filled = torch.where(holes, 0.9 * memorised.members + 0.05, 0.5)
    settings = mf.Settings(max_outer_iterations=2)
    with pytest.warns(RuntimeWarning, match=r"nothing seems to be erased in 16 of 16 .* value 0\.5 stands"):
        mf.recover(memorised.autoencoder, filled, settings=settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mf.recover(memorised.autoencoder, torch.where(holes, filled, 0.0), settings=settings)
        noisy = dataclasses.replace(settings, restore_known_pixels=False)
        mf.recover(memorised.autoencoder, filled, settings=noisy)


def test_pixels_of_another_range_are_said_and_not_taken_for_holes(memorised: Memorised) -> None:
    degraded = 2 * degradation.erase(memorised.members, degradation.make_mask("center", SHAPE)) - 1
    settings = mf.Settings(max_outer_iterations=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mf.recover(memorised.autoencoder, degraded, settings=settings)
    (said,) = (str(one.message) for one in caught if issubclass(one.category, RuntimeWarning))
    assert re.match(r"pixels are in \[0, 1\], but those of degraded in \[-1, 0\.\d+\]: .* autoencoders\.adapt", said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mf.recover(memorised.autoencoder, degraded, settings=dataclasses.replace(settings, restore_known_pixels=False))


@pytest.mark.parametrize("settings", [Settings(), Settings(solver="paper"), Settings(precision="progressive")])
def test_how_far_it_is_is_told_as_it_goes_on(
    memorised: Memorised, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all images are in slots at once, and are scored together at the end."""
    degraded = degradation.erase(
        torch.cat([memorised.members, memorised.controls]), degradation.make_mask("half", SHAPE)
    )
    told, bars = watch(monkeypatch)
    settings = dataclasses.replace(settings, max_outer_iterations=8)
    watched = mf.recover(memorised.autoencoder, degraded, settings=settings, progress=True)
    assert bars == [("recovering", 32, "images", True)]
    assert sum(told) == 32
    assert len(told) > 1
    assert min(told) > 0
    told.clear()
    alone = mf.recover(memorised.autoencoder, degraded, settings=settings)
    assert bars[1:] == [("", 32, "images", False)]
    assert not told
    assert torch.equal(watched.images, alone.images)
    assert torch.equal(watched.evaluations, alone.evaluations)


def test_iterations_tell_how_far_they_are(memorised: Memorised, monkeypatch: pytest.MonkeyPatch) -> None:
    told, bars = watch(monkeypatch)
    degraded = degradation.erase(memorised.members, degradation.make_mask("half", SHAPE))
    mf.iterate(memorised.autoencoder, degraded, progress=True, slots=4)
    assert bars == [("iterating", 16, "images", True)]
    assert sum(told) == 16
    assert len(told) >= 4


def watch(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[tuple[str, int, str, bool]]]:
    """What progress bars are told, and which ones are made, from now on."""
    told: list[int] = []
    bars: list[tuple[str, int, str, bool]] = []

    @contextlib.contextmanager
    def bar(doing: str, total: int, unit: str, *, enabled: bool) -> Iterator[Callable[[int], None] | None]:
        bars.append((doing, total, unit, enabled))
        yield told.append if enabled else None

    monkeypatch.setattr(recovery, "progress_bar", bar)
    return told, bars


def test_what_a_recovery_shows_is_what_was_degraded(memorised: Memorised) -> None:
    """A copy: the caller may go on with the same memory."""
    degraded = degradation.erase(memorised.members, degradation.make_mask("half", SHAPE))
    given = degraded.clone()
    settings = Settings(max_outer_iterations=4)
    results = [
        mf.recover(memorised.autoencoder, given, settings=settings),
        mf.iterate(memorised.autoencoder, given, max_iterations=4),
        mf.trace(memorised.autoencoder, given, settings=settings).recovery,
    ]
    given.zero_()
    for result in results:
        assert result.first_degraded is not None
        assert torch.equal(result.first_degraded, degraded[:8])


def test_what_shows_results_is_imported_when_they_are_shown() -> None:
    code = """
import sys, torch, memrecon_fast as mf
recovery = mf.recover(torch.nn.Identity().eval(), torch.tensor([[[0.0, 0.5], [0.25, 1.0]]]))
slow = {"matplotlib", "pandas", "rich", "PIL", "IPython", "memrecon_fast.showing.recovered"}
print(sorted(slow & set(sys.modules)))
repr(recovery)
print(sorted(slow & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['memrecon_fast.showing.recovered']"]
