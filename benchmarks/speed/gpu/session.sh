#!/usr/bin/env bash
# All that a GPU should be asked about this project, on a machine that one has for half an hour; no step stops the next one.
#
#     OUT=FOLDER COMMIT=HASH bash benchmarks/speed/gpu/session.sh [SECONDS IN ALL: 585] [STEPS: smoke build bench tests probe]
#
# Where a call may take 600 seconds, two of them: `585 smoke build tests probe`, then `585 smoke bench`.
#
# From the root of a checkout, which need not be installed: torch, triton, numpy, pytest and, for the C++ kernels, setuptools,
# pybind11 and a compiler suffice (nothing is fetched: what is missing is said). Each step has its own time. What it writes goes
# to OUT/STEP.log as it comes, and to OUT/session.log once it is over; measurements go to OUT/gpu-NAME.json, .md, products.json,
# .md: never more than 8 files. The end of each step is printed, less than 12,000 characters in either of the two calls.
# Exit status: 0 if every step that was asked for went well, else 1.
set -u
begin=$SECONDS all=${1:-585} failed=0
shift || true
wanted=" ${*:-smoke build bench tests probe} "
OUT=${OUT:-$PWD/gpu-session}
mkdir -p "$OUT"
log=$OUT/session.log
: > "$log"
export OUT COMMIT="${COMMIT:-}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD
unset TRITON_INTERPRET OMP_NUM_THREADS

say() { echo "== $*" | tee -a "$log"; }

# the last so many bytes of a file, whole lines of at most 300 characters
ending() { tail -c "$1" "$2" | { [ "$(wc -c < "$2")" -le "$1" ] || read -r _; cut -c1-300; }; }

# step NAME MOST_SECONDS MOST_BYTES COMMAND: the bytes are those of its end that are printed
step() {
    case "$wanted" in *" $1 "*) ;; *) return ;; esac
    local left=$((all - (SECONDS - begin) - 5)) from=$SECONDS rc=0 part=$OUT/$1.log
    export most=$(($2 < left ? $2 : left))
    if [ "$most" -lt 10 ]; then
        say "$1: left out, no time"
        failed=1
        return
    fi
    if [ -n "$no_gpu" ]; then
        say "$1: left out, $no_gpu"
        failed=1
        return
    fi
    timeout -k 5 "$most" bash -o pipefail -c "$4" > "$part" 2>&1 < /dev/null || rc=$?
    [ "$rc" -eq 0 ] || failed=1
    { echo "-- $1" && cat "$part"; } >> "$log"
    case $rc in 124 | 137) rc="$rc, out of time" ;; esac
    say "$1: rc $rc, $((SECONDS - from)) s of $most"
    ending "$3" "$part"
    rm -f "$part"
}

# asked once: where there is no driver, or no torch, every step says so
no_gpu=$(timeout -k 5 90 python3 -m benchmarks.speed.gpu.smoke --why-not 2>&1) && no_gpu="" || no_gpu=$(echo "${no_gpu:-python3 does not answer}" | tail -n 1)

step smoke 120 1200 'nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader
python3 -m benchmarks.speed.gpu.smoke'
step build 120 800 'missing=""
for module in setuptools pybind11; do python3 -c "import $module" 2> /dev/null || missing="$missing $module"; done
command -v "${CXX:-c++}" > /dev/null || missing="$missing C++-compiler"
python3 -c "import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path(\"include\"), \"Python.h\")))" || missing="$missing Python.h"
[ -z "$missing" ] || { echo "the C++ kernels are not built; missing:$missing"; exit 3; }
python3 setup.py -q build_ext --inplace && python3 -c "import memrecon_fast; print(memrecon_fast.backends())"'
step bench 560 10500 'python3 -m benchmarks gpu --minutes "$(awk "BEGIN { print ($most - 45) / 60 }")" --out "$OUT" --commit "$COMMIT"'
step tests 330 3500 'tests="python3 -m pytest -p no:cacheprovider --color=no --tb=short --maxfail=25 -rfE --durations=5 -m gpu"
python3 -c "import pytest_timeout" 2> /dev/null && tests="$tests --timeout=90"  # where it is installed: what hangs is one test
compiled=tests/test_gpu.py::test_a_compiled_autoencoder_is_captured rc=0
$tests tests/ops/admm/test_triton_gpu.py tests/ops/anderson/test_triton_gpu.py tests/ops/halves/test_triton_gpu.py tests/test_gpu.py --deselect "$compiled" || rc=1
$tests tests/reconstruction/test_passes_triton_gpu.py || rc=1  # by itself: with Triton 3.6 these kernels do not compile
$tests "$compiled" || rc=1  # last, as compiling may take minutes
exit "$rc"'
step probe 90 3500 'python3 -m benchmarks products --out "$OUT/products" --commit "$COMMIT"'
say "$((SECONDS - begin)) s in all"
exit "$failed"
