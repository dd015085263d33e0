"""What does a forward pass cost on a CPU: by number of rows, with packed weights, in bfloat16?

    python -m benchmarks passes             some ten minutes
    python -m benchmarks passes --quick     tiny, to see that it works

97 % of an audit are forward passes. Microseconds of a row, the shortest of several passes, of nets as they are audited:

- as it is: torch's own operations, in the layout that `recover()` chooses;
- as in recover(): with the weights of large linear layers packed once, see `engine/packed.py`;
- frozen: `torch.compile` with `freezing`, which packs the weights of linear layers and convolutions for oneDNN and MKL
  once and computes activations with what is before them, for any number of rows, as a stream needs it. It takes a C++
  compiler on the user's machine;
- bfloat16: as `precision="bfloat16"` computes, which pays where the processor has AVX-512 BF16 or AMX;
- of a single layer: `F.linear`, and the same with weights packed by oneDNN and by MKL.

Of what `recover()` computes it is also said whether a row keeps its bits at another place, among others, and whether
they are those of the net as it is. Ways take turns in one process, one thread, seconds of its processor time. The
weights are not trained: time does not depend on them. Writes benchmarks/results/passes.json and .md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from benchmarks.measuring import results_path, taking_turns, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast import autoencoders
from memrecon_fast.engine.packed import Packed, weights_of
from memrecon_fast.engine.precision import in_format
from memrecon_fast.engine.prox import make_prox

CPU = torch.device("cpu")
ROWS = (16, 64, 256)
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Of the processor, those that matter here, as Linux calls them."""
Way = Callable[[Tensor], Tensor]


def nets(quick: bool) -> Iterator[tuple[str, nn.Module, tuple[int, int, int]]]:
    """Name, net and image shape."""
    for depth, width, side in [(3, 32, 8)] if quick else [(20, 1024, 64), (10, 1024, 32), (8, 512, 16)]:
        shape = (3, side, side)
        net = autoencoders.FullyConnected(shape, width, depth, "leaky_relu")
        yield f"FC {depth} × {width}, {side}×{side}", net.eval(), shape
    widths = (4, 8) if quick else (48, 96, 192)
    for activation, side in [("prelu", 8)] if quick else [("prelu", 16), ("softplus", 16), ("prelu", 32)]:
        shape = (3, side, side)
        named = f"U-Net {', '.join(map(str, widths))} {activation}, {side}×{side}"
        yield named, autoencoders.UNet(shape, widths, activation=activation).eval(), shape


def shortest(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each way in its best round."""
    return {name: min(seconds) for name, seconds in taking_turns(ways, rounds).items()}


def with_packed(net: nn.Module) -> Way:
    """As `Prox` calls it."""
    packed = Packed(weights_of(net))

    def call(images: Tensor) -> Tensor:
        with packed:
            answer: Tensor = net(images)
        return answer

    return call


def keeps_bits(way: Way, images: Tensor) -> bool:
    """Whether a row answers the same bits at another place, among others, and among fewer or more of them."""
    expected = way(images)[3]
    moved = images.flip(0)
    moved[5] = images[3]
    fewer = torch.cat([images[3:4], moved[:7]])
    return all(torch.equal(one, expected) for one in (way(moved)[5], way(fewer)[0]))


def of_net(
    net: nn.Module, shape: tuple[int, int, int], numbers: Sequence[int], rounds: int
) -> Iterator[dict[str, Any]]:
    """For each number of rows: microseconds of a row by way, and whether bits are kept."""
    torch.compiler.reset()  # the nets before
    prox = make_prox(net, shape, CPU)
    with torch.inference_mode(), inductor.patch(freezing=True):
        ways: dict[str, Way] = {
            "as it is": net,
            "as in recover()": with_packed(net),
            "frozen": torch.compile(copy.deepcopy(net), dynamic=True),
            "bfloat16": in_format(net, "bfloat16", CPU)[0],
        }
        ours = ways["as in recover()"]
        for rows in numbers:
            images = prox.as_images(prox.to_rows(torch.rand(rows, *shape, generator=torch.Generator().manual_seed(0))))
            seconds = shortest({name: partial(way, images) for name, way in ways.items()}, rounds)
            yield {
                "rows": rows,
                "microseconds": {name: 1e6 * value / rows for name, value in seconds.items()},
                "keeps bits": keeps_bits(ours, images),
                "bits of the net as it is": torch.equal(ours(images), net(images)),
            }


def ten_times(way: Callable[[], object]) -> None:
    """As one is too short to be timed."""
    for _ in range(10):
        way()


def of_layer(width: int, rows: int, rounds: int) -> dict[str, float]:
    """GFLOP/s of a linear layer by way."""
    x, weight, bias = torch.rand(rows, width), torch.rand(width, width) / width, torch.rand(width)
    ops: Any = torch.ops
    with torch.inference_mode():
        ways: dict[str, Callable[[], object]] = {"F.linear": lambda: nn.functional.linear(x, weight, bias)}
        if torch.backends.mkldnn.is_available():
            packed = ops.mkldnn._reorder_linear_weight(weight, rows)
            ways["packed by oneDNN"] = lambda: ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
        if torch.backends.mkl.is_available():
            by_mkl = ops.mkl._mkl_reorder_linear_weight(weight, rows)
            ways["packed by MKL"] = lambda: ops.mkl._mkl_linear(x, by_mkl, weight, bias, rows)
        found = shortest({name: partial(ten_times, way) for name, way in ways.items()}, rounds)
    return {name: 10 * 2e-9 * rows * width**2 / value for name, value in found.items()}


def instructions() -> list[str]:
    """Those of INSTRUCTIONS that the processor has."""
    path = Path("/proc/cpuinfo")
    flags = path.read_text().split() if path.exists() else []
    return [name for name in INSTRUCTIONS if name in flags]


def render(about: dict[str, Any], rows: list[dict[str, Any]], layers: list[dict[str, Any]]) -> str:
    """For people."""
    names = list(rows[0]["microseconds"])
    lines = [
        "# What a forward pass costs on a CPU",
        "",
        "Written by `python -m benchmarks passes`, which says what the ways are: microseconds of a row, the shortest",
        f"of several passes. {about['processor']} ({', '.join(about['instructions'])}), one thread, torch",
        f"{about['torch']}, {about['date']}, commit {about['commit']}.",
        "",
        f"| | rows | {' | '.join([*names, 'gain in recover()', 'keeps bits', 'bits of the net as it is'])} |",
        f"|---|---|{'---|' * (len(names) + 3)}",
    ]
    for row in rows:
        times = row["microseconds"]
        gain = times["as it is"] / times["as in recover()"]
        said = [("no", "yes")[row[name]] for name in ("keeps bits", "bits of the net as it is")]
        numbers = " | ".join(f"{times[name]:,.0f}" for name in names)
        lines.append(f"| {row['net']} | {row['rows']} | {numbers} | {gain:.2f} | {' | '.join(said)} |")
    ways = list(layers[0]["gflops"])
    lines += ["", "A linear layer, GFLOP/s:", "", f"| | rows | {' | '.join(ways)} |", f"|---|---|{'---|' * len(ways)}"]
    for one in layers:
        numbers = " | ".join(f"{one['gflops'][way]:.0f}" for way in ways)
        lines.append(f"| {one['width']} → {one['width']} | {one['rows']} | {numbers} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Measure and write."""
    parser = make_parser("passes", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, results to a temporary folder")
    parser.add_argument("--out", type=Path, help="results, without suffix; benchmarks/results/passes without it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds, numbers = (1, (8,)) if options.quick else (7, ROWS)
    about = {**where(), "instructions": instructions()}
    layers = [
        {"width": width, "rows": rows, "gflops": of_layer(width, rows, rounds)}
        for width in ((32,) if options.quick else (512, 1024))
        for rows in numbers
    ]
    results = []
    for name, net, shape in nets(options.quick):
        for row in of_net(net, shape, numbers, rounds):
            results.append({"net": name, **row})
            print(results[-1], flush=True)
    text = render(about, results, layers)
    print(text)
    found = {"where": about, "rows": results, "layers": layers}
    write_results(results_path("passes", options.out, options.quick), found, text)
