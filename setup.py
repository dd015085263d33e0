"""The C++ extension memrecon_fast._C; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from setuptools import setup  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from setuptools import Extension

NO_CPP = "MEMRECON_FAST_NO_CPP"

if os.environ.get(NO_CPP, "0") not in ("", "0"):
    setup()
else:
    from pybind11.setup_helpers import Pybind11Extension, build_ext

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
    flags = ["-O3", "-ffp-contract=off", "-fno-trapping-math"]
    openmp = ["-fopenmp"] if sys.platform == "linux" else []  # elsewhere the kernels run on one thread
    kernels = Pybind11Extension(
        "memrecon_fast._C",
        sources=["csrc/bindings.cpp", "csrc/anderson_bindings.cpp", "csrc/kernels.cpp", "csrc/anderson.cpp"],
        depends=["csrc/bindings.h", "csrc/kernels.h", "csrc/anderson.h", "csrc/pixels.h"],
        cxx_std=17,
        extra_compile_args=[*flags, *openmp],
        extra_link_args=openmp,
    )
    setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels})
