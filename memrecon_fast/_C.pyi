"""The compiled kernels (csrc/bindings.cpp, csrc/anderson_bindings.cpp); the last arguments are addresses.

Called by memrecon_fast.ops.admm.cpp and memrecon_fast.ops.anderson.cpp alone.
"""

def start(rows: int, d: int, threads: int, s: int, y: int, mask: int, coefficients: int, /) -> None: ...
def step(rows: int, d: int, threads: int, s: int, v: int, y: int, mask: int, coefficients: int, /) -> None: ...
def close(
    rows: int,
    d: int,
    estimate_mask: bool,
    threads: int,
    s: int,
    v: int,
    y: int,
    mask: int,
    anchor: int,
    x: int,
    residual: int,
    settled: int,
    recurs: int,
    renew: int,
    status: int,
    coefficients: int,
    /,
) -> None: ...
def advance(rows: int, d: int, threads: int, x: int, v: int, residual: int, status: int, /) -> None: ...
def measure(
    rows: int,
    d: int,
    places: int,
    threads: int,
    s: int,
    v: int,
    y: int,
    mask: int,
    steps: int,
    residuals: int,
    gram: int,
    head: int,
    filled: int,
    status: int,
    coefficients: int,
    /,
) -> None: ...
def estimate(
    rows: int,
    d: int,
    estimate_mask: bool,
    threads: int,
    s: int,
    v: int,
    y: int,
    mask: int,
    x: int,
    best: int,
    best_mask: int,
    residual: int,
    score: int,
    best_score: int,
    changed: int,
    status: int,
    coefficients: int,
    /,
) -> None: ...
def weigh(
    rows: int,
    places: int,
    settle: int,
    threads: int,
    gram: int,
    head: int,
    filled: int,
    extrapolated: int,
    base: int,
    weights: int,
    held: int,
    accepted: int,
    rejected: int,
    status: int,
    /,
) -> None: ...
def mix(
    rows: int,
    d: int,
    places: int,
    threads: int,
    s: int,
    steps: int,
    base: int,
    weights: int,
    status: int,
    /,
) -> None: ...
def instruction_sets() -> tuple[str, ...]: ...
def instruction_set() -> str: ...
def use_instruction_set(name: str, /) -> None: ...
