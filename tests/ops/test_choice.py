from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from memrecon_fast import backends, ops

if TYPE_CHECKING:  # the same functions with the same arguments everywhere: mypy compares them
    from memrecon_fast.ops import cpp
    from memrecon_fast.ops.admm import Admm
    from memrecon_fast.ops.admm import plain as admm_plain
    from memrecon_fast.ops.admm import triton as admm_triton
    from memrecon_fast.ops.anderson import Anderson
    from memrecon_fast.ops.anderson import plain as anderson_plain
    from memrecon_fast.ops.anderson import triton as anderson_triton

    ADMM: list[Admm] = [admm_plain, admm_triton, cpp.Admm]
    ANDERSON: list[Anderson] = [anderson_plain, anderson_triton, cpp.Anderson]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ROOT = Path(__file__).parents[2]


def names(backend: str, device: torch.device) -> tuple[str, str, str]:
    """The backend that is chosen, and where its functions are."""
    chosen = ops.choose(backend, device)
    return chosen.backend, chosen.admm.start.__module__, chosen.anderson.mix.__module__


PLAIN = ("torch", "memrecon_fast.ops.admm.plain", "memrecon_fast.ops.anderson.plain")


def test_the_compiled_kernels_are_there() -> None:
    """Else all that is tested of them would be passed over without a word."""
    if os.environ.get("MEMRECON_FAST_NO_CPP", "0") not in ("", "0"):
        pytest.skip("built without them, as asked")
    assert backends()["cpp"] == "available"
    assert names("auto", CPU) == ("cpp", "memrecon_fast.ops.cpp", "memrecon_fast.ops.cpp")


def test_torch_does_for_every_device() -> None:
    assert names("torch", CPU) == PLAIN
    assert names("torch", CUDA) == PLAIN


def test_each_backend_names_its_device() -> None:
    with pytest.raises(ValueError, match=r"backend 'cpp' is not available: it works on CPUs, .* is on cuda"):
        ops.choose("cpp", CUDA)
    with pytest.raises(ValueError, match=r"backend 'triton' is not available: it works on GPUs, .* is on cpu"):
        ops.choose("triton", CPU)


def test_on_a_gpu_triton_is_chosen_or_its_absence_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memrecon_fast.ops._why_no_triton", lambda: "Triton is not installed")
    with pytest.warns(RuntimeWarning, match=r"not available \(Triton is not installed\); using torch"):
        assert names("auto", CUDA) == PLAIN
    with pytest.raises(ValueError, match="backend 'triton' is not available: Triton is not installed"):
        ops.choose("triton", CUDA)
    monkeypatch.setattr("memrecon_fast.ops._why_no_triton", lambda: None)
    pytest.importorskip("triton", minversion="3.6")
    assert names("auto", CUDA) == ("triton", "memrecon_fast.ops.admm.triton", "memrecon_fast.ops.anderson.triton")


def test_a_triton_that_is_too_old_is_told_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of torch 2.4, say, where the kernels cannot even be imported."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    old = types.ModuleType("triton")
    monkeypatch.setitem(sys.modules, "triton", old)
    for version, available in (("3.0.0", False), ("3.5.1", False), ("3.6.0", True), ("3.10.0+git1", True)):
        old.__dict__["__version__"] = version
        said = "available" if available else f"it needs Triton 3.6 or newer; {version} is installed"
        assert backends()["triton"] == said
    for version in ("", "nightly"):
        old.__dict__["__version__"] = version
        assert backends()["triton"] == "Triton is not installed: what is found has no version"
    old.__dict__["__version__"] = "3.0.0"
    with pytest.warns(RuntimeWarning, match=r"needs Triton 3.6 or newer; 3.0.0 is installed\); using torch"):
        assert names("auto", CUDA) == PLAIN


def test_without_a_gpu_triton_is_not_available() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert any(why in backends()["triton"] for why in ("no GPU", "not installed", "needs Triton"))


SAY = "import memrecon_fast as mf; print(mf.backends()['cpp'])"


def why_not_in(folder: Path, *paths: Path) -> str:
    """What `python`, started in that folder, says of the C++ kernels; without any other place for packages to be."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (folder, *paths)))}
    # -I would leave out PYTHONPATH, too: -S leaves out the installed packages, and torch is given back below
    site = Path(torch.__file__).parents[1]
    code = f"import sys; sys.path.append({str(site)!r}); {SAY}"
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """The package without its compiled kernels."""
    ignored = shutil.ignore_patterns("_C.*.so", "__pycache__")
    shutil.copytree(ROOT / "memrecon_fast", tmp_path / "tree" / "memrecon_fast", ignore=ignored)
    return tmp_path / "tree"


def test_a_source_tree_that_is_not_built_says_so(unbuilt: Path) -> None:
    (unbuilt / "csrc").mkdir()
    (unbuilt / "setup.py").touch()
    said = why_not_in(unbuilt)
    assert said == f"memrecon_fast is imported from a source tree that is not built ({unbuilt}); pip install -e . there"


def test_an_installation_without_kernels_says_so(unbuilt: Path) -> None:
    message = "memrecon_fast was built without its C++ kernels: No module named 'memrecon_fast._C'"
    assert why_not_in(unbuilt) == message


def test_a_source_tree_that_was_installed_without_kernels_says_so(unbuilt: Path, tmp_path: Path) -> None:
    """`MEMRECON_FAST_NO_CPP=1 pip install -e .`, as pip notes it."""
    (unbuilt / "csrc").mkdir()
    (unbuilt / "setup.py").touch()
    noted = tmp_path / "site" / "memrecon_fast-0.1.0.dist-info"
    noted.mkdir(parents=True)
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: memrecon-fast\nVersion: 0.1.0\n")
    (noted / "direct_url.json").write_text(f'{{"url": "{unbuilt.as_uri()}", "dir_info": {{"editable": true}}}}')
    said = why_not_in(unbuilt, tmp_path / "site")
    assert said.startswith("memrecon_fast was built without its C++ kernels: ")


def test_kernels_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = pytest.importorskip("memrecon_fast._C", reason="built without the C++ kernels")
    for name in ("RUNNING", "MAX_PLACES", "RIDGE"):
        with monkeypatch.context() as patched:
            patched.setattr(compiled, name, 7)
            patched.delitem(sys.modules, "memrecon_fast.ops.cpp", raising=False)
            assert backends()["cpp"].startswith(f"{name} is 7 in the C++ kernels, which are of another version, and ")
    assert backends()["cpp"] == "available"
