from __future__ import annotations

import os

import pytest
import torch

from memrecon_fast import backends, ops
from memrecon_fast.ops.admm import cpp as cpu
from memrecon_fast.ops.admm import plain


def test_the_compiled_kernels_are_there() -> None:
    """Else all that is tested of them would be passed over without a word."""
    if os.environ.get("MEMRECON_FAST_NO_CPP", "0") not in ("", "0"):
        pytest.skip("built without them, as asked")
    assert backends()["cpp"] == "available"
    assert ops.choose("auto", torch.device("cpu")) == ("cpp", cpu)


def test_torch_does_for_every_device() -> None:
    assert ops.choose("torch", torch.device("cpu")) == ("torch", plain)
    assert ops.choose("torch", torch.device("cuda")) == ("torch", plain)


def test_each_backend_names_its_device() -> None:
    with pytest.raises(ValueError, match=r"backend 'cpp' is not available: it works on CPUs, .* is on cuda"):
        ops.choose("cpp", torch.device("cuda"))
    with pytest.raises(ValueError, match=r"backend 'triton' is not available: it works on GPUs, .* is on cpu"):
        ops.choose("triton", torch.device("cpu"))


def test_on_a_gpu_triton_is_chosen_or_its_absence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memrecon_fast.ops._why_no_triton", lambda: "Triton is not installed")
    with pytest.warns(RuntimeWarning, match=r"not available \(Triton is not installed\); using torch"):
        assert ops.choose("auto", torch.device("cuda")) == ("torch", plain)
    with pytest.raises(ValueError, match="backend 'triton' is not available: Triton is not installed"):
        ops.choose("triton", torch.device("cuda"))
    monkeypatch.setattr("memrecon_fast.ops._why_no_triton", lambda: None)
    pytest.importorskip("triton")
    name, module = ops.choose("auto", torch.device("cuda"))
    assert (name, module.__name__) == ("triton", "memrecon_fast.ops.admm.triton")  # type: ignore[attr-defined]


def test_without_a_gpu_triton_is_not_available() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "no GPU" in backends()["triton"] or "not installed" in backends()["triton"]
