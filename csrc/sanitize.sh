#!/usr/bin/env bash
# Run the tests of the kernels on such that are built with AddressSanitizer and UndefinedBehaviorSanitizer (Linux, GCC).
# Needs the Python environment of the tests, with setuptools and pybind11; leaves the checkout as it is.
#
#     csrc/sanitize.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cp -r memrecon_fast tests pyproject.toml "$place"
rm -f "$place"/memrecon_fast/_C.*.so

export CXX=${CXX:-g++}
MEMRECON_FAST_SANITIZE=1 python setup.py -q build_ext --build-lib "$place" --build-temp "$place/objects"

# The sanitizers must be loaded before Python is, and libstdc++ with them, for torch's exceptions to pass through.
# torch allocates by malloc, so every buffer has red zones around it. Leaks are not looked for: the interpreter and torch
# keep memory to the end. pytest must leave the file descriptors alone, or the report of a sanitizer is lost.
cd "$place"
LD_PRELOAD="$("$CXX" -print-file-name=libasan.so) $("$CXX" -print-file-name=libubsan.so) $("$CXX" -print-file-name=libstdc++.so)" \
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$place" \
    python -m pytest -p no:cacheprovider --capture=sys tests/ops tests/reconstruction/test_passes.py "$@"
