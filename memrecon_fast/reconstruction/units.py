"""Inputs from a first layer with ReLU that was trained: a unit learns nothing of an input that leaves it inactive.

    W − W_init = D X,   D_ki = 0 where x_i left unit k inactive in every step.

So of all combinations U r of the left singular vectors of the change, the columns of D are those with many zeros, and
where they are is a half-space of the units' weights, which tells the input. From a start, a unit's own change:

    r: the combination that vanishes on those units that x leaves most inactive, before and after training
    x: the input that best tells the units that learn from those that do not, by logistic regression

again and again. With all n columns, X = D⁺(W − W_init). It is exact however far the net moved, for any loss, head and
layers in between; and an input that is found is certain: n − 1 zeros can be had by chance, but not hundreds, nor just
where the input leaves units inactive.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from memrecon_fast.reconstruction.domain import FirstLayer, Span

_STEPS, _NEWTON_STEPS = 10, 12
_SHARPER = (0.1, 0.03, 0.01, 0.003, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6, 1e-7, 1e-8)
"""Of the largest: units that learn more count little, in one least squares after the other, down to what is 0."""
_BLUNT = 5
"""So many of them in half of the starts, which then find more where units are few. The others find what the first do
not in wide nets, whose weights hardly move: there, differences of two columns are nearly 0 in many units, too."""
_STARTS_PER_INPUT = 24
_MOST_INACTIVE = 0.5
"""Of the inactive units, the share that is taken to learn nothing: those near 0 may have been active for a while."""
_LEARNS = 0.2
"""Of the root mean square over units: what more than this is learned counts, as long as zeros are not exact."""
_WIDTH = 0.3
"""Of the spread of preactivations: how sharp the logistic regression is."""
_RIDGE = 1e-12
_NEARLY = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 0.0)
"""Of the largest: what is less is taken for 0."""
_ROUNDS = 4
_PATIENCE = 10
"""Failures in a row, after which half of the columns are forgotten."""
_NOISE = 8.0
"""Times the noise that rounding makes: what is less is 0."""
_ZEROS, _ZEROS_OF_INACTIVE = 2.0, 1.2
"""Times n: so many zeros a column has, and so many of them where its input leaves units most inactive."""
_LEAST_AGREEMENT, _LEAST_OF_ALL, _LEAST_LEARNED = 0.92, 0.75, 0.9
"""See `_agree`."""
_RATES = tuple(2.0 ** (step / 8) for step in range(-32, 33) if step)
_LEAST_EVIDENCE = 3.5
"""Standard deviations; see `Units.bias_rate`."""
_LEAST_APART = 5
"""Units; see `_are_apart`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """The change of a first layer in the coordinates y of its leading singular vectors: (x, 1) = Vᵀ S y, or x."""

    learned: Tensor
    """U (units, n), of those units that learned anything."""
    before: Tensor
    """Weights and biases, to be multiplied by y (units, n)."""
    after: Tensor
    values: Tensor
    """The singular values S (n,)."""
    vectors: Tensor
    """V (d or d + 1, n)."""
    noise: float
    """Standard deviation of an entry of the change, from rounding."""
    biases: Tensor | None
    """Before and after (2, units), where there are any."""

    @classmethod
    def of(cls, layer: FirstLayer, span: Span) -> Units:
        """Of a layer of which something is known."""
        change, vectors = layer.change, span.vectors
        weighted = change @ vectors
        values = weighted.norm(dim=0)
        rest = float((change - weighted @ vectors.T).norm()) / math.sqrt(change.numel())
        before, after, biases = layer.initial_weight, layer.weight, None
        alive = weighted.norm(dim=1) > _NOISE * rest * math.sqrt(span.count)
        if layer.bias is not None and layer.initial_bias is not None:
            before = torch.cat([before, layer.initial_bias[:, None]], dim=1)
            after = torch.cat([after, layer.bias[:, None]], dim=1)
            biases = torch.stack([layer.initial_bias, layer.bias])[:, alive]
        onto = vectors * values
        learned = (weighted / values)[alive]
        return cls(learned, before[alive] @ onto, after[alive] @ onto, values, vectors, rest, biases)

    @property
    def has_bias(self) -> bool:
        """Whether y·last is 1 of every input."""
        return self.biases is not None

    @property
    def count(self) -> int:
        """n."""
        return self.learned.shape[1]

    @functools.cached_property
    def last(self) -> Tensor:
        """y·last is 1, where there are biases (n,)."""
        return self.vectors[-1] * self.values

    def inputs(self, y: Tensor) -> Tensor:
        """x (n, d) of coordinates (n, n); without biases of length √d."""
        found = y @ (self.vectors * self.values).T
        if self.has_bias:
            return found[:, :-1] / found[:, -1:]
        return math.sqrt(found.shape[1]) * nn.functional.normalize(found, dim=1)

    def activity(self, y: Tensor) -> Tensor:
        """The greater of the preactivations before and after training, over units, of y (n,) or (m, n)."""
        return torch.maximum(y @ self.before.T, y @ self.after.T)

    def bias_rate(self, columns: list[Tensor], y: Tensor) -> float:
        """At what rate biases were trained, over that of weights, beyond what was said: 1, unless another is evident.

        Were it c, all inputs would be c times as long as they seem, and unit k active where c·(w·x + b) + (1 − c)·b is
        above 0. Of the units for which that makes a difference, those that learned of the input say which is right.
        1.5 was evident with 8 inputs and 300 units, 1.1 was not.
        """
        if self.biases is None:
            return 1.0
        learned = self.learns(columns)
        before, after = (
            (y @ weights.T, bias) for weights, bias in zip((self.before, self.after), self.biases, strict=True)
        )

        def active(rate: float) -> Tensor:
            found: Tensor = torch.maximum(*(rate * one + (1 - rate) * bias for one, bias in (before, after))) > 0
            return found

        best, most, as_said = 1.0, _LEAST_EVIDENCE, active(1.0)
        for rate in _RATES:
            differs = active(rate) != as_said
            against, count = int((differs & (as_said == learned)).sum()), int(differs.sum())
            evidence = (count - 2 * against) / math.sqrt(max(count, 1))
            if evidence > most:
                best, most = rate, evidence
        return best

    def zero(self, r: Tensor) -> float:
        """What less than it of U r is 0."""
        return _NOISE * self.noise * float((r / self.values).norm()) + 1e-13

    def zeros(self, r: Tensor) -> int:
        """How many units learned nothing."""
        return int((~self.learns([r])).sum())

    def learns(self, columns: list[Tensor]) -> Tensor:
        """Which units learned of each of m inputs, bool (m, units)."""
        return torch.stack([(self.learned @ r).abs() > self.zero(r) for r in columns])


def inputs_by_units(units: Units, generator: Generator) -> Tensor | None:
    """The n inputs (n, d), each of them certain; None where not all are found.

    Raises ValueError where biases were trained at another rate than weights.
    """
    if units.count == 1:
        only = _only_one(units)
        _check_rate(units.bias_rate([torch.ones(1, dtype=torch.float64)], only))
        return units.inputs(only)
    columns: list[Tensor] = []
    failures = 0
    for _ in range(_STARTS_PER_INPUT * units.count):
        found = _column(units, columns, generator)
        if found is None or any(_same(found, one) for one in columns):
            failures += 1
        else:
            columns.append(found)
            failures = 0
        if len(columns) == units.count:
            y = _consistent(units, columns)
            if y is not None:
                _check_rate(units.bias_rate(columns, y))
                return units.inputs(y)
        if failures == _PATIENCE or len(columns) == units.count:  # one is wrong, now and then a sum of two
            kept = torch.randperm(len(columns), generator=generator)[: len(columns) // 2]
            columns, failures = [columns[one] for one in kept], 0
    return None


def _only_one(units: Units) -> Tensor:
    """y (1, 1) of the only input: without biases of that sign which leaves more of the units active that learned."""
    if units.has_bias:
        return 1 / units.last[:, None]
    y = torch.ones(1, 1, dtype=torch.float64)
    return y if int((units.activity(y) > 0).sum()) >= int((units.activity(-y) > 0).sum()) else -y


def _check_rate(rate: float) -> None:
    if rate != 1:
        raise ValueError(
            f"the biases of the first layer seem to have been trained at about {rate:.1f} times the rate of its "
            "weights: inputs would come out of wrong lengths. Say by how many times: bias_rate=, or --bias-rate"
        )


def _consistent(units: Units, columns: list[Tensor]) -> Tensor | None:
    """All y (n, n), where every column is right, each made again from its own input as long as that gives more zeros:
    of a sum of two columns it does, as the input that belongs to it makes it one of the two."""
    for _ in range(_ROUNDS):
        y = _dual(units, columns)
        if y is None:
            return None
        again = [_sharpened(units, _vanishing(units, one, one[:, None], _SHARPER)) for one in y]
        sparser = [max(pair, key=units.zeros) for pair in zip(columns, again, strict=True)]
        if all(_same(one, other, 1e-6) for one, other in zip(columns, sparser, strict=True)):
            return y if _are_apart(units, columns) and _agree(units, columns, y) else None
        columns = sparser
    return None


def _same(one: Tensor, other: Tensor, but: float = 1e-3) -> bool:
    return float((one @ other).abs()) > 1 - but


def _column(units: Units, columns: list[Tensor], generator: Generator) -> Tensor | None:
    """One more r (n,) of length 1, from a random start; those that are known have r·y = 0 for all other inputs."""
    free = _beside(columns, units.count)
    if units.has_bias and float((free.T @ units.last).norm()) < 1e-9 * float(units.last.norm()):
        return None
    offset, directions = _affine(units, free)
    y = _start(units, free, generator)
    when, before = float(torch.rand((), generator=generator)), None
    sharper = _SHARPER if float(torch.rand((), generator=generator)) < 0.5 else _SHARPER[:_BLUNT]
    for _ in range(_STEPS):
        r = _sharpened(units, _vanishing(units, y, free, sharper))
        values = (units.learned @ r).abs()
        if units.zeros(r) > _ZEROS * units.count:
            return r
        if before is not None and _same(r, before, 1e-12):
            return None
        before = r
        learns = values > _LEARNS * values.square().mean().sqrt()
        y = _separating(units, learns, offset, directions, when)
    return None


def _beside(columns: list[Tensor], count: int) -> Tensor:
    """An orthonormal basis (n, n − m) of what is orthogonal to m columns."""
    if not columns:
        return torch.eye(count, dtype=torch.float64)
    full: Tensor = torch.linalg.qr(torch.stack(columns, dim=1), mode="complete")[0]
    return full[:, len(columns) :]


def _affine(units: Units, free: Tensor) -> tuple[Tensor, Tensor]:
    """y = offset + directions·z are the inputs among the free ones: with biases, those of y·last = 1."""
    if not units.has_bias:
        return free.new_zeros(units.count), free
    last = free.T @ units.last
    inside, _ = torch.linalg.qr(last[:, None], mode="complete")
    learned = units.learned @ free
    bias = learned @ last
    return free @ (bias @ learned / bias.square().sum()), free @ inside[:, 1:]


def _start(units: Units, free: Tensor, generator: Generator) -> Tensor:
    """A unit's own change: with biases a mean of inputs, with weights of any sign."""
    learned = units.learned @ free
    weights = (learned @ (free.T @ units.last)).abs() if units.has_bias else learned.norm(dim=1)
    order = weights.argsort(descending=True)
    chosen = order[int(torch.randint(max(len(order) // 2, 1), (), generator=generator))]
    y = free @ learned[chosen]
    if units.has_bias:
        return y / (y @ units.last)
    return y if torch.rand((), generator=generator) < 0.5 else -y


def _vanishing(units: Units, y: Tensor, free: Tensor, sharper: Sequence[float]) -> Tensor:
    """r (n,) of length 1: U r is 0, but for a few, on those units that y leaves most inactive.

    Of all r with a part of length 1 among the free directions (n, n − m); columns that are known have none.
    """
    activity = units.activity(y)
    count = max(int(_MOST_INACTIVE * int((activity < 0).sum())), math.ceil(1.5 * units.count))
    rows = units.learned[activity.argsort()[:count]]
    weights = rows.new_ones(len(rows))
    r = y
    for share in sharper:
        gram = (rows * weights[:, None]).T @ rows
        gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:  # all of these rows are 0
            break
        solved = torch.cholesky_solve(free, factor)
        r = nn.functional.normalize(solved @ torch.linalg.eigh(free.T @ solved)[1][:, -1], dim=0)
        largest, zero = float((units.learned @ r).abs().max()), units.zero(r)
        if share * largest < 0.1 * zero:
            break
        floor = max(share * largest, zero)
        weights = floor**2 / ((rows @ r).square() + floor**2)
    return r


def _separating(units: Units, learns: Tensor, offset: Tensor, directions: Tensor, when: float) -> Tensor:
    """y = offset + directions·z that best tells the units that learn from the others: Newton's method. when: at what
    time, 0 before training, 1 after; some inputs are learned early, others late."""
    if not directions.shape[1]:
        return offset
    mean = torch.lerp(units.before, units.after, when)
    signs = torch.where(learns, 1.0, -1.0).double()
    spread = _WIDTH * ((mean @ offset).std() if units.has_bias else mean.norm() / math.sqrt(len(mean)))
    slopes, values = signs[:, None] * (mean @ directions) / spread, signs * (mean @ offset) / spread
    ridge = 1e-6 * slopes.square().mean() * len(slopes)
    z = offset.new_zeros(directions.shape[1])

    def loss(z: Tensor) -> Tensor:
        return nn.functional.softplus(-(slopes @ z + values)).sum() + 0.5 * ridge * z.square().sum()

    for _ in range(_NEWTON_STEPS):
        wrong = torch.sigmoid(-(slopes @ z + values))
        hessian = (slopes * (wrong * (1 - wrong))[:, None]).T @ slopes
        hessian.diagonal().add_(ridge)
        step, length = torch.linalg.solve(hessian, slopes.T @ wrong - ridge * z), 1.0
        while length > 1e-3 and loss(z + length * step) > loss(z):
            length /= 2
        z = z + length * step
    return offset + directions @ z


def _sharpened(units: Units, r: Tensor) -> Tensor:
    """r (n,) again, from where it is nearly 0: least squares in coordinates in which rounding is the same in all
    directions."""
    for share in _NEARLY:
        values, zero = (units.learned @ r).abs(), units.zero(r)
        nearly = share * float(values.max())
        rows = units.learned[values <= max(nearly, zero)] * units.values
        if len(rows) < units.count:
            break
        r = nn.functional.normalize(units.values * torch.linalg.svd(rows, full_matrices=False)[2][-1], dim=0)
        if nearly < zero:
            break
    return r


def _dual(units: Units, columns: list[Tensor]) -> Tensor | None:
    """y (n, n) of all the inputs: R⁻¹, each with its sign, or with its 1."""
    every = torch.stack(columns, dim=1)
    inverse, failed = torch.linalg.inv_ex(every)
    y: Tensor = inverse
    if failed or not y.isfinite().all():
        return None
    if units.has_bias:
        return y / (y @ units.last)[:, None]
    learns = units.learns(columns)
    agree = [((units.activity(sign * y) > 0) == learns).double().mean(dim=1) for sign in (1, -1)]
    return torch.where(agree[0] > agree[1], 1.0, -1.0)[:, None] * y


def _are_apart(units: Units, columns: list[Tensor]) -> bool:
    """Whether each input leaves some units inactive that learn of another, for any other: else the zeros do not tell
    its column from what is added to it of the other's.

    Of nets of 60 to 400 units that were trained on 5 to 30 digits or photographs, 3 were wrong by 6 to 35 % of an
    input, although their zeros agreed: there were no such units, or one. With the 83 that were right there were 3 or
    more, in all but two of them 5 or more.
    """
    learns = units.learns(columns).double()
    apart = (1 - learns) @ learns.T
    apart.fill_diagonal_(torch.inf)
    return bool((apart >= _LEAST_APART).all())


def _agree(units: Units, columns: list[Tensor], y: Tensor) -> bool:
    """Whether all columns are 0 where their input leaves the units inactive, above all where most, and nowhere else.

    Those of true inputs are at 95 % of the most inactive units and more; sums of two columns, or what is left of the
    others' inputs then, were at 85 % at most (measured on digits of MNIST, which are like each other). After a step or
    two of training there are other combinations with as many zeros, but where inputs leave the units active, too: at
    83 % of those at most something was learned. True inputs of which so little was learned are left out with them.
    """
    for nothing, one in zip(~units.learns(columns), y, strict=True):
        activity = units.activity(one)
        order, inactive = activity.argsort(), int((activity < 0).sum())
        zeros = nothing[order[: math.ceil(_MOST_INACTIVE * inactive)]].double()
        of_all, learned = nothing[order[:inactive]].double(), (~nothing[order[inactive:]]).double()
        if (
            float(zeros.sum()) < _ZEROS_OF_INACTIVE * units.count
            or float(zeros.mean()) < _LEAST_AGREEMENT
            or float(of_all.mean()) < _LEAST_OF_ALL
            or not float(learned.mean()) >= _LEAST_LEARNED
        ):
            return False
    return True
