"""`report.html`: one file that opens without a network, made from what a run left in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from memrecon_fast.audit.methods import BLIND
from memrecon_fast.audit.report.charts import draw_rates, draw_roc, draw_thresholds
from memrecon_fast.audit.report.comparisons import compare_over_masks
from memrecon_fast.audit.report.embedding import embed_svg
from memrecon_fast.audit.report.histograms import MOST_LINEAR, draw_iterations, draw_psnr
from memrecon_fast.audit.report.results import Results
from memrecon_fast.audit.report.showcase import make_showcase
from memrecon_fast.audit.report.thresholds import NAMES, PSNRS
from memrecon_fast.audit.report.verdicts import ALL_VERDICTS, VERDICTS_FILE
from memrecon_fast.replacing import replacing

REPORT = "report.html"
PICTURE_SIDE = 96
"""Width of a picture in the gallery, in pixels of the page."""


def write_report(results: Results, summary: Mapping[str, Any]) -> Path:
    """Write the report of a run beside its summary (as `summarise` returns it); returns its path.

    Raises ValueError where pictures cannot be read.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows, masks, methods = summary["rows"], summary["masks"], summary["methods"]
    comparisons = compare_over_masks(results)
    html = environment.get_template("template.html").render(
        summary=summary,
        headline=_headline(summary),
        rows={(row["split"], row["mask"], row["method"]): row for row in rows},
        rows_over_masks={(row["split"], row["method"]): row for row in summary["rows_over_masks"]},
        comparisons={(row["mask"], row["method"]): row["at"] for row in summary["comparisons"]},
        comparisons_over_masks={row["method"]: row["at"] for row in summary["comparisons_over_masks"]},
        recoveries=sum(summary["images"].values()) * len(masks) * len(methods),
        with_controls="controls" in summary["images"],
        charts={
            "rates": embed_svg(draw_rates(rows, masks, methods)),
            "psnr": embed_svg(draw_psnr(results.cells, methods)),
            "thresholds": embed_svg(draw_thresholds(results.cells, methods)),
            "iterations": embed_svg(draw_iterations(results.cells, methods)),
            "roc": embed_svg(draw_roc(comparisons, methods)) if comparisons else None,
        },
        gallery=make_showcase(results),
        blind=BLIND,
        all_verdicts=ALL_VERDICTS,
        most_linear=MOST_LINEAR,
        verdicts_file=VERDICTS_FILE,
        threshold_names=NAMES,
        threshold_psnrs=PSNRS,
        picture_side=PICTURE_SIDE,
    )
    path = results.folder.path / REPORT
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the sentences on top."""
    method = summary["headline"]
    rates = {
        row["mask"]: row["approximate_rate"]
        for row in summary["rows"]
        if (row["split"], row["method"]) == ("members", method)
    }
    return {
        "method": method,
        "blind": method in BLIND,
        "easiest": [mask for mask, rate in rates.items() if rate == max(rates.values())],
        "hardest": [mask for mask, rate in rates.items() if rate == min(rates.values())],
        "rates": rates,
        **{
            split: next(
                (row for row in summary["rows_over_masks"] if (row["split"], row["method"]) == (split, method)), None
            )
            for split in ("members", "controls")
        },
    }
