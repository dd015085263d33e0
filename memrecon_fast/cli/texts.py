"""Help texts that commands share."""

from __future__ import annotations

MODEL_HELP = (
    "a .safetensors file of `train`; package.module:factory or file.py:factory; or a .pt2 file of torch.export, with "
    "--trust-model"
)
TRUST_HELP = "a .pt2 file is a program, which can do anything when it is opened: this says that you trust who made it"
ARGUMENTS_HELP = """for a factory: what it is called with, as JSON, for instance '{"width": 64}'"""
WEIGHTS_HELP = (
    "for a factory: its weights, .safetensors or what torch.save wrote (.pth), or the .index.json of several such "
    "files; FILE:NAME for a part of a file"
)
PIXEL_RANGE_HELP = "LOW,HIGH: what the model takes black and white as, for instance -1,1 (default: 0,1)"
MEAN_HELP = "what the model's pixels are normalised by, one number or one for each channel: 0.485,0.456,0.406"
STD_HELP = "likewise: 0.229,0.224,0.225"
CHANNELS_HELP = "rgb, or bgr where the model takes blue first"
OUTPUT_HELP = "of a model that returns more than the reconstruction: its name, or its position from 0"
DEVICE_HELP = "auto (a GPU, if there is one), cpu, cuda or cuda:N"
IMAGES_HELP = (
    "a folder of image files, a .npy or .npz array (FILE.npz:NAME), Parquet files, or torchvision:NAME:ROOT; or "
    "several, one after the other, or a pattern in quotes, such as 'data/train-*.parquet'"
)
RESIZE_HELP = (
    "HEIGHTxWIDTH or HEIGHTxWIDTH:FILTER: images of another size are resized to this one, by lanczos, the default, "
    "bicubic, bilinear, hamming, box or nearest, as they were for training: with another filter little or nothing "
    "comes back accurately; without --resize they are left out"
)
FOR_PAPER_HELP = "folder for tables and figures; files of the same names are replaced"
