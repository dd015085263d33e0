"""`report.html`: one file that opens without a network, made from what a reconstruction left in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memrecon_fast.audit.report.embedding import embed_svg
from memrecon_fast.audit.report.page import environment_of
from memrecon_fast.common.files import replacing
from memrecon_fast.reconstruction.compare import RECOVERED
from memrecon_fast.reconstruction.kept.results import OfTarget, Results
from memrecon_fast.reconstruction.report.charts import draw_feature_residuals, draw_law, draw_shares
from memrecon_fast.reconstruction.report.gallery import SHOWN, make_gallery
from memrecon_fast.reconstruction.report.sentences import headlines, remarks_of
from memrecon_fast.reconstruction.report.summary import INPUTS

REPORT = "report.html"
PICTURE_SIDE = 72
"""Width of a picture in a gallery, in pixels of the page."""


def write_report(results: Results, summary: Mapping[str, Any]) -> Path:
    """Write the report of a reconstruction beside its summary (of `make_summary`); returns its path."""
    done = [(one, of) for one, of in zip(results.targets, summary["targets"], strict=True) if one is not None]
    html = (
        environment_of(Path(__file__).parent / "templates")
        .get_template("reconstruction.html")
        .render(
            summary=summary,
            targets=[_section(results, one, of, summary) for one, of in done],
            headlines=headlines(summary),
            remarks=remarks_of(summary),
            law=embed_svg(draw_law(summary)) if _shows_law(summary) else None,
            inputs_file=INPUTS,
            most_shown=SHOWN,
            recovered=RECOVERED,
            picture_side=PICTURE_SIDE,
        )
    )
    path = results.run / REPORT
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _section(results: Results, one: OfTarget, of: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page says of one target."""
    names = summary["truth"]["names"] if summary["truth"] is not None else []
    truth = of["truth"]
    with_residual = truth is not None and truth["feature_residual"] is not None
    return {
        **of,
        "gallery": make_gallery(one, of, results.truth, names),
        "shares": embed_svg(draw_shares(of, summary["plan"]["settings"]["tolerance"])),
        "feature_residuals": embed_svg(draw_feature_residuals(of)) if with_residual else None,
    }


def _shows_law(summary: Mapping[str, Any]) -> bool:
    return summary["law"] is not None and any(target["done"] and target["truth"] for target in summary["targets"])
