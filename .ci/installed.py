"""An installed wheel works: the compiled kernels are there, on torch's OpenMP runtime, and a recovery runs on them."""

import importlib.metadata
import pathlib
import subprocess
import sys
import sysconfig

import torch

import memrecon_fast as mf


def openmp_runtimes() -> set[str]:
    """The files of all OpenMP runtimes in this process."""
    maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
    names = {line.split()[-1] for line in maps if "/" in line}
    return {name for name in names if any(part in pathlib.Path(name).name for part in ("gomp", "iomp", "libomp"))}


def main() -> None:
    """Raise AssertionError, with what was found, for whatever is not as it should be."""
    package = pathlib.Path(mf.__file__).parent
    assert package.is_relative_to(sysconfig.get_path("purelib")), f"this is not the installed package: {package}"
    assert mf.__version__ == importlib.metadata.version("memrecon-fast")
    assert mf.backends()["cpp"] == "available", f"the wheel's compiled kernels: {mf.backends()['cpp']}"

    model = mf.autoencoders.build("fc-10", (3, 8, 8)).eval()
    images = torch.rand(4, 3, 8, 8)
    recovery = mf.recover(model, images, backend="cpp", settings=mf.Settings(max_outer_iterations=2))
    assert recovery.images.isfinite().all()

    runtimes = openmp_runtimes()
    assert len(runtimes) == 1, f"several OpenMP runtimes: {sorted(runtimes)}"
    assert next(iter(runtimes)).startswith(str(pathlib.Path(torch.__file__).parent)), f"not torch's: {runtimes}"

    command = pathlib.Path(sys.executable).with_name("memrecon")
    said = subprocess.run([command, "demo", "--help"], capture_output=True, text=True, check=True).stdout
    assert "demo" in said
    print(f"{package}: {mf.__version__}, torch {torch.__version__}, OpenMP of {runtimes.pop()}")


if __name__ == "__main__":
    main()
