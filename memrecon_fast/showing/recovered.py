"""A `Recovery` as it is shown: text, HTML, a table, a figure."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from memrecon_fast import metrics
from memrecon_fast.common.text import counted
from memrecon_fast.showing import html
from memrecon_fast.showing.frames import import_pandas
from memrecon_fast.showing.pixels import LARGEST_SIDE, is_picture, mask_in_words, to_address, to_pixels

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclasses.dataclass(frozen=True, eq=False)
class Recovered:
    """What is shown of B recovered images."""

    images: Tensor
    """float32 (B, *image_shape)."""
    masks: Tensor
    """bool (B, *image_shape)."""
    degraded: Tensor | None
    """float32 (at most B, *image_shape): of the first images what they were recovered from; None: unknown."""
    status: Sequence[str]
    """Of each image, the name."""
    recognized: Sequence[bool | None]
    """Of each image, whether its score is below `recognized_below`; None where that says nothing."""
    recognized_below: float
    numbers: Mapping[str, Tensor]
    """Name → (B,), on the CPU; among them "score" and "evaluations"."""
    how: str
    """What computed it, and how."""
    doubt: str
    """Why it is in doubt; "" where it is not."""
    most: int
    """So many are shown, the first ones, where nobody says which; at least 1."""

    @property
    def shape(self) -> tuple[int, ...]:
        """That of an image."""
        return tuple(self.images.shape[1:])

    @property
    def title(self) -> str:
        """What it is."""
        return f"Recovery of {counted(len(self.images), 'image')} of shape {self.shape}"

    def facts(self) -> list[tuple[str, str]]:
        """What is said of it: name and words."""
        ends = collections.Counter(self.status).most_common()
        said = [("status", ", ".join(f"{count} {name}" for name, count in ends) or "no image")]
        if self.status:
            said.append(("recognized", self._recognition()))
            spent = self.numbers["evaluations"].numpy()
            said.append(
                ("evaluations", f"{spent.sum(dtype=np.int64):,} in all, {np.median(spent):g} per image (median)")
            )
        said.append(("backend", self.how))
        return [*said, ("IN DOUBT", self.doubt)] if self.doubt else said

    def text(self) -> str:
        """In a few lines."""
        return "\n".join([self.title, *(f"  {name}: {said}" for name, said in self.facts())])

    def html(self) -> str:
        """The same, and pictures of the first images."""
        return html.block(self.title, html.facts(self.facts()), self._strip())

    def to_pandas(self, truth: Tensor | None) -> DataFrame:
        """As `Recovery.to_pandas`."""
        pandas = import_pandas()
        columns: dict[str, Any] = {"status": self.status, **self._errors(truth)}
        columns["recognized"] = pandas.array(list(self.recognized), dtype="boolean")
        columns |= {name: column.numpy() for name, column in self.numbers.items()}
        return pandas.DataFrame(columns, index=pandas.RangeIndex(len(self.images), name="image"))

    def plot(self, degraded: Tensor | None, truth: Tensor | None, which: Sequence[int] | None) -> Figure:
        """As `Recovery.plot`."""
        if not is_picture(self.shape):
            raise ValueError(f"images of shape {self.shape} are neither grey nor RGB: they cannot be shown")
        chosen = self._chosen(which)
        errors = self._errors(truth)
        if degraded is not None:
            self._check_like("degraded", degraded)
        elif self.degraded is not None and max(chosen) < len(self.degraded):
            degraded = self.degraded
        try:
            from memrecon_fast.showing.figure import draw_images
        except ImportError as error:
            raise ImportError("a figure needs matplotlib: pip install 'memrecon-fast[audit]'") from error

        rows = {"original": truth, "degraded": degraded, "recovered": self.images, "mask": self.masks}
        return draw_images(
            {name: images[chosen] for name, images in rows.items() if images is not None},
            ["\n".join(self._caption(index, errors)) for index in chosen],
            mask_in_words(self.masks[chosen]),
        )

    def _recognition(self) -> str:
        """How many are recognised, and what that means."""
        told = [one for one in self.recognized if one is not None]
        if not told:
            return "unknown; iteration gives no score that tells"
        below = metrics.name_mse(self.recognized_below)
        words = f"{sum(told)} of {len(told)} score below {below} (fixed points that explain what was given)"
        if not any(told):
            words += "; does the model reconstruct the images it was trained on, with pixels in [0, 1]?"
        without = int((~self.numbers["score"].isfinite()).sum())
        return words + (f"; {without} without a finite score" if without else "")

    def _errors(self, truth: Tensor | None) -> dict[str, Any]:
        """Columns that need the originals; none without them."""
        if truth is None:
            return {}
        self._check_like("truth", truth)
        mse = metrics.mse(self.images, truth.to(self.images.device)).cpu().numpy()
        return {
            "mse": mse,
            "psnr": metrics.psnr_of(mse),
            "accurate": mse < metrics.ACCURATE_MSE,
            "approximate": mse < metrics.APPROXIMATE_MSE,
        }

    def _check_like(self, name: str, images: Tensor) -> None:
        """Raise unless these may be the originals, or the degraded copies, of all images."""
        if not isinstance(images, Tensor):
            raise TypeError(f"{name} must be a torch tensor, not {type(images).__name__}")
        if not images.is_floating_point():
            raise TypeError(f"{name} must be float with pixels in [0, 1], not {images.dtype}")
        if images.shape != self.images.shape:
            expected = tuple(self.images.shape)
            raise ValueError(f"{name} must be of the shape of the images, {expected}, not {tuple(images.shape)}")

    def _chosen(self, which: Sequence[int] | None) -> list[int]:
        """The positions of the images to show. Raises ValueError where there is none, or not such a one."""
        count = len(self.images)
        chosen = list(range(min(count, self.most)) if which is None else which)
        if not chosen:
            raise ValueError("there is no image to show")
        for index in chosen:
            if not 0 <= index < count:
                raise ValueError(f"which must name images from 0 to {count - 1}, not {index}")
        return chosen

    def _caption(self, index: int, errors: Mapping[str, Any]) -> list[str]:
        """What stands beside the pictures of an image, in lines."""
        name = f"{index} {self.status[index]}"
        if errors:
            return [name, f"{errors['psnr'][index]:.1f} dB"]
        told = self.recognized[index] is not None
        return [name, f"score {self.numbers['score'][index]:.0e}"] if told else [name]

    def _strip(self) -> str:
        """Pictures of the first images; why there are none, where they cannot be shown."""
        if not len(self.images):
            return ""
        if not is_picture(self.shape):
            return html.paragraph("No pictures: images of this shape are neither grey nor RGB.")
        rows = {"degraded": self.degraded, "recovered": self.images, "mask": self.masks}
        shown = {name: images for name, images in rows.items() if images is not None}
        chosen = self._chosen(None)
        try:
            columns = [[to_address(to_pixels(row[index], LARGEST_SIDE)) for row in shown.values()] for index in chosen]
        except ImportError as error:  # a notebook would show a traceback in place of all the rest
            return html.paragraph(str(error))
        strip = html.strip(columns, list(shown), [self._caption(index, {}) for index in chosen])
        strip += html.paragraph(f"{mask_in_words(self.masks[chosen]).capitalize()}.")
        left = len(self.images) - len(chosen)
        return strip + (html.paragraph(f"And {left} more: .plot(which=[…]) shows those you name.") if left else "")
