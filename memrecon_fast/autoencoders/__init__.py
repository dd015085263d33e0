"""Autoencoders that memorise: architectures, training to a target loss, files; proximity operators."""

from memrecon_fast.autoencoders.adapting import Adaptation, adapt
from memrecon_fast.autoencoders.architecture import Architecture
from memrecon_fast.autoencoders.architectures import ARCHITECTURES
from memrecon_fast.autoencoders.files import load, save
from memrecon_fast.autoencoders.fully_connected import FullyConnected
from memrecon_fast.autoencoders.presets import PRESETS, build
from memrecon_fast.autoencoders.proximal import Proximality, is_proximal
from memrecon_fast.autoencoders.tied import Tied
from memrecon_fast.autoencoders.training import TrainingResult, evaluate, train
from memrecon_fast.autoencoders.unet import UNet

__all__ = [
    "ARCHITECTURES",
    "PRESETS",
    "Adaptation",
    "Architecture",
    "FullyConnected",
    "Proximality",
    "Tied",
    "TrainingResult",
    "UNet",
    "adapt",
    "build",
    "evaluate",
    "is_proximal",
    "load",
    "save",
    "train",
]
