from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from memrecon_fast import metrics


def test_mse_and_psnr_per_image() -> None:
    a = torch.zeros(3, 1, 2, 2)
    b = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.1), torch.tensor([[[0.0, 0.0], [0.0, 2.0]]])])
    assert metrics.mse(a, b).tolist() == pytest.approx([0, 0.01, 1], rel=1e-7)  # 0.1 is rounded to float32
    assert metrics.psnr(a, b).tolist() == pytest.approx([math.inf, 20, 0], abs=1e-6)


def test_the_thresholds_are_the_papers() -> None:
    assert -10 * math.log10(metrics.ACCURATE_MSE) == pytest.approx(70)
    assert -10 * math.log10(metrics.APPROXIMATE_MSE) == pytest.approx(33.01, abs=0.005)


def test_rate_counts_diverged_images_as_not_recovered() -> None:
    mse = torch.tensor([0.0, 1e-8, 1e-7, 1.0, math.nan, math.inf])
    assert metrics.recovery_rate(mse, metrics.ACCURATE_MSE) == pytest.approx(2 / 6)
    assert math.isnan(metrics.recovery_rate(torch.empty(0), 1e-7))


def test_the_clipped_psnr_is_finite_for_diverged_estimates() -> None:
    originals = np.full((3, 2), 0.5, np.float32)
    estimates = np.array([[math.nan, math.inf], [-math.inf, 7.0], [0.5, 0.6]], np.float32)
    assert metrics.psnr_of(metrics.clipped_mse_of_rows(estimates, originals)).tolist() == pytest.approx(
        [-10 * math.log10(0.25), -10 * math.log10(0.25), -10 * math.log10(0.005)], abs=1e-5
    )


@pytest.mark.filterwarnings("error")
def test_rows_are_compared_as_batches_are_and_each_as_if_it_were_alone() -> None:
    a, b = np.random.default_rng(0).random((2, 37, 4001), np.float32)
    a[1], a[2, 5] = b[1], math.nan
    mse = metrics.mse_of_rows(a, b)
    # sums of float64 in another order
    np.testing.assert_allclose(mse, metrics.mse(torch.from_numpy(a), torch.from_numpy(b)), rtol=1e-13)
    np.testing.assert_allclose(metrics.psnr_of(mse), metrics.psnr(torch.from_numpy(a), torch.from_numpy(b)), rtol=1e-13)
    assert metrics.psnr_of(mse)[1] == math.inf
    for row in range(len(a)):
        np.testing.assert_array_equal(metrics.mse_of_rows(a[row : row + 1], b[row : row + 1])[0], mse[row])


def test_the_thresholds_in_words() -> None:
    assert metrics.THRESHOLD_NAMES == {"approximate": "5e-4", "accurate": "1e-7"}
    assert pytest.approx({"approximate": 33.0103, "accurate": 70}, abs=1e-5) == metrics.THRESHOLD_PSNRS


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"not \(2, 3\) and \(3, 2\)"):
        metrics.mse(torch.zeros(2, 3), torch.zeros(3, 2))
