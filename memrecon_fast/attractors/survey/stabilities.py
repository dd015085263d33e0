"""Tables of verdicts on images: are they attractors, and what that rests on."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from memrecon_fast.attractors.jacobian import Jacobian
from memrecon_fast.attractors.stability import Stability, Verdict, stability_of
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.attractors.survey.table import INDEX, Table, read_images
from memrecon_fast.images.scan import Images

_FLOATS = pa.list_(pa.float32())
VERDICT_FIELDS = [
    pa.field("verdict", pa.string(), nullable=False),  # the name of a `Verdict`
    pa.field("residual_mse", pa.float32(), nullable=False),  # ‖f(x) − x‖²/d of the image
    pa.field("distance_mse", pa.float32(), nullable=False),  # ‖x* − x‖²/d of what came closest to a fixed point near it
    pa.field("fixed_point_mse", pa.float32(), nullable=False),  # ‖f(x*) − x*‖²/d
    pa.field("radius", pa.float32(), nullable=False),  # ρ, at x* if it is a fixed point near x, else at x; NaN: unknown
    pa.field("real", _FLOATS, nullable=False),  # of the k eigenvalues of largest modulus there; NaN: there are no more
    pa.field("imaginary", _FLOATS, nullable=False),
    pa.field("eigenvalue_residuals", _FLOATS, nullable=False),  # ‖J y − λ y‖ of each
    pa.field("found", pa.int32(), nullable=False),  # so many of them, the first, have one below the tolerance
    pa.field("returned_mse", pa.float32(), nullable=False),  # from x*, where iteration came to from noise about it
    pa.field("products", pa.int32(), nullable=False),  # with the Jacobian, for the eigenvalues
    pa.field("evaluations", pa.int32(), nullable=False),  # applications and products, for the fixed point
]
SCHEMA = pa.schema(
    [
        pa.field(INDEX, pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        *VERDICT_FIELDS,
    ]
)


def name_of(split: str) -> str:
    """The name of the table of these images."""
    return f"stability-{split}"


def stability_table(survey: Survey, split: str, size: int) -> Table:
    """The verdicts on the images of a split."""
    images = survey.splits[split]
    rows = functools.partial(_rows, images, survey.k, survey.tolerance, survey.seed, survey.slots)
    return Table(name_of(split), SCHEMA, tuple(images.usable()), size, rows)


def verdict_columns(found: Stability) -> dict[str, Any]:
    """The columns `VERDICT_FIELDS`."""
    spectra, fixed = found.spectra, found.fixed_points
    return {
        "verdict": [Verdict(verdict).name for verdict in found.verdict.tolist()],
        "residual_mse": found.residual_mse.numpy(),
        "distance_mse": fixed.distance_mse.numpy(),
        "fixed_point_mse": fixed.residual_mse.numpy(),
        "radius": spectra.radius.numpy(),
        "real": list(spectra.values.real.numpy()),
        "imaginary": list(spectra.values.imag.numpy()),
        "eigenvalue_residuals": list(spectra.residuals.numpy()),
        "found": spectra.found.numpy(),
        "returned_mse": found.returned_mse.numpy(),
        "products": spectra.products.numpy(),
        "evaluations": fixed.iterations.numpy(),
    }


def _rows(
    images: Images, k: int, tolerance: float, seed: int, slots: int | None, jacobian: Jacobian, indices: Sequence[int]
) -> Mapping[str, Any]:
    pixels = read_images(images, indices)
    found = stability_of(jacobian, pixels, list(indices), k, tolerance, seed=seed, rows=slots)
    names = {"name": [images.names[i] for i in indices], "sha256": [images.sha256[i] for i in indices]}
    return names | verdict_columns(found)
