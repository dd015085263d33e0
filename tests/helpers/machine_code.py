"""What the tests of the Triton kernels' machine code share: compiling for sm_90 without a GPU, and a disassembler.

Import it only where Triton is installed.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import triton

from memrecon_fast.ops import launch, state
from memrecon_fast.ops.state import State


class NoGPU:
    """In the place of Triton's driver: just enough to compile, for a device that shares kernels with no real one."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return -1

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """From now on operations run up to the launch, which only compiles; the kernels that would have run."""
    kernels: list[Any] = []

    def warm_up(kernel: Any, programs: int, *arguments: Any, **configuration: Any) -> None:
        kernels.append(kernel.warmup(*arguments, grid=(programs,), **configuration))

    monkeypatch.setattr(triton.runtime.driver, "_active", NoGPU())
    checks: list[tuple[object, str]] = [(State, "__post_init__"), (State, "_check_v"), (launch, "_check")]
    checks.append((state, "check_in_memory"))
    for place, name in checks:  # buffers without memory are good enough to compile for
        monkeypatch.setattr(place, name, lambda *_: None)
    monkeypatch.setattr(launch, "_run", warm_up)
    return kernels


class Code:
    """The machine code of a kernel, as the disassembler that comes with Triton shows it."""

    def __init__(self, kernel: Any, folder: Path) -> None:
        file = folder / "kernel.cubin"
        file.write_bytes(kernel.asm["cubin"])
        self.ptx: str = kernel.asm["ptx"]
        self.sass = self._ask("-sass", file)
        self.instructions = Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@\S+\s+)?([A-Z0-9]+)\b", self.sass))
        usage = self._ask("-res-usage", file)
        self.resources = {key: int(number) for key, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}

    def accesses(self, kind: str) -> Counter[int]:
        """How many loads (LDG) or stores (STG) of global memory there are of each width in bits."""
        suffixes = re.findall(rf"\b{kind}((?:\.[A-Z0-9]+)*)\s", self.sass)
        widths = (re.search(r"\.[US]?(8|16|64|128)\b", suffix) for suffix in suffixes)
        return Counter(int(width[1]) if width else 32 for width in widths)

    @staticmethod
    def _ask(option: str, file: Path) -> str:
        command = [triton.knobs.nvidia.cuobjdump.path, option, str(file)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


_disassembled: dict[str, Code] = {}


def disassemble(kernel: Any, folder: Path) -> Code:
    """The machine code of the kernel, looked at once."""
    if kernel.hash not in _disassembled:
        _disassembled[kernel.hash] = Code(kernel, folder)
    return _disassembled[kernel.hash]
