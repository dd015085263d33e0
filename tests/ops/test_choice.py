from __future__ import annotations

import os

import pytest
import torch

from memrecon_fast import backends, ops
from memrecon_fast.ops import cpu, plain


def test_the_compiled_kernels_are_there() -> None:
    """Else all that is tested of them would be passed over without a word."""
    if os.environ.get("MEMRECON_FAST_NO_CPP", "0") not in ("", "0"):
        pytest.skip("built without them, as asked")
    assert backends()["cpp"] == "available"
    assert ops.choose("auto", torch.device("cpu")) == ("cpp", cpu)


def test_torch_does_for_every_device() -> None:
    assert ops.choose("torch", torch.device("cpu")) == ("torch", plain)
    assert ops.choose("auto", torch.device("cuda")) == ("torch", plain)


def test_cpp_is_for_cpus() -> None:
    with pytest.raises(ValueError, match="backend 'cpp' works on CPUs; the autoencoder is on cuda"):
        ops.choose("cpp", torch.device("cuda"))
