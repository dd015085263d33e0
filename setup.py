"""The C++ extension memrecon_fast._C; everything else about the package is in pyproject.toml.

This is the only place that says how the kernels are compiled. Into another folder than the package:

    python setup.py build_ext --build-lib FOLDER --build-temp FOLDER/objects

MEMRECON_FAST_NO_CPP=1 installs without the kernels; MEMRECON_FAST_SANITIZE=1 builds them to be run with
AddressSanitizer and UndefinedBehaviorSanitizer (Linux, GCC; see csrc/sanitize.sh).
"""

from __future__ import annotations

import glob
import os
import sys
from typing import TYPE_CHECKING

from setuptools import setup  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from setuptools import Extension

NO_CPP = "MEMRECON_FAST_NO_CPP"
SANITIZE = "MEMRECON_FAST_SANITIZE"


def is_set(variable: str) -> bool:
    """Whether the environment variable is there, and neither empty nor 0."""
    return os.environ.get(variable, "0") not in ("", "0")


if is_set(NO_CPP):
    setup()
else:
    from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext

    class BuildKernels(build_ext):
        """Build the extension, or say how to do without."""

        def build_extension(self, ext: Extension) -> None:
            """Compile and link; the compiler's own message stands above ours."""
            try:
                super().build_extension(ext)
            except Exception as error:
                raise SystemExit(
                    f"error: the C++ kernels of memrecon_fast did not compile.\n"
                    f"Install a C++17 compiler (GCC or Clang), or set {NO_CPP}=1 to install without them."
                ) from error

    # Each product and sum is rounded by itself, as in ops/admm/plain.py: no contraction to fused multiply-add. Nobody
    # looks at floating-point exceptions: both branches of a choice may be computed, which makes it vector code.
    exact = ["-ffp-contract=off", "-fno-trapping-math"]
    openmp = ["-fopenmp"] if sys.platform == "linux" else []  # elsewhere the kernels run on one thread
    compiled, linked = ["-O3", *exact, *openmp], openmp
    if is_set(SANITIZE):
        sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        strict = ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
        compiled, linked = [*strict, *sanitizers, *exact, *openmp], [*sanitizers, *openmp]
    kernels = Pybind11Extension(
        "memrecon_fast._C",
        sources=sorted(glob.glob("csrc/*.cpp")),
        depends=sorted(glob.glob("csrc/*.h")),
        cxx_std=17,
        extra_compile_args=compiled,
        extra_link_args=linked,
    )
    ParallelCompile().install()  # the sources, on all cores
    setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels})
