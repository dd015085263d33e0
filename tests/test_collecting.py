"""`pytest -m gpu` collects its tests on a machine that has no more than torch, Triton, pytest and what reads images.

One module that cannot be imported ends the collection of all tests.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MISSING = ("memrecon_fast._C", "memrecon_fast.ops.cpp", "deepinv", "diffusers", "nbclient", "nbformat", "ray")
"""What may not be there: the C++ kernels, which nobody has built, and some of the extras."""


def needed(body: list[ast.stmt]) -> Iterator[tuple[str, bool]]:
    """The modules that are imported as these lines are run, in order; True: passed over where one is missing."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", False) for alias in node.names)
        elif isinstance(node, ast.If):
            yield from needed([] if "TYPE_CHECKING" in ast.unparse(node.test) else node.body)
            yield from needed(node.orelse)
        elif isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign) and node.value is not None:
            for call in ast.walk(node.value):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.importorskip":
                    yield str(ast.literal_eval(call.args[0])), True


def unguarded(source: str) -> list[str]:
    """Imports at the level of the module of what may be missing, without an `importorskip` of it before."""
    guarded: set[str] = set()
    found = []
    for name, passed_over in needed(ast.parse(source).body):
        for missing in MISSING:
            if name == missing or name.startswith(f"{missing}."):
                if passed_over:
                    guarded.add(missing)
                elif missing not in guarded:
                    found.append(name)
    return found


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_module_of_tests_needs_what_may_be_missing(path: Path) -> None:
    assert unguarded(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from memrecon_fast.ops import admm, cpp", ["memrecon_fast.ops.cpp"]),
        ("from memrecon_fast import _C", ["memrecon_fast._C"]),
        ("import ray", ["ray"]),
        ("if True:\n    import ray.util", ["ray.util"]),
        ("if TYPE_CHECKING:\n    from memrecon_fast.ops import cpp", []),
        ("def test() -> None:\n    import ray", []),
        ("ray: Any = pytest.importorskip('ray')\nimport ray.util", []),
        ("import ray.util\npytest.importorskip('ray')", ["ray.util"]),
        ("import raymond", []),
    ],
)
def test_what_is_found(source: str, found: list[str]) -> None:
    assert unguarded(source) == found
