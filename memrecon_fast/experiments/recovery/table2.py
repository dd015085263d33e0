"""Table 2: approximate recovery from a U-Net that knows many images."""

from __future__ import annotations

from memrecon_fast.experiments.experiment import Pictures
from memrecon_fast.experiments.recovery.larger import larger_experiment
from memrecon_fast.experiments.recovery.nets import Net

_NET = Net(
    "U-Net, Softplus",
    "unet",
    "softplus",
    1.0,
    zeros=True,
    max_outer_iterations=20,
    training={"max_steps": 1000},
)
_PUBLISHED = {"iterate": "0.6, 10.2, 1.2", "paper": "50.3, 75.9, 22.9", "known-mask": "59.3, 86.2, 28.8"}

EXPERIMENT = larger_experiment(
    2,
    _NET,
    of="a U-Net",
    there="1,000 images of CIFAR-10",
    published=_PUBLISHED,
    pictures=(Pictures(200, 100, 32), Pictures(1000, 600, 32)),
)
