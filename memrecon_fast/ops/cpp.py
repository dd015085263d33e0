"""The operations on compiled CPU kernels (csrc/), one pass over memory each: the backend "cpp".

All comes out as from both plain.py, bit for bit, but for sums over pixels: residual, score and gram may differ in the
last places, since they are summed in another order, and an estimate whose score is that close to the best one may be
taken for better here alone. The order is the same for every instruction set and any number of threads. Of the same
gram, `weigh` makes the same bits, but where a square root of torch's is off by the last one. The threads are torch's
(`torch.get_num_threads()`). Autograd does not see what these functions do.

An operation raises TypeError or ValueError for a v that a kernel must not have, see `State`. `stop` is plain.py's own:
its vectors have one entry for each row, too few to be worth a kernel.
"""

from __future__ import annotations

from torch import Tensor, get_num_threads

from memrecon_fast import _C, results
from memrecon_fast.ops.admm import (
    ADVANCE,
    CLOSE,
    MEAN_SQUARES,
    START,
    STEP,
    AdmmState,
    IterationState,
    Pairs,
    SplitState,
)
from memrecon_fast.ops.admm import plain as admm_plain
from memrecon_fast.ops.anderson import ESTIMATE, MEASURE, MIX, WEIGH, AndersonState
from memrecon_fast.ops.anderson import plain as anderson_plain
from memrecon_fast.ops.state import MAX_PLACES

COLUMNS = 8
"""The columns of matrices that passes over V work with are padded to a multiple of it (csrc/passes.h)."""

_SHARED = {
    "RUNNING": results.RUNNING,
    "MAX_PLACES": MAX_PLACES,
    "RIDGE": anderson_plain.RIDGE,
    "COLUMNS": COLUMNS,
}
for _name, _ours in _SHARED.items():
    if (_theirs := getattr(_C, _name, None)) != _ours:
        raise ImportError(
            f"{_name} is {_theirs} in the C++ kernels, which are of another version, and {_ours} in Python"
        )


class Admm:
    """`ops/admm/plain.py`."""

    stop = staticmethod(admm_plain.stop)

    @staticmethod
    def start(state: SplitState) -> None:
        """`plain.start`."""
        _C.start(state.rows, state.d, get_num_threads(), state.addresses(START))

    @staticmethod
    def step(state: SplitState, v: Tensor) -> None:
        """`plain.step`."""
        _C.step(state.rows, state.d, get_num_threads(), state.addresses(STEP, v))

    @staticmethod
    def close(state: AdmmState, v: Tensor, *, estimate_mask: bool) -> None:
        """`plain.close`."""
        _C.close(state.rows, state.d, get_num_threads(), estimate_mask, state.addresses(CLOSE, v))

    @staticmethod
    def advance(state: IterationState, v: Tensor) -> None:
        """`plain.advance`."""
        _C.advance(state.rows, state.d, get_num_threads(), state.addresses(ADVANCE, v))

    @staticmethod
    def mean_squares(a: Tensor, b: Tensor, out: Tensor) -> None:
        """`plain.mean_squares`."""
        pairs = Pairs(a, b, out)
        _C.mean_squares(pairs.rows, pairs.d, get_num_threads(), pairs.addresses(MEAN_SQUARES))


class Anderson:
    """`ops/anderson/plain.py`."""

    stop = staticmethod(anderson_plain.stop)

    @staticmethod
    def measure(state: AndersonState, v: Tensor) -> None:
        """`plain.measure`."""
        _C.measure(state.rows, state.d, get_num_threads(), state.places, state.addresses(MEASURE, v))

    @staticmethod
    def estimate(state: AndersonState, v: Tensor, *, estimate_mask: bool) -> None:
        """`plain.estimate`."""
        _C.estimate(state.rows, state.d, get_num_threads(), estimate_mask, state.addresses(ESTIMATE, v))

    @staticmethod
    def weigh(state: AndersonState, *, settle: int) -> None:
        """`plain.weigh`."""
        _C.weigh(state.rows, get_num_threads(), state.places, settle, state.addresses(WEIGH))

    @staticmethod
    def mix(state: AndersonState) -> None:
        """`plain.mix`."""
        _C.mix(state.rows, state.d, get_num_threads(), state.places, state.addresses(MIX))
