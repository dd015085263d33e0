"""What a search has cost, and who is told of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable


@dataclasses.dataclass
class Effort:
    """Counts passes and Gauss–Newton steps. watch: told of each step."""

    watch: Callable[[Effort], None] | None = None
    passes: float = 0.0
    """Products of V, or of its transpose, with all inputs at once."""
    steps: int = 0
    inputs: int = 0
    """That are looked for at the moment."""
    residual: float = math.nan
    """‖r‖/‖θ‖ after the last step, of the rows that it used."""

    def step(self, inputs: int, residual: float) -> None:
        """One was taken."""
        self.steps += 1
        self.inputs, self.residual = inputs, residual
        if self.watch is not None:
            self.watch(self)
