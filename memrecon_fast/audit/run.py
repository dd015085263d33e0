"""The audit itself: every image of every split, under every mask, by every method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from memrecon_fast import metrics
from memrecon_fast.audit.gallery import GALLERY, PICTURES, Picture, make_picture, write_pictures
from memrecon_fast.audit.methods import BLIND, METHODS, Solver, prepare_method
from memrecon_fast.audit.records import MOST_PSNR, RECORDS, Cell, Record, write_records
from memrecon_fast.audit.sources import Images
from memrecon_fast.degradation import erase
from memrecon_fast.inflight import SHARE_OF_MEMORY, InFlight, slots_by_default
from memrecon_fast.precision import Autoencoder
from memrecon_fast.settings import Settings, Status, check_choice, check_integer, check_number
from memrecon_fast.solvers.samples import Finished, Sample

SPLITS = ("members", "controls")


@dataclasses.dataclass(frozen=True)
class Audit:
    """What is to be audited.

    splits: "members", the images that the model was trained on, and maybe "controls", others like them.
    masks: bool (C, H, W), True = kept, by name.
    methods: of `METHODS`.
    settings: of the recoveries; their seed is also that of the noise. With noise, the kept pixels are not put back:
        `restore_known_pixels` is then False, whatever was given.
    noise_std: standard deviation of the noise on the degraded images, at most 1.
    backend, slots: as for `recover`.

    Raises TypeError or ValueError for what does not fit together.
    """

    splits: Mapping[str, Images]
    masks: Mapping[str, Tensor]
    methods: tuple[str, ...] = METHODS
    settings: Settings = dataclasses.field(default_factory=Settings)
    noise_std: float = 0.0
    backend: str = "auto"
    slots: int | None = None

    def __post_init__(self) -> None:
        for split in self.splits:
            check_choice("split", split, SPLITS)
        if "members" not in self.splits or not self.masks or not self.methods:
            raise ValueError("an audit needs members, at least one mask and at least one method")
        for method in self.methods:
            check_choice("method", method, METHODS)
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"a method is named twice: {', '.join(self.methods)}")
        check_number("noise_std", self.noise_std, low=0)
        if self.noise_std > 1:
            raise ValueError(f"noise_std must be at most 1, as pixels lie in [0, 1], not {self.noise_std!r}")
        if self.noise_std > 0:  # here, so that what describes an audit describes what runs
            object.__setattr__(self, "settings", dataclasses.replace(self.settings, restore_known_pixels=False))
        if self.slots is not None:
            check_integer("slots", self.slots, low=1)
        for split, images in self.splits.items():
            if images.image_shape != self.image_shape:
                raise ValueError(f"the {split} are of shape {images.image_shape}, the members of {self.image_shape}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.splits["members"].image_shape

    def cells(self) -> list[Cell]:
        """In the order of the work: the methods take turns, so that the time left can be told from the time gone."""
        return [Cell(split, mask, method) for mask in self.masks for method in self.methods for split in self.splits]

    def prepare(self, autoencoder: Autoencoder) -> dict[str, Solver]:
        """The solver of each method. Raises TypeError or ValueError where the autoencoder does not do."""
        expected = _stated_shape(autoencoder)
        if expected not in (None, self.image_shape):
            raise ValueError(f"the model is for images of shape {expected}; these are {self.image_shape}")
        return {
            method: prepare_method(method, autoencoder, self.image_shape, self.settings, self.backend)
            for method in self.methods
        }


def _stated_shape(autoencoder: Autoencoder) -> tuple[int, ...] | None:
    """What the attribute `image_shape` says; None unless that is three integers: another's model may mean anything."""
    shape = getattr(autoencoder, "image_shape", None)
    if isinstance(shape, (tuple, list)) and len(shape) == 3 and all(isinstance(size, int) for size in shape):
        return tuple(shape)
    return None


def make_run_folder(run: Path) -> None:
    """Make the folder of a run. Raises ValueError where it holds anything already, OSError where it cannot be made."""
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run} is a file; a run needs a folder")
    if run.exists() and any(run.iterdir()):
        raise ValueError(f"the folder {run} is not empty; give one for this run alone")
    run.mkdir(parents=True, exist_ok=True)


def run_audit(
    audit: Audit, solvers: Mapping[str, Solver], run: Path, report: Callable[[Record], None]
) -> dict[str, str]:
    """Audit, and keep in the folder `run` the records and pictures of each cell as soon as it is done.

    solvers: from `audit.prepare`. report: called with each record. When anything ends the work early, Ctrl-C for
    instance, the records of the cell in hand are kept as well. Returns how each method was run: `InFlight.execution`,
    and the number of slots.
    """
    share = SHARE_OF_MEMORY / len(solvers)
    in_flight = {
        method: InFlight(solver, audit.slots or slots_by_default(solver, share)) for method, solver in solvers.items()
    }
    for folder in (RECORDS, GALLERY):
        (run / folder).mkdir(exist_ok=True)
    for cell in audit.cells():
        records: list[Record] = []
        pictures: list[Picture] = []
        try:
            for record, picture in _run_cell(audit, in_flight[cell.method], cell):
                records.append(record)
                pictures += [picture] if picture else []
                report(record)
        finally:
            if records:
                write_records(run / RECORDS / f"{cell.file_stem}.parquet", records)
            if pictures:
                write_pictures(run / GALLERY / f"{cell.file_stem}.npz", pictures)
    return {method: f"{one.execution}, {one.slots} slots" for method, one in in_flight.items()}


def _run_cell(audit: Audit, in_flight: InFlight, cell: Cell) -> Iterator[tuple[Record, Picture | None]]:
    images, mask = audit.splits[cell.split], audit.masks[cell.mask]
    underway: dict[int, tuple[Tensor, Tensor]] = {}  # the originals and the degraded images of those in the slots

    def samples() -> Iterator[Sample]:
        for index in range(len(images)):
            original = images[index]
            degraded = erase(original[None], mask, audit.noise_std, audit.settings.seed, first_index=index)[0]
            underway[index] = original, degraded
            yield Sample(index, degraded, mask if cell.method == "known-mask" else None)

    for one in in_flight.stream(samples()):
        original, degraded = underway.pop(one.index)
        record = _record(cell, images.names[one.index], one, original, one.mask != mask)
        picture = None
        if one.index < PICTURES:
            picture = make_picture(one.index, original, degraded, one.image, one.mask)
        yield record, picture


def _record(cell: Cell, name: str, one: Finished, original: Tensor, wrong_mask_entries: Tensor) -> Record:
    mse = metrics.mse(one.image[None], original[None]).item()
    psnr = metrics.clipped_psnr(one.image[None], original[None]).item()
    diverged = one.status == Status.DIVERGED
    return Record(
        index=one.index,
        name=name,
        split=cell.split,
        mask=cell.mask,
        method=cell.method,
        mse=mse,
        psnr=min(psnr, MOST_PSNR),
        accurate=not diverged and mse < metrics.ACCURATE_MSE,
        approximate=not diverged and mse < metrics.APPROXIMATE_MSE,
        diverged=diverged,
        status=one.status.name,
        outer_iterations=one.outer_iterations,
        evaluations=one.evaluations,
        residual=one.residual,
        wrong_mask_share=wrong_mask_entries.float().mean().item() if cell.method in BLIND else None,
    )
