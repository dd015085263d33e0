"""Run a benchmark, from the root of the checkout.

    python -m benchmarks --list
    python -m benchmarks NAME [--quick] [options of this benchmark; --help shows them]

With --quick it runs at tiny sizes, to see that it works, and keeps its results apart from those that were measured.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from benchmarks.registry import BENCHMARKS, ROOT, Benchmark, table


def main(arguments: Sequence[str]) -> int:
    """The exit status: that of the benchmark; 2 where there is none of that name."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    if arguments[0] == "--list":
        print(table())
        return 0
    name, *rest = arguments
    for benchmark in BENCHMARKS:
        if benchmark.name == name:
            return _run(benchmark, rest)
    print(f"no such benchmark: {name}; there are {', '.join(one.name for one in BENCHMARKS)}", file=sys.stderr)
    return 2


def _run(benchmark: Benchmark, arguments: list[str]) -> int:
    if benchmark.is_pytest:
        import pytest

        path = ROOT.joinpath(*benchmark.module.split(".")).with_suffix(".py")
        return int(pytest.main(["-c", str(ROOT / "pyproject.toml"), str(path), *arguments]))
    status: int | None = importlib.import_module(benchmark.module).main(arguments)
    return status or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
