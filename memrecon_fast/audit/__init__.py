"""Audits: which members and controls come back under which masks by which methods; runs in folders, and reports.

    import memrecon_fast as mf

    members = mf.images.open_images("photographs")                        # a folder, an array, Parquet files, …
    masks = {"half": mf.degradation.make_mask("half", members.image_shape)}
    plan = mf.audit.Audit({"members": members}, masks)
    run = mf.audit.run(plan, "model.safetensors", "RUN")                  # or an nn.Module
    run.records.to_pandas()
    mf.audit.open("RUN").summary["rows"]
    mf.audit.export("RUN", "tables-and-figures")                          # LaTeX, CSV, Markdown, SVG, PDF
    mf.audit.compare(["RUN", "RUN2"]).rows                                # of several seeds, models, losses

Needs the extra `audit`: pip install 'memrecon-fast[audit]'.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memrecon_fast.audit.exporting.one import export as export
    from memrecon_fast.audit.exporting.several import compare as compare
    from memrecon_fast.audit.exporting.side_by_side import SideBySide as SideBySide
    from memrecon_fast.audit.model import Model as Model
    from memrecon_fast.audit.model import open_model as open_model
    from memrecon_fast.audit.opened import Run as Run
    from memrecon_fast.audit.opened import open_run as open
    from memrecon_fast.audit.plan import Audit as Audit
    from memrecon_fast.audit.session import MissingImagesError as MissingImagesError
    from memrecon_fast.audit.session import run as run

_HOMES = {
    "Audit": ("plan", "Audit"),
    "MissingImagesError": ("session", "MissingImagesError"),
    "Model": ("model", "Model"),
    "Run": ("opened", "Run"),
    "SideBySide": ("exporting.side_by_side", "SideBySide"),
    "compare": ("exporting.several", "compare"),
    "export": ("exporting.one", "export"),
    "open": ("opened", "open_run"),
    "open_model": ("model", "open_model"),
    "run": ("session", "run"),
}
__all__ = [
    "Audit",
    "MissingImagesError",
    "Model",
    "Run",
    "SideBySide",
    "compare",
    "export",
    "open",
    "open_model",
    "run",
]


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used: what reads records need not load what draws charts."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
