"""The results of the GPU benchmark as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]

PREDICTIONS = """\
Written before the first run on a GPU, for an H200 (copy 4.3 TB/s, IEEE float32 about 52 TFLOP/s, one small kernel in a
graph about 2 µs), to be held against the tables above.

- Operations at 600 × 12288 and 4096 × 12288: 90 to 100 % of a copy of as many bytes; `close` the lowest, 85 to 95 %, as
  one block of threads walks along each row. At 64 × 12288 70 to 110 %, at 64 × 768 about 100 %: there both are one
  small kernel, and nothing else. Plain torch: 3 to 5 times for `start` and `step`, 6 to 12 times for `close` and
  `advance`.
- Block / bare passes, float32, FC 10: 1.02 to 1.04 at 1 image (a kernel of 2 µs after passes of 80 µs), 1.03 at 64,
  1.04 at 600 and at 4096. At full bandwidth the step alone takes 12,288 × 17 bytes, 0.05 µs, after a pass of 1.3 µs per
  image: 1.04 is what memory allows, and the target of 1.03 is missed. FC 20: 1.02, 1.02, 1.03, 1.03. U-Net: 1.01 to
  1.02.
- Block / bare passes, tf32 and bfloat16, FC 10 at 4096: 1.25 and 1.5 to 1.8, since the passes get faster and the steps
  do not; bfloat16 converts v to float32 as well.
- Eager passes / block: FC about 1.8 at 1 image, about 1.0 at 64, where the products take as long as their launches;
  U-Net 1.5 to 2.5.
- Plain loop / block: 2 to 3 at 1 image, 1.2 to 1.6 (FC) or 2 (U-Net) at 64, never 5: reading 134 MB of weights takes
  31 µs of a pass, and 19 kernels as long again. At 4096: FC 10 1.19, FC 20 1.15, U-Net 1.1.
- Audit: 1,000 to 3,000 images per second in float32, 3 to 5 times as many in tf32; bfloat16 is hardly faster than tf32,
  because the host then stages and collects images no faster than some 4,000 per second. Occupancy above 0.85; the
  share in blocks above 0.95 in float32 and 0.5 to 0.8 in bfloat16.
- Accelerated solver, operations at 600 × 12288 and 4096 × 12288: `mix` 90 to 100 % of a copy, `estimate` 80 to 95 %,
  `measure` 65 to 90 %: one block of threads has a multiprocessor to itself, six sums in float64, and 600 rows are 4.5
  rounds of 132. At 64 × 12288 `measure` 40 to 80 %, since half of the multiprocessors have no row; at 64 × 768 both are
  below 70 %, as they end with sums over a row's threads. Plain torch: 8 to 15 times.
- Accelerated block / bare passes, float32: 41 + 28 bytes in each evaluation and 22 in every third are 0.22 µs per
  image of 12,288 pixels, against 0.05 of the paper's step. FC 10: 1.17 at full bandwidth, 1.18 to 1.25 at 600 and 4096;
  FC 20: 1.13, 1.14 to 1.2; U-Net 1.02 to 1.05. At 1 image 1.15 to 1.3: three small kernels, of which `weigh` takes 5 to
  10 µs for a Cholesky decomposition in one warp. In tf32 2 times for FC 10 at 4096, in bfloat16 2.5 to 3.5: there the
  ring costs more than the network.
- Accelerated audit: members 40 to 80 evaluations, controls 200 to 300, as all three γ are tried: 130 to 190 in the
  mean. 2,000 to 4,000 images per second in float32, at least as many as with the paper's solver; progressive precision
  no more than 1.3 times that, as float32 does most of the work. More members recovered accurately; no controls.
- Profile: in float32 no kernel runs for less than 3 % of the time, all of it between the kernels of a graph; at a block
  boundary less than 50 µs. In bfloat16 10 to 40 %, in few long gaps."""


def render(results: dict[str, Any]) -> str:
    """The whole report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: dict[str, Any]) -> Iterator[str]:
    yield f"# {results['where']['gpu']}"
    yield ""
    if results["rehearsal"]:
        yield "**Rehearsal: times mean nothing.**"
        yield ""
    yield "Written by `python -m benchmarks gpu`. Medians of interleaved rounds; in brackets their 20th and 80th"
    yield f"percentile. It took {results['seconds']:.0f} of {results['minutes'] * 60:.0f} seconds."
    yield ""
    yield "; ".join(f"{name}: {value}" for name, value in results["where"].items())
    checks = results["sections"].get("checks")
    if checks and not checks["passed"]:
        yield from ["", "**A check failed: what was measured after it may be no recovery.**"]
    for name, section in results["sections"].items():
        yield from ["", f"## {name.capitalize()}", ""]
        yield from _SECTIONS[name](section)
    for title, items in (("Left out", results["skipped"]), ("Errors", results["errors"])):
        if items:
            yield from ["", f"## {title}", "", *(f"- {item}" for item in items)]
    yield from ["", "## Predictions", "", PREDICTIONS]


def _table(rows: Iterable[Row], columns: Columns) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(cell(row).replace('|', '¦') for cell in columns.values())} |"


def _checks(section: Row) -> Iterator[str]:
    yield f"Recoveries of {section['images']}."
    yield ""
    columns: Columns = {
        "check": lambda row: row["check"],
        "": lambda row: "passed" if row["passed"] else "**failed**",
        "seen": lambda row: row["seen"],
    }
    yield from _table(section["rows"], columns)


def _machine(section: Row) -> Iterator[str]:
    yield from _table(section["rows"], {"what": lambda row: row["what"], "rate": lambda row: f"{row['rate']:.4g}"})


def _bandwidth(section: Row) -> Iterator[str]:
    yield "Each operation, from a graph of many calls on buffers in turn that no cache holds together, against the"
    yield "faster of two copies (the driver's, a kernel) that read and write as many bytes together. `start` to"
    yield "`advance` are the paper's solver's; `measure`, `estimate` and `mix` the accelerated one's, on a full ring of"
    yield "6 places; `estimate` is no new best, which would be 10 bytes more."
    yield ""
    columns: Columns = {
        "operation": lambda row: row["operation"],
        "bytes per pixel": lambda row: str(row["bytes per pixel"]),
        "rows × d": lambda row: f"{row['rows']} × {row['d']}",
        "µs": lambda row: _spread(row["microseconds"]["kernel"]),
        "GB/s": lambda row: f"{row['GB/s']:.0f}",
        "share of a copy": lambda row: f"{row['share of copy']['p50']:.0%}",
        "copy, driver and kernel, µs": lambda row: " ".join(
            _spread(value) for key, value in row["microseconds"].items() if key.startswith("copy")
        ),
        "plain torch": lambda row: f"{row['plain torch']['p50']:.1f} times",
    }
    yield from _table(section["rows"], columns)


def _blocks(section: Row) -> Iterator[str]:
    yield "A block is one outer iteration, captured: of the accelerated solver 3 evaluations, each extrapolated from a"
    yield "full ring, the most that there is to do, and an estimate. Bare: its forward passes alone, captured; eager:"
    yield "the same passes launched one by one; plain loop: Algorithm 1 as it is written, eager. Floors: its passes, if"
    yield "nothing but the weights were read (some may stay in the cache), or nothing but FLOPs were done. At full"
    yield "bandwidth: what block / bare would be if all between the passes read and wrote at the speed of a large copy."
    yield ""
    columns: Columns = {
        "solver": lambda row: row["solver"],
        "model": lambda row: row["model"],
        "images": lambda row: str(row["images"]),
        "format": lambda row: row["format"],
        "block, ms": lambda row: _spread(row["block ms"]),
        "floors: weights, FLOPs": lambda row: (
            f"{row['floor of the weights, ms']:.3g}, {row['floor of the FLOPs, ms']:.3g}"
        ),
        "bare, ms": lambda row: _spread(row["bare ms"]),
        "block / bare": lambda row: _spread(row["block / bare"], 4),
        "at full bandwidth": lambda row: f"{row['block / bare at full bandwidth']:.3f}",
        "eager / block": lambda row: _spread(row.get("eager / block")),
        "plain loop / block": lambda row: _spread(row.get("plain loop / block")),
    }
    yield from _table(section["rows"], columns)
    yield ""
    targets: Columns = {
        "what": lambda row: row["what"],
        "model": lambda row: row["model"],
        "images": lambda row: str(row["images"]),
        "format": lambda row: row["format"],
        "ratio": lambda row: f"{row['ratio']:.3f}",
        "target": lambda row: row["target"],
        "target met": lambda row: "yes" if row["met"] else "**no**",
    }
    yield from _table(section["targets"], targets)


def _audit(section: Row) -> Iterator[str]:
    yield f"{section['about']}. Every image comes back with other masks. Rates: accurate / approximate."
    yield ""
    columns: Columns = {
        "solver": lambda row: row["solver"],
        "precision": lambda row: row["precision"],
        "images": lambda row: str(row["images"]),
        "slots": lambda row: f"{row['slots']}, {row['execution']}",
        "images/s": lambda row: f"{row['images per second']:.0f}",
        "seconds (tail)": lambda row: f"{row['seconds']:.1f} ({row['tail, seconds']:.1f})",
        "occupancy": lambda row: f"{row['occupancy']:.1%}",
        "in blocks": lambda row: f"{row['in blocks']:.1%}",
        "first runs, captures, s": lambda row: f"{row['first runs and captures, seconds']:.1f}",
        "full block": lambda row: f"{row['rows of a full block']} rows, {_number(row['full block, ms'])} ms",
        "evaluations": lambda row: f"{row['evaluations, mean']:.0f}",
        "outer iterations": lambda row: f"{row['outer iterations, mean']:.1f}",
        "members": lambda row: f"{row['members, accurate']:.1%} / {row['members, approximate']:.1%}",
        "controls": lambda row: f"{row['controls, accurate']:.1%} / {row['controls, approximate']:.1%}",
    }
    yield from _table(section["rows"], columns)


def _profile(section: Row) -> Iterator[str]:
    for row in section["rows"]:
        yield (
            f"In {row['precision']}, over {row['seconds']:.2f} s and {row['kernels']} kernels, no kernel ran for "
            f"{row['idle']:.2%} of the time; the longest gap was {_number(row['longest gap, µs'])} µs, and "
            f"{row['gaps above 20 µs']} gaps were longer than 20 µs. At each of {row['block boundaries']} boundaries "
            f"of blocks, with the first pass of the next one, it was {_number(row['idle at a boundary, µs'])} µs "
            f"(median; at most {_number(row['longest idle at a boundary, µs'])}), {row['idle at boundaries']:.2%} of "
            f"the time in all. What took the time:"
        )
        yield ""
        columns: Columns = {
            "kernel": lambda kernel: f"`{kernel['kernel'][:90]}`",
            "share": lambda kernel: f"{kernel['share']:.1%}",
            "calls": lambda kernel: str(kernel["calls"]),
            "µs each": lambda kernel: _number(kernel["µs"]),
        }
        yield from _table(row["top"], columns)
        yield ""


_SECTIONS: dict[str, Callable[[Row], Iterator[str]]] = {
    "checks": _checks,
    "machine": _machine,
    "bandwidth": _bandwidth,
    "blocks": _blocks,
    "audit": _audit,
    "profile": _profile,
}


def _spread(values: dict[str, float] | None, digits: int = 3) -> str:
    if values is None:
        return ""
    p20, p50, p80 = (_number(values[key], digits) for key in ("p20", "p50", "p80"))
    return f"{p50} ({p20}–{p80})"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"
