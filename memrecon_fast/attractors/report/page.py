"""`report.html`: one file that opens without a network, made from what a survey left in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memrecon_fast.attractors.report.charts import draw_basins, draw_curve, draw_eigenvalues, draw_found, draw_residuals
from memrecon_fast.attractors.report.gallery import SHOWN, make_gallery, make_steps
from memrecon_fast.attractors.report.sentences import UNTRUSTED, headlines, in_words_of_median, remarks_of
from memrecon_fast.attractors.report.summary import BASINS, HARVEST, VERDICTS
from memrecon_fast.attractors.stability import MARGIN, NOISE
from memrecon_fast.attractors.survey.curve_table import CURVE
from memrecon_fast.attractors.survey.harvested import FOUND
from memrecon_fast.attractors.survey.results import Results
from memrecon_fast.attractors.survey.stabilities import name_of
from memrecon_fast.audit.analysis.reconstruction_error import in_words, warning_of
from memrecon_fast.audit.report.embedding import embed_svg
from memrecon_fast.audit.report.page import environment_of
from memrecon_fast.audit.store.manifest import ERRORS
from memrecon_fast.common.files import replacing

REPORT = "report.html"
PICTURE_SIDE = 96
"""Width of a picture in a gallery, in pixels of the page."""


def write_report(results: Results, summary: Mapping[str, Any]) -> Path:
    """Write the report of a survey beside its summary (of `make_summary`); returns its path."""
    errors, gallery = summary.get(ERRORS), _gallery(results, summary)
    html = (
        environment_of(Path(__file__).parent / "templates")
        .get_template("attractors.html")
        .render(
            summary=summary,
            headlines=headlines(summary),
            model_errors=in_words(errors) if errors else None,
            model_warning=warning_of(errors) if errors else None,
            remarks=remarks_of(summary),
            image_remarks=results.description["remarks"],
            charts=_charts(results, summary, bool(gallery)),
            gallery=gallery,
            steps=make_steps(results.tables[CURVE]) if CURVE in results.tables else [],
            medians=list(map(in_words_of_median, summary["basins"])),
            harvest_file=HARVEST,
            with_controls="controls" in summary["images"],
            untrusted=UNTRUSTED,
            verdicts_file=VERDICTS,
            basins_file=BASINS,
            margin=MARGIN,
            noise=NOISE,
            most_shown=SHOWN,
            picture_side=PICTURE_SIDE,
        )
    )
    path = results.path / REPORT
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _gallery(results: Results, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    if summary["harvest"] is None or summary["harvest"]["found"] is None or FOUND not in results.tables:
        return []
    return make_gallery(results.tables[FOUND], summary["harvest"]["starts"])


def _charts(results: Results, summary: Mapping[str, Any], harvested: bool) -> dict[str, str]:
    """The charts that there is something to draw for, as data addresses."""
    found: dict[str, str] = {}
    stability = {split: results.tables[name_of(split)] for split in results.splits if name_of(split) in results.tables}
    if stability:
        found["eigenvalues"] = embed_svg(draw_eigenvalues(stability))
        found["residuals"] = embed_svg(draw_residuals(stability))
    if harvested:
        attractors = [row["attractor"] for row in summary["stability"] if row["split"] == "members"]
        starts = summary["harvest"]["starts"]
        found["found"] = embed_svg(draw_found(results.tables[FOUND], starts, *(attractors or [None])))
    if summary["curve"] is not None:
        found["curve"] = embed_svg(draw_curve(summary["curve"]))
    if summary["basins"]:
        found["basins"] = embed_svg(draw_basins(summary["basins"]))
    return found
