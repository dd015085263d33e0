"""Table 1: approximate recovery from a fully connected net of 20 layers that knows many images."""

from __future__ import annotations

from memrecon_fast.experiments.experiment import Pictures
from memrecon_fast.experiments.recovery.larger import larger_experiment
from memrecon_fast.experiments.recovery.nets import Net

_NET = Net(
    "FC 20 × 1024, LeakyReLU",
    "fc-20",
    "leaky_relu",
    0.1,
    width=1024,
    training={"batch_size": 100, "max_steps": 3000},
)
_PUBLISHED = {"iterate": "7.64, 0.78, 1.92", "paper": "54.2, 45.2, 56.9", "known-mask": "80.6, 75.9, 84.2"}

EXPERIMENT = larger_experiment(
    1,
    _NET,
    of="a fully connected net of 20 layers",
    there="25,000 images of Tiny ImageNet",
    published=_PUBLISHED,
    pictures=(Pictures(1000, 100, 64), Pictures(25000, 600, 64)),
)
