"""The compiled kernels (csrc/bindings.cpp); the last arguments are addresses. Called by memrecon_fast.ops.cpu alone."""

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
def instruction_sets() -> tuple[str, ...]: ...
def instruction_set() -> str: ...
def use_instruction_set(name: str, /) -> None: ...
