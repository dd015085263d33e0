"""Help texts that commands share."""

from __future__ import annotations

DEVICE_HELP = "auto (a GPU, if there is one), cpu, cuda or cuda:N"
IMAGES_HELP = "a folder of image files, a .npy or .npz array, Parquet files, or torchvision:NAME:ROOT"
