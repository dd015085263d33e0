"""The C++ kernels of this checkout, for a comparison with those of a GPU: built where they are not installed."""

from __future__ import annotations

import concurrent.futures
import importlib.machinery
import importlib.util
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import memrecon_fast as mf
from benchmarks.speed.gpu.device import ROOT

SOURCES = sorted((ROOT / "csrc").glob("*.cpp"))
# the flags of setup.py
_FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off", "-fno-trapping-math", "-fopenmp", "-fvisibility=hidden", "-fPIC"]


def make_cpp_available(folder: Path) -> str:
    """Build the C++ kernels of this checkout in `folder`; why there are none, empty if there are.

    Those that the package may already have were perhaps built from other sources: they are the second choice.
    """
    why_not = build_cpp(folder)
    if not why_not or mf.backends()["cpp"] == "available":
        return ""
    return why_not


def build_cpp(folder: Path) -> str:
    """Build and import them; why that failed, empty if it did not."""
    try:
        import pybind11

        includes = [f"-I{path}" for path in (pybind11.get_include(), sysconfig.get_paths()["include"])]

        def compile_one(source: Path) -> str:
            built = str(folder / f"{source.stem}.o")
            _run(["g++", *_FLAGS, *includes, "-c", str(source), "-o", built])
            return built

        with concurrent.futures.ThreadPoolExecutor() as pool:
            objects = list(pool.map(compile_one, SOURCES))
        target = folder / f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"
        _run(["g++", "-shared", "-fopenmp", *objects, "-o", str(target)])
        _import_as("memrecon_fast._C", target)
    except subprocess.CalledProcessError as error:
        return "they do not compile: " + next(_errors(error.stderr), "no message")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def _errors(output: str) -> Iterator[str]:
    return (line for line in output.splitlines() if "error" in line)


def _import_as(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    setattr(mf, name.rpartition(".")[2], module)
