"""The methods that an audit compares, as data.

To add one, write a function that prepares it, and a record here, or `METHODS[record.name] = record` from outside. A
method that iterates is a solver in slots; any other one is a function of a batch of images, see
`engine.batched.Batched`, and docs/examples/own_method.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol, get_args

from memrecon_fast.baselines.diffusion import Diffusion, NullSpace
from memrecon_fast.baselines.inpainting import ALGORITHM, inpaint
from memrecon_fast.common.checks import check_choice
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.batched import Batched, BatchedSamples
from memrecon_fast.engine.inflight import InFlight
from memrecon_fast.engine.samples import Finished, Sample
from memrecon_fast.recovery import prepare_iterate, prepare_recover
from memrecon_fast.settings import Settings

ITERATE_TOLERANCE = 1e-12
"""Of "iterate": stricter than the default of `iterate`, so that the baseline is not cut short of an accurate
recovery."""
ITERATE_MAX_ITERATIONS = 1000
NEEDS_DIFFUSION = (
    "the method ddnm needs a diffusion model: --diffusion FOLDER, or in Python "
    "METHODS['ddnm'] = methods.ddnm(open_diffusion(FOLDER))"
)
INPAINTED_AT_ONCE = 4
"""They are inpainted one by one, large ones in seconds each: what is done should not wait long for others."""


class Stream(Protocol):
    """What images pass through; `InFlight` is one, `Batched` another."""

    def batches(self, samples: Iterable[Sample]) -> Generator[list[Finished], None, None]:
        """The samples, each with what came of it, in any order; those before an error are not lost."""

    def check(self) -> None:
        """Raise AutoencoderChangedError where the model does not answer as it did: what was done is in doubt."""

    @property
    def how(self) -> str:
        """How it runs, in a few words."""


MaskUse = Literal["estimated", "given", "unused"]
"""Whether a method estimates the mask, is given the true one, or takes the degraded image as it is."""
Open = Callable[[int | None], Stream]
"""Makes the stream, with so many slots or as many as suit it: memory is taken only now."""


@dataclasses.dataclass(frozen=True)
class Traits:
    """What must be known of a method where its results are shown; a run records it, so that it can be read where the
    method is not known. The same as of `Method`."""

    mask: MaskUse
    """As of `Method`."""
    scored: bool
    """As of `Method`."""
    uses_model: bool
    """As of `Method`."""

    @property
    def is_blind(self) -> bool:
        """Whether the method estimates the mask."""
        return self.mask == "estimated"


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to get images back, and all that an audit asks about it.

    Raises ValueError for another `mask` than these three, and for an `identity` that is no JSON.
    """

    name: str
    """What it is called on the command line, in tables and in file names; its key in `METHODS`."""
    mask: MaskUse
    """ "estimated", "given" (the true one) or "unused" (it takes the degraded image as it is)."""
    scored: bool
    """Whether its estimates can be recognised without the original, by their score: it explains the degraded image by
    a mask and a fixed point of the autoencoder."""
    prepare: Callable[[Autoencoder, Sequence[int], Settings, str], Open]
    """prepare(autoencoder, image_shape, settings, backend), before any work; raises as `recover`."""
    uses_model: bool = True
    """Whether what comes back comes out of the autoencoder. Otherwise it counts for no image's verdict over all
    methods."""
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What its results rest on beside the settings of the audit, for JSON: a part of what a run is known by."""

    def __post_init__(self) -> None:
        check_choice("mask of a method", self.mask, get_args(MaskUse))
        try:
            json.dumps(self.identity)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the identity of the method {self.name!r} is no JSON: {error}") from error

    @property
    def traits(self) -> Traits:
        """What a run records of it."""
        return Traits(self.mask, self.scored, self.uses_model)


def traits_of(names: Sequence[str]) -> dict[str, Traits]:
    """Of each of these methods. Raises ValueError for one that is not known here."""
    return {name: find(name).traits for name in names}


def without_model(methods: Mapping[str, Traits]) -> list[str]:
    """The methods among these that count for no image's verdict over all methods: none, where all are like that."""
    without = [name for name, traits in methods.items() if not traits.uses_model]
    return without if len(without) < len(methods) else []


def find(name: str) -> Method:
    """The method of this name. Raises ValueError for one that is not known here."""
    check_choice("method", name, tuple(METHODS))
    return METHODS[name]


def headline_of(methods: Mapping[str, Traits]) -> str:
    """The method whose results come first: the first of the package that estimates the mask and is among these, or
    else the first of these that does, or that uses the model, or else the first of these."""
    blind = [name for name in (*_OF_PACKAGE, *methods) if name in methods and methods[name].is_blind]
    return next(iter((*blind, *(name for name, traits in methods.items() if traits.uses_model), *methods)))


def _recover(
    solver: str, known_masks: bool, autoencoder: Autoencoder, shape: Sequence[int], settings: Settings, backend: str
) -> Open:
    theirs = settings.with_solver(solver)
    prepared = prepare_recover(autoencoder, shape, theirs, known_masks=known_masks, backend=backend)
    return partial(InFlight, prepared)


def _iterate(autoencoder: Autoencoder, shape: Sequence[int], settings: Settings, backend: str) -> Open:
    solver = prepare_iterate(autoencoder, shape, ITERATE_MAX_ITERATIONS, ITERATE_TOLERANCE, backend=backend)
    return partial(InFlight, solver)


def _inpaint(autoencoder: Autoencoder, shape: Sequence[int], settings: Settings, backend: str) -> Open:
    scorer = prepare_iterate(autoencoder, shape, backend=backend)
    return lambda slots: Batched(inpaint, scorer, min(slots or INPAINTED_AT_ONCE, INPAINTED_AT_ONCE))


def _ddnm(
    diffusion: Diffusion | None, autoencoder: Autoencoder, shape: Sequence[int], settings: Settings, backend: str
) -> Open:
    if diffusion is None:
        raise ValueError(NEEDS_DIFFUSION)
    scorer = prepare_iterate(autoencoder, shape, backend=backend)
    null_space = NullSpace(diffusion, shape, settings.seed, scorer.prox.device)

    def opened(slots: int | None) -> BatchedSamples:
        rows = min(slots or null_space.most_rows, null_space.most_rows)
        return BatchedSamples(partial(null_space, rows=rows), scorer, rows)

    return opened


def ddnm(diffusion: Diffusion | None) -> Method:
    """Inpainting by a diffusion model, see `baselines.diffusion`; None: by one that is not named yet, so that a run
    that was made with one can be read."""
    identity = {} if diffusion is None else diffusion.identity()
    return Method("ddnm", "given", False, partial(_ddnm, diffusion), uses_model=False, identity=identity)


@contextlib.contextmanager
def registered(method: Method) -> Iterator[None]:
    """The method is that of its name in `METHODS` meanwhile."""
    before = METHODS.get(method.name)
    METHODS[method.name] = method
    try:
        yield
    finally:
        del METHODS[method.name]
        if before is not None:
            METHODS[method.name] = before


METHODS = {
    method.name: method
    for method in (
        Method("accelerated", "estimated", True, partial(_recover, "accelerated", False)),
        Method("paper", "estimated", True, partial(_recover, "paper", False)),
        Method("known-mask", "given", True, partial(_recover, "paper", True)),
        Method(
            "iterate",
            "unused",
            False,
            _iterate,
            identity={"tolerance": ITERATE_TOLERANCE, "max_iterations": ITERATE_MAX_ITERATIONS},
        ),
        Method("inpaint", "given", False, _inpaint, uses_model=False, identity=ALGORITHM),
        ddnm(None),
    )
}
_OF_PACKAGE = tuple(METHODS)
DEFAULT_METHODS = ("accelerated", "iterate")
"""Of an audit that names none. "paper" takes most of an audit's time where nothing comes back, "known-mask" is told
what an attacker does not know, "inpaint" and "ddnm" know nothing of the autoencoder: these are made on request."""
