"""`recover()` against the reference, the bare forward passes that it needs, one image at a time, and deepinv."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.measuring import Compare
from memrecon_fast import Settings, autoencoders, degradation, metrics, reference
from memrecon_fast.images.photographs import make_photographs

GAMMA = 0.5
OUTER = 2  # enough to measure: every outer iteration costs the same


@functools.cache
def large_autoencoder(depth: int) -> nn.Module:
    """The paper's setting, 64×64×3 with our width; untrained: the time does not depend on the weights."""
    return autoencoders.FullyConnected((3, 64, 64), width=1024, depth=depth, activation="leaky_relu").eval()


@pytest.mark.parametrize("depth", [10])
@pytest.mark.parametrize("images", [64])
def test_recover_against_its_forward_passes(compare: Compare, depth: int, images: int) -> None:
    """Nothing can be faster than the forward passes alone; the plain loop is the reference, which makes 40, not 39."""
    autoencoder = large_autoencoder(depth)
    degraded = torch.rand(images, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    # with a tolerance a repetition would not be computed
    settings = Settings(solver="paper", gamma=GAMMA, max_outer_iterations=OUTER, tolerance=0.0)
    passes = (settings.inner_iterations - 1) * OUTER

    def recover() -> mf.Recovery:
        return mf.recover(autoencoder, degraded, settings=settings, backend="cpp", slots=images)

    def forward_passes(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                autoencoder(degraded)

    oracle = reference.recover(autoencoder, degraded, settings=settings)
    torch.testing.assert_close(recover().images, oracle.images, rtol=1e-3, atol=1e-3)
    compare(
        recover,
        {
            f"{passes} forward passes": lambda: forward_passes(passes),
            f"{40 * OUTER} forward passes": lambda: forward_passes(40 * OUTER),
            "reference.recover": lambda: reference.recover(autoencoder, degraded, settings=settings),
        },
        rounds=9,
        model=f"FC {depth} × 1024, 64×64×3",
        images=images,
        slots=images,
    )


@functools.cache
def memorised() -> tuple[nn.Module, Tensor]:
    """A model that really memorised photographs, so that images stop after different numbers of iterations."""
    images, _ = make_photographs(60, 0, size=16)
    autoencoder = autoencoders.FullyConnected((3, 16, 16), width=384, depth=6, activation="leaky_relu")
    autoencoders.train(autoencoder, images, target_loss=1e-6, max_steps=1500)
    return autoencoder, images


def blind_task() -> tuple[nn.Module, Tensor, Tensor, Settings]:
    autoencoder, images = memorised()
    degraded = degradation.erase(images, degradation.make_mask("center", (3, 16, 16)))
    return autoencoder, images, degraded, Settings(solver="paper", gamma=0.1, max_outer_iterations=40)


def test_blind_recovery_of_photographs(compare: Compare) -> None:
    autoencoder, images, degraded, settings = blind_task()

    def recover(slots: int) -> mf.Recovery:
        return mf.recover(autoencoder, degraded, settings=settings, backend="cpp", slots=slots)

    def one_at_a_time() -> None:
        for image in degraded:
            mf.recover(autoencoder, image[None], settings=settings, backend="cpp")

    oracle = reference.recover(autoencoder, degraded, settings=settings)
    for threshold in (metrics.ACCURATE_MSE, metrics.APPROXIMATE_MSE):
        verdicts = [metrics.mse(result.images, images) < threshold for result in (recover(32), oracle)]
        assert torch.equal(*verdicts)
    compare(
        lambda: recover(32),
        {
            "backend torch": lambda: mf.recover(autoencoder, degraded, settings=settings, backend="torch", slots=32),
            "reference.recover": lambda: reference.recover(autoencoder, degraded, settings=settings),
            "one image at a time": one_at_a_time,
        },
        rounds=7,
        model="FC 6 × 384, 16×16×3, trained",
        images=len(images),
        slots=32,
    )


@pytest.mark.skipif(importlib.util.find_spec("deepinv") is None, reason="deepinv is not installed")
@pytest.mark.parametrize(("depth", "images"), [(10, 64)])
def test_known_mask_against_deepinv(compare: Compare, depth: int, images: int) -> None:
    """One inner loop with the mask given: 40 iterations of deepinv's PnP-ADMM, 39 applications of f here."""
    autoencoder = large_autoencoder(depth)
    originals = torch.rand(images, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mask = degradation.make_mask("center", (3, 64, 64))
    degraded = degradation.erase(originals, mask)
    settings = Settings(solver="paper", gamma=GAMMA, restore_known_pixels=False)
    theirs = deepinv_admm(autoencoder, degraded, mask, settings)
    torch.testing.assert_close(theirs(), last_v(autoencoder, degraded, mask, settings), rtol=1e-3, atol=1e-3)
    ours = mf.recover(autoencoder, degraded, mask, settings, backend="cpp")
    oracle = reference.recover(autoencoder, degraded, mask, settings)
    torch.testing.assert_close(ours.images, oracle.images, rtol=1e-3, atol=1e-3)

    def forward_passes() -> None:
        with torch.inference_mode():
            for _ in range(40):
                autoencoder(degraded)

    compare(
        lambda: mf.recover(autoencoder, degraded, mask, settings, backend="cpp"),
        {"deepinv": theirs, "40 forward passes": forward_passes},
        rounds=9,
        model=f"FC {depth} × 1024, 64×64×3",
        images=images,
        slots=64,
        deepinv=importlib.metadata.version("deepinv"),
    )


def deepinv_admm(autoencoder: nn.Module, y: Tensor, mask: Tensor, settings: Settings) -> Callable[[], Tensor]:
    """deepinv's PnP-ADMM as Algorithm 1: its step size is 2/γ, its denoiser is the autoencoder."""
    deepinv = import_deepinv()
    physics = deepinv.physics.Inpainting(img_size=tuple(y.shape[1:]), mask=mask.float())
    solver = deepinv.optim.ADMM(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(denoiser=lambda x, _sigma: autoencoder(x)),
        stepsize=2 / settings.gammas[0],
        sigma_denoiser=0.0,
        max_iter=settings.inner_iterations,
        early_stop=False,
        custom_init=lambda y, _physics: {"est": (torch.zeros_like(y), torch.zeros_like(y))},
    )

    def solve() -> Tensor:
        with torch.inference_mode():
            return solver(y, physics)  # type: ignore[no-any-return]

    return solve


def import_deepinv() -> Any:
    """Import deepinv; with a torch for CPUs its torchvision needs the names of operators that it does not use."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    kinds = ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")
    for name in ("nms", "qnms", *kinds, *(f"_{kind}_backward" for kind in kinds)):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    import deepinv

    return deepinv


def last_v(autoencoder: nn.Module, y: Tensor, mask: Tensor, settings: Settings) -> Tensor:
    """v after the last iteration of Algorithm 1, which deepinv returns in place of ξ."""
    g = settings.gammas[0] / 2
    with torch.inference_mode():
        v, u = torch.zeros_like(y), torch.zeros_like(y)
        for _ in range(settings.inner_iterations):
            xi = torch.where(mask, (y + g * (v - u)) / (1 + g), v - u)
            v = autoencoder(xi + u)
            u = u + (xi - v)
    return v
