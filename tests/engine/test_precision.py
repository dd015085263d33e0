from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import threading
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast import Settings, degradation, metrics
from memrecon_fast.engine import precision
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.precision import allow_tf32, in_format
from memrecon_fast.engine.samples import Sample
from memrecon_fast.recovery import prepare_recover
from memrecon_fast.solvers.accelerated import EARLY_ESTIMATES
from tests.helpers.memorised import Memorised
from tests.helpers.tied import Tied

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)


def switches() -> list[object]:
    """All of torch's switches for TF32."""
    backends: Any = torch.backends
    newer: list[Any] = []
    if precision._NEWER:
        newer = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul]
    return [
        torch.get_float32_matmul_precision(),
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
        *(switch.fp32_precision for switch in newer),
    ]


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("before", ["highest", "high"])
def test_tf32_is_switched_for_the_call_alone(allowed: bool, before: str) -> None:
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        expected = switches()
        with allow_tf32(allowed):
            assert torch.backends.cuda.matmul.allow_tf32 == allowed
            assert torch.backends.cudnn.allow_tf32 == allowed
        assert switches() == expected
        with pytest.raises(ZeroDivisionError), allow_tf32(allowed):
            raise ZeroDivisionError
        assert switches() == expected
    finally:
        torch.set_float32_matmul_precision(usual)


def test_inside_of_another_one_nothing_is_switched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it can be around a block, and around each of its passes."""
    put_back: list[str] = []
    set_precision = torch.set_float32_matmul_precision

    def noted(value: str) -> None:
        put_back.append(value)
        set_precision(value)

    monkeypatch.setattr(torch, "set_float32_matmul_precision", noted)
    expected = switches()
    with allow_tf32(True):
        inside = switches()
        for _ in range(3):
            with allow_tf32(True):
                assert switches() == inside
        assert put_back == []
        with allow_tf32(False):
            assert not torch.backends.cuda.matmul.allow_tf32
        assert len(put_back) == 1
        assert switches() == inside
        torch.backends.cuda.matmul.allow_tf32 = False  # somebody else's
        with allow_tf32(True):
            assert torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
    assert switches() == expected
    with allow_tf32(True):
        assert torch.backends.cuda.matmul.allow_tf32


def test_a_block_is_switched_as_a_whole(memorised: Memorised, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []

    def around(number_format: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
        entered.append(number_format)
        return contextlib.nullcontext()

    monkeypatch.setattr("memrecon_fast.engine.table.multiplying_in", around)
    settings = Settings(solver="paper", precision="bfloat16", max_outer_iterations=3, tolerance=0.0)
    degraded = degradation.erase(memorised.members[:4], degradation.make_mask("random-80", SHAPE))
    result = mf.recover(memorised.autoencoder, degraded, settings=settings, slots=4)
    assert entered == ["bfloat16"] * int(result.outer_iterations.max())


NEWER_SWITCHES = """
import torch
from memrecon_fast.engine.precision import allow_tf32
b = torch.backends
leaves = [b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn]
def values(): return [leaf.fp32_precision for leaf in leaves] + [b.mkldnn.matmul.fp32_precision]
for switch in (b, b.cudnn, b.cuda.matmul, b.cudnn.conv):
    switch.fp32_precision = "tf32"
    before = values()
    for allowed, expected in ((False, "ieee"), (True, "tf32")):
        with allow_tf32(allowed):
            assert {leaf.fp32_precision for leaf in leaves} == {expected}, (switch, values())
        assert values() == before, (switch, before, values())
    switch.fp32_precision = "none"
b.fp32_precision = "ieee"
with allow_tf32(True):
    pass
b.fp32_precision = "tf32"
assert b.cuda.matmul.fp32_precision == "tf32"  # it still inherits
"""


@pytest.mark.skipif(not precision._NEWER, reason="this torch has the older switches alone")
def test_torchs_newer_switches_are_overruled_and_left_as_they_were() -> None:
    done = subprocess.run([sys.executable, "-c", NEWER_SWITCHES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Uncopyable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.linear(x)  # type: ignore[no-any-return]


def test_a_module_that_cannot_be_copied_or_not_be_rounded_is_rounded_in_every_call() -> None:
    torch.manual_seed(0)
    old_spectral_norm = nn.utils.spectral_norm(nn.Linear(8, 8))
    for autoencoder in (Uncopyable().eval(), nn.Sequential(old_spectral_norm).eval()):
        images = torch.rand(16, 8)
        settings = Settings(solver="paper", precision="bfloat16", max_outer_iterations=2)
        assert mf.recover(autoencoder, images, settings=settings).images.isfinite().all()


def test_float32_on_a_cpu_is_the_autoencoder_itself() -> None:
    autoencoder = nn.Linear(4, 4)
    assert in_format(autoencoder, "float32", CPU) == [autoencoder]


def test_tf32_is_refused_on_a_cpu() -> None:
    with pytest.raises(ValueError, match="'tf32' is a format of NVIDIA GPUs; the autoencoder is on cpu"):
        mf.recover(nn.Linear(4, 4).eval(), torch.zeros(1, 4), settings=Settings(solver="paper", precision="tf32"))


@pytest.mark.parametrize("activation", [nn.LeakyReLU(), nn.PReLU(), nn.Softplus(), nn.LayerNorm(8)])
def test_bfloat16_rounds_the_weights_once_and_leaves_the_original_alone(activation: nn.Module) -> None:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(3, 6, 3, padding=1), activation, nn.ConvTranspose2d(6, 3, 3, padding=1)
    autoencoder = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(192, 8)).eval()
    before = {name: tensor.clone() for name, tensor in autoencoder.state_dict().items()}
    images = torch.rand(16, *SHAPE)
    rounded = precision._with_rounded_weights(autoencoder)
    assert rounded is not None
    dtypes = {name: parameter.dtype for name, parameter in rounded.named_parameters()}
    assert all(dtype == (torch.float32 if name.startswith("1.") else torch.bfloat16) for name, dtype in dtypes.items())
    with torch.inference_mode():
        got, expected = in_format(autoencoder, "bfloat16", CPU)[0](images), autoencoder(images)
    assert got.dtype == torch.bfloat16
    # 8 bits of mantissa, through three layers
    torch.testing.assert_close(got.float(), expected, rtol=0.05, atol=0.02)
    assert not torch.equal(got.float(), expected)
    for name, tensor in autoencoder.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_bfloat16_of_a_function_and_of_shared_weights() -> None:
    tied = Tied().eval()
    images = torch.rand(16, 8)
    with torch.inference_mode():
        from_module = in_format(tied, "bfloat16", CPU)[0](images)
        from_function = in_format(lambda x: tied(x), "bfloat16", CPU)[0](images)
    assert torch.equal(from_module, from_function)
    rounded = precision._with_rounded_weights(tied)
    assert isinstance(rounded, Tied)
    assert rounded.decoder.weight is rounded.encoder.weight


@pytest.mark.parametrize("initial_mask", ["random", "zeros"])
@pytest.mark.parametrize("name", degradation.MASKS)
def test_progressive_precision_gives_the_verdicts_of_float32(
    memorised: Memorised, name: str, initial_mask: str
) -> None:
    images = torch.cat([memorised.members, memorised.controls])
    degraded = degradation.erase(images, degradation.make_mask(name, SHAPE))
    settings = Settings(solver="paper", gamma=0.5, initial_mask=initial_mask, max_outer_iterations=40)
    progressive = dataclasses.replace(settings, precision="progressive")
    exact, got = (mf.recover(memorised.autoencoder, degraded, settings=one) for one in (settings, progressive))
    for threshold in (metrics.ACCURATE_MSE, metrics.APPROXIMATE_MSE):
        verdicts = [metrics.mse(result.images, images) < threshold for result in (got, exact)]
        assert torch.equal(*verdicts)
    # where both end at the same mask, the image is the same float32 computation: no tolerance
    same_mask = (got.masks == exact.masks).flatten(1).all(dim=1)
    settled = same_mask & (got.residual == 0) & (exact.residual == 0)
    assert settled.sum() >= 0.8 * len(images)
    assert torch.equal(got.images[settled], exact.images[settled])
    assert (got.outer_iterations <= 40).all()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("name", "borderline"), [("center", 0), ("random-80", 0), ("stripes", 0), ("corner", 2)])
def test_progressive_precision_of_the_accelerated_solver_gives_the_verdicts_of_float32(
    memorised: Memorised, name: str, borderline: int, known: bool
) -> None:
    """On the hardest mask some images lie between two basins: other roundings, of whatever kind, may move them."""
    images = torch.cat([memorised.members, memorised.controls[:8]])
    degraded = degradation.erase(images, mask := degradation.make_mask(name, SHAPE))
    settings = Settings(solver="accelerated", gamma=(0.2, 0.5), max_outer_iterations=60)
    progressive = dataclasses.replace(settings, precision="progressive")
    exact, got = (
        mf.recover(memorised.autoencoder, degraded, mask if known else None, one) for one in (settings, progressive)
    )
    for threshold in (metrics.ACCURATE_MSE, metrics.APPROXIMATE_MSE):
        verdicts = [metrics.mse(result.images, images) < threshold for result in (got, exact)]
        assert (verdicts[0] != verdicts[1]).sum() <= borderline
        assert verdicts[0][:16].sum() >= (6 if borderline else 15)
        assert not verdicts[0][16:].any()
    recognized = [one.score < settings.recognized_below for one in (got, exact)]
    assert (recognized[0] | ~recognized[1]).all()  # what is not is begun again in float32: none is lost
    assert (got.outer_iterations <= 60 + EARLY_ESTIMATES).all()


@pytest.mark.parametrize("known", [False, True])
def test_the_first_estimates_of_the_accelerated_solver_are_in_bfloat16_and_all_else_in_float32(
    memorised: Memorised, known: bool
) -> None:
    """Of one image: so many evaluations in bfloat16, then none any more."""
    spy = Spy(memorised.autoencoder).eval()
    degraded = degradation.erase(memorised.members[:1], mask := degradation.make_mask("center", SHAPE))
    settings = Settings(solver="accelerated", gamma=0.5, precision="progressive")
    solver = prepare_recover(spy, SHAPE, settings, known_masks=known)
    spy.in_bfloat16.clear()
    ((one,),) = InFlight(solver, 4).batches([Sample(0, degraded[0], mask if known else None)])  # no check at the end
    early = EARLY_ESTIMATES * settings.mask_period
    assert spy.in_bfloat16[:early] == [True] * early
    late = spy.in_bfloat16[early:]
    assert late == [False] * len(late)
    assert one.evaluations == early + len(late) - 1  # but for the one that scores the estimate
    assert one.evaluations == settings.mask_period * one.outer_iterations
    assert one.fixed_point_mse < 1e-9


class Spy(nn.Module):
    """Notes of every call whether it was in bfloat16."""

    in_bfloat16: ClassVar[list[bool]] = []  # shared with copies

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, x: Tensor) -> Tensor:
        self.in_bfloat16.append(torch.is_autocast_enabled("cpu"))
        v = self.autoencoder(x)
        assert (v.dtype == torch.bfloat16) == self.in_bfloat16[-1]
        return v  # type: ignore[no-any-return]


def test_progressive_precision_spends_little_in_float32(memorised: Memorised) -> None:
    degraded = degradation.erase(memorised.members, degradation.make_mask("center", SHAPE))
    in_float32 = 0

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.autoencoder = memorised.autoencoder

        def forward(self, x: Tensor) -> Tensor:
            nonlocal in_float32
            in_float32 += 0 if torch.is_autocast_enabled("cpu") else len(x)
            return self.autoencoder(x)  # type: ignore[no-any-return]

    settings = Settings(solver="paper", precision="progressive")
    mf.recover(Counting().eval(), degraded, settings=settings)
    exact = mf.recover(memorised.autoencoder, degraded, settings=Settings(solver="paper"))
    assert in_float32 < 0.7 * int(exact.evaluations.sum())


@pytest.mark.parametrize(
    "settings",
    [{"max_outer_iterations": 5}, {"known": True}],
)
def test_where_there_is_nothing_to_gain_all_is_float32(memorised: Memorised, settings: dict[str, object]) -> None:
    known = bool(settings.pop("known", False))
    chosen = Settings(solver="paper", precision="progressive", **settings)  # type: ignore[arg-type]
    assert prepare_recover(memorised.autoencoder, SHAPE, chosen, known_masks=known).early is None
