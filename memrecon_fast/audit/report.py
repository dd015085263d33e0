"""`report.html`: one file that opens without a network, made from what a run left in its folder."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memrecon_fast.audit.charts import draw_psnr, draw_rates, draw_roc, draw_thresholds
from memrecon_fast.audit.gallery import GALLERY, Picture, read_pictures
from memrecon_fast.audit.methods import BLIND
from memrecon_fast.audit.records import Cell, Columns, read_records, replacing
from memrecon_fast.audit.thresholds import NAMES, PSNRS

REPORT = "report.html"
PICTURE_SIDE = 96
"""Least width of a picture in the gallery, in pixels of the page."""


def write_report(run: Path, summary: Mapping[str, Any]) -> Path:
    """Write the report of a run beside its summary (as `summarise` returns it); returns its path.

    Raises ValueError where records or pictures cannot be read.
    """
    cells = read_records(run)
    masks, methods, rows = summary["masks"], summary["methods"], summary["rows"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("template.html").render(
        summary=summary,
        headline=_headline(summary, cells),
        rows={(row["split"], row["mask"], row["method"]): row for row in rows},
        comparisons={(row["mask"], row["method"]): row["at"] for row in summary["comparisons"]},
        missing=sum(summary["images"].values()) * len(masks) * len(methods) - sum(row["images"] for row in rows),
        with_controls="controls" in summary["images"],
        charts={
            "rates": _svg_address(draw_rates(rows, masks, methods)),
            "psnr": _svg_address(draw_psnr(cells, methods)),
            "thresholds": _svg_address(draw_thresholds(cells, methods)),
            "roc": _svg_address(draw_roc(cells, methods)),
        },
        gallery=_gallery(run, summary, cells),
        blind=BLIND,
        threshold_names=NAMES,
        threshold_psnrs=PSNRS,
        picture_side=PICTURE_SIDE,
    )
    path = run / REPORT
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _headline(summary: Mapping[str, Any], cells: Mapping[Cell, Columns]) -> dict[str, Any]:
    """The numbers of the sentences on top: of the first blind method where there is one, else of the first method."""
    method = next((method for method in summary["methods"] if method in BLIND), summary["methods"][0])
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
            f"{split}_{measure}": _recovered_anywhere(cells, split, method, measure)
            for split in summary["images"]
            for measure in ("approximate", "accurate")
        },
    }


def _recovered_anywhere(cells: Mapping[Cell, Columns], split: str, method: str, measure: str) -> int:
    """How many images of the split came back under one mask at least."""
    parts = [
        columns["index"][columns[measure].astype(bool)]
        for cell, columns in cells.items()
        if (cell.split, cell.method) == (split, method)
    ]
    return len(np.unique(np.concatenate(parts))) if parts else 0


def _gallery(run: Path, summary: Mapping[str, Any], cells: Mapping[Cell, Columns]) -> list[dict[str, Any]]:
    """For each mask and split: the images, each with what every method made of it."""
    pictures: dict[Cell, dict[int, Picture]] = {}
    for cell in cells:
        pictures[cell] = {picture.index: picture for picture in read_pictures(run / GALLERY / f"{cell.file_stem}.npz")}
    sections = []
    for mask in summary["masks"]:
        for split in summary["images"]:
            found = {
                method: pictures[cell]
                for method in summary["methods"]
                if (cell := Cell(split, mask, method)) in pictures
            }
            indices = sorted({index for of_method in found.values() for index in of_method})
            images = [_gallery_row(index, split, mask, found, cells) for index in indices]
            if images:
                sections.append({"mask": mask, "split": split, "images": images})
    return sections


def _gallery_row(
    index: int,
    split: str,
    mask: str,
    found: Mapping[str, Mapping[int, Picture]],
    cells: Mapping[Cell, Columns],
) -> dict[str, Any]:
    shown = [pictures[index] for pictures in found.values() if index in pictures]
    results = {}  # by method; an interrupted run may lack some
    name = ""
    for method, pictures in found.items():
        if index in pictures:
            columns = cells[Cell(split, mask, method)]
            at = int(np.flatnonzero(columns["index"] == index)[0])
            name = str(columns["name"][at])
            results[method] = {
                "recovered": _png_address(pictures[index].recovered),
                "mask": _png_address(pictures[index].mask) if method in BLIND else None,
                "psnr": float(columns["psnr"][at]),
                "verdict": _verdict(columns, at),
            }
    return {
        "name": name,
        "original": _png_address(shown[0].original),
        "degraded": _png_address(shown[0].degraded),
        "results": results,
    }


def _verdict(columns: Columns, at: int) -> str:
    for verdict in ("diverged", "accurate", "approximate"):
        if columns[verdict][at]:
            return verdict
    return "not recovered"


def _png_address(pixels: NDArray[np.uint8]) -> str:
    """uint8 (C, H, W) as the address of an embedded PNG."""
    stream = io.BytesIO()
    image = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(image)).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _svg_address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
