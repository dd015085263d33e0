"""`report.html`: one file that opens without a network, made from what a run left in its folder."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from memrecon_fast.audit.analysis.comparisons import compare_over_masks
from memrecon_fast.audit.analysis.recognition import recognitions_of
from memrecon_fast.audit.analysis.reconstruction_error import in_words, warning_of
from memrecon_fast.audit.analysis.results import Results
from memrecon_fast.audit.analysis.sheet import MAX_SHOWN
from memrecon_fast.audit.report.charts import draw_rates, draw_roc, draw_thresholds
from memrecon_fast.audit.report.contact_sheet import make_sheet
from memrecon_fast.audit.report.embedding import embed_svg
from memrecon_fast.audit.report.histograms import MAX_LINEAR, draw_iterations, draw_psnr, draw_scores
from memrecon_fast.audit.report.remarks import given_out_of, remarks_of
from memrecon_fast.audit.report.showcase import make_given_out, make_showcase
from memrecon_fast.audit.report.verdicts import VERDICTS_FILE, all_verdicts
from memrecon_fast.audit.store.manifest import ERRORS
from memrecon_fast.common.files import replacing
from memrecon_fast.common.text import escaped
from memrecon_fast.methods import without_model
from memrecon_fast.metrics import THRESHOLD_NAMES, THRESHOLD_PSNRS, name_mse
from memrecon_fast.results import RECOGNIZED_BELOW

REPORT = "report.html"
PICTURE_SIDE = 96
"""Width of a picture in the gallery, in pixels of the page."""
_TEMPLATES = Path(__file__).parent / "templates"
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NAMES: dict[str, dict[str, Any]] = {
    "splits": {"members": "members", "controls": "controls"},
    "inputs": {"original": ("original", "original of"), "degraded": ("degraded", "degraded copy of")},
}
"""The names of splits, and heading and description of the pictures in the gallery that are no results."""
_DEGRADED_NAMES: dict[str, dict[str, Any]] = {
    "splits": {"members": "images", "controls": "controls"},
    "inputs": {"degraded": ("given", "given image")},
}
"""The same where the originals are unknown."""


def write_report(results: Results, summary: Mapping[str, Any]) -> Path:
    """Write the report of a run beside its summary (of `make_summary`); returns its path.

    Raises ValueError where pictures cannot be read.
    """
    environment = environment_of()
    rows, masks, methods = _counted(summary), summary["masks"], summary["methods"]
    recognitions = recognitions_of(results)
    known = {} if results.degraded else _against_originals(results, summary)
    charts = {} if results.degraded else _charts_of_errors(results, summary)
    errors = summary.get(ERRORS)
    names = _DEGRADED_NAMES if results.degraded else _NAMES
    sheet, gallery = make_sheet(results), make_showcase(results)
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    html = environment.get_template("degraded.html" if results.degraded else "known.html").render(
        summary=summary,
        headline=_headline(results, summary),
        model_errors=in_words(errors) if errors else None,
        model_warning=warning_of(errors) if errors else None,
        rows={(row["split"], row["mask"], row["method"]): row for row in rows},
        rows_over_masks={(row["split"], row["method"]): row for row in summary["rows_over_masks"]},
        recognition={(row["mask"], row["method"]): row for row in summary["recognition"]},
        recoveries=sum(summary["images"].values()) * len(masks) * len(methods),
        with_controls="controls" in summary["images"],
        charts=charts
        | {
            "scores": embed_svg(draw_scores(results, recognitions)) if recognitions else None,
            "iterations": embed_svg(draw_iterations(results.cells, methods, names["splits"]["members"])),
        },
        names=names,
        given_out_words=given_out_of(summary),
        given_out=make_given_out(results),
        remarks=remarks_of(summary),
        image_remarks=results.description.get("remarks", {}),  # earlier versions had none
        gallery=gallery,
        sheet=sheet,
        most_on_sheet=MAX_SHOWN,
        verdicts_on_sheet=_in_order(results, (one["standing"].verdict for one in sheet["in_sight"] + sheet["others"])),
        verdicts_in_gallery=_in_order(results, _verdicts_of(gallery)),
        in_words=_in_words,
        contents=[],
        script=Markup(script),
        script_hash=Markup(f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"),
        blind=[method for method, traits in results.traits.items() if traits.is_blind],
        all_verdicts=all_verdicts(results),
        without_model=without_model(results.traits),
        recognized_below=RECOGNIZED_BELOW,
        name_mse=name_mse,
        most_linear=MAX_LINEAR,
        verdicts_file=VERDICTS_FILE,
        threshold_names=THRESHOLD_NAMES,
        threshold_psnrs=THRESHOLD_PSNRS,
        picture_side=PICTURE_SIDE,
        **known,
    )
    path = results.folder.path / REPORT
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def environment_of(*folders: Path) -> jinja2.Environment:
    """What renders the templates of these folders, and those that reports share."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _against_originals(results: Results, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What only the template for known originals needs."""
    compared = summary["comparisons"] + summary["comparisons_over_masks"]
    controls = [row["controls"] for row in compared]
    told = {at["false_positive_rate"] for row in compared for at in row["at"] if at["told"]}
    return {
        "told": sorted(told - {0.0}),
        "fewest_controls": min(controls, default=0),
        "most_controls": max(controls, default=0),
        "unaided": {(row["split"], row["mask"]): row for row in summary.get("without_model", [])},
        "comparisons": {(row["mask"], row["method"]): row["at"] for row in summary["comparisons"]},
        "comparisons_over_masks": {row["method"]: row["at"] for row in summary["comparisons_over_masks"]},
    }


def _charts_of_errors(results: Results, summary: Mapping[str, Any]) -> dict[str, str | None]:
    methods = summary["methods"]
    comparisons = compare_over_masks(results)
    return {
        "rates": embed_svg(draw_rates(_counted(summary), summary["masks"], methods)),
        "psnr": embed_svg(draw_psnr(results.cells, methods)),
        "thresholds": embed_svg(draw_thresholds(results.cells, methods)),
        "roc": embed_svg(draw_roc(comparisons, methods)) if comparisons else None,
    }


def _shown(value: Any) -> Any:
    """What the page shows of a value: names come from other people's files."""
    return escaped(value) if type(value) is str else value  # what a macro gives is Markup


def _in_words(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def _verdicts_of(gallery: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    images = (image for part in gallery for group in part["groups"] for image in group["images"])
    return (outcome["verdict"] for image in images for outcome in image["outcomes"].values() if outcome)


def _in_order(results: Results, verdicts: Iterable[str]) -> list[str]:
    """Those that there are, the best first."""
    found = set(verdicts)
    return [verdict for verdict in all_verdicts(results) if verdict in found]


def _counted(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that have images that count."""
    return [row for row in summary["rows"] if row["images"]]


def _headline(results: Results, summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers in the sentences at the top."""
    method = summary["headline"]
    rates = {
        row["mask"]: row["recognized_rate" if summary["degraded"] else "approximate_rate"]
        for row in _counted(summary)
        if (row["split"], row["method"]) == ("members", method)
    }
    return {
        "method": method,
        "blind": results.traits[method].is_blind,
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
