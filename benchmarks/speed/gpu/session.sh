#!/usr/bin/env bash
# All that a GPU should be asked about this project, in order of value; no step stops the next one.
#
#     OUT=FOLDER COMMIT=HASH bash benchmarks/speed/gpu/session.sh [SECONDS IN ALL] [STEPS: smoke build bench tests]
#
# From the root of a checkout, which need not be installed: torch, triton, numpy, pybind11, pytest and a compiler suffice.
set -u
begin=$SECONDS all=${1:-585}
shift || true
wanted=" ${*:-smoke build bench tests} "
OUT=${OUT:-$PWD/gpu-session}
mkdir -p "$OUT"
log=$OUT/session.log
: > "$log"
export OUT PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD
unset TRITON_INTERPRET OMP_NUM_THREADS

# step NAME MOST_SECONDS COMMAND: what it writes goes to OUT/NAME.log, its end to the log
step() {
    case "$wanted" in *" $1 "*) ;; *) return ;; esac
    local left=$((all - (SECONDS - begin) - 5)) from=$SECONDS rc=0
    export most=$(($2 < left ? $2 : left))
    if [ "$most" -lt 10 ]; then
        echo "== $1: left out, no time" | tee -a "$log"
        return
    fi
    timeout -k 5 "$most" bash -o pipefail -c "$3" > "$OUT/$1.log" 2>&1 || rc=$?
    { echo "== $1: rc $rc, $((SECONDS - from)) s of $most" && tail -n 30 "$OUT/$1.log" | cut -c1-400; } | tee -a "$log"
}

step smoke 90 'python3 - <<P
import dataclasses
import torch, triton
import memrecon_fast as mf

print(torch.__version__, triton.__version__, torch.cuda.get_device_name())
net = mf.autoencoders.FullyConnected((3, 16, 16), 64, 4).eval().cuda()
degraded = torch.rand(48, 3, 16, 16, device="cuda")
for settings in (mf.Settings(solver="paper", max_outer_iterations=6), mf.Settings(max_outer_iterations=12)):
    for precision in ("float32", "tf32", "bfloat16"):
        recovery = mf.recover(net, degraded, settings=dataclasses.replace(settings, precision=precision))
        print(settings.solver, precision, recovery.backend, recovery.execution)
P'
step build 90 'python3 setup.py build_ext --inplace'
step bench 560 'python3 -m benchmarks gpu --minutes "$(awk "BEGIN { print ($most - 45) / 60 }")" --keep-going --out "$OUT" \
    --commit "${COMMIT:-unknown}"'
step tests 420 'python3 -m pytest -p no:cacheprovider --maxfail=25 -rfE --durations=5 -m gpu tests/ops/admm/test_triton_gpu.py \
    tests/ops/anderson/test_triton_gpu.py tests/reconstruction/test_passes_triton_gpu.py tests/test_gpu.py'
echo "== $((SECONDS - begin)) s in all"
