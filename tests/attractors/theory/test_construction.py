from __future__ import annotations

import pytest
import torch

import memrecon_fast as mf
from memrecon_fast.attractors import Verdict
from memrecon_fast.attractors.theory import construction

THREE = torch.tensor([[0.2], [0.5], [0.7]])


def test_in_one_dimension() -> None:
    net = construction.contracting_identity(THREE, h=0.01)
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        error = (net(x) - x).square().mean().item()
        values, moved = net(THREE.double()), net(THREE.double() + 0.004)
    assert error == pytest.approx(1e-6, rel=2e-3)  # h³/3 for each of the three; the grid does not hit the corners
    torch.testing.assert_close(values, THREE.double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(moved, THREE.double() + 0.002, rtol=0, atol=1e-14)
    assert net[0].out_features == 4 * 3 + 2


def test_the_largest_half_width_keeps_to_the_error() -> None:
    net = construction.contracting_identity(THREE, construction.half_width(THREE, 1e-4))
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        worst = (net(x) - x).square().max().item()
    assert worst == pytest.approx(1e-4, rel=1e-3)
    assert construction.half_width(THREE, 1.0) == pytest.approx(0.05)  # of the gap from 0.5 to 0.7


def test_its_points_are_attractors() -> None:
    points = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    net = construction.contracting_identity(points, construction.half_width(points, 1e-3))

    def autoencoder(images: torch.Tensor) -> torch.Tensor:
        return net(images.double()).float()  # type: ignore[no-any-return]

    found = mf.attractors.stability(autoencoder, points)
    assert (found.verdict == int(Verdict.ATTRACTOR)).all()
    torch.testing.assert_close(found.spectra.radius, torch.full((5,), 0.5), rtol=0, atol=1e-3)
    mixed = torch.stack([points[0, 0], points[1, 1], points[2, 2]])[None]
    assert mf.attractors.stability(autoencoder, mixed).verdict.tolist() == [int(Verdict.ATTRACTOR)]


def test_entries_that_points_share_count_once() -> None:
    net = construction.contracting_identity(torch.tensor([[0.2, 0.5], [0.2, 0.7]]), h=0.01)
    assert net[0].out_features == (4 + 2) + (8 + 2)
    with torch.no_grad():
        found = net(torch.tensor([[0.2, 0.7]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.7]]).double(), rtol=0, atol=1e-7)  # 0.2 in float32


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="quarter of the smallest gap"):
        construction.contracting_identity(THREE, h=0.06)
    with pytest.raises(ValueError, match="points must be finite rows"):
        construction.contracting_identity(torch.tensor([[torch.inf]]), h=0.06)
    with pytest.raises(ValueError, match="error must be finite and above 0"):
        construction.half_width(THREE, 0.0)
