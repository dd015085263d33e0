"""Files that may hold images in a form that is not read: what to do with each, in a line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_SAVE = "as a .npy file, (N, H, W, C), uint8 or floats in [0, 1]"
_KINDS = {
    r"-ubyte(\.gz)?": "a file of MNIST or its like; torchvision:MNIST:ROOT reads it where it is in ROOT/MNIST/raw",
    r"data_batch_\d": "a pickled part of CIFAR-10; torchvision:CIFAR10:ROOT reads it in ROOT/cifar-10-batches-py",
    r"\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz|zst|7z|rar)": "an archive; unpack it, and name the folder that comes of it",
    r"\.arrow": (
        "an Arrow file; write it as Parquet, which is read: "
        "datasets.load_from_disk(FOLDER).to_parquet('images.parquet'), "
        "or of this file alone datasets.Dataset.from_file(FILE).to_parquet('images.parquet')"
    ),
    r"\.(feather|ft)": (
        "a Feather file; write it as Parquet, which is read: "
        "pyarrow.parquet.write_table(pyarrow.feather.read_table(FILE), 'images.parquet')"
    ),
    r"\.tfrecords?(-\d+-of-\d+)?": f"a file of TensorFlow's records; save its images {_SAVE}, or as image files",
    r"\.(h5|hdf5|he5)": f"an HDF5 file; save its images {_SAVE}: numpy.save('images.npy', h5py.File(FILE)[NAME][:])",
    r"\.mat": f"a MATLAB file; save its images {_SAVE}, of scipy.io.loadmat(FILE)[NAME] perhaps with other axes",
    r"\.(pkl|pickle|joblib)": (
        f"a pickle, and to unpickle runs whatever code it carries; where you trust it, save its images {_SAVE}"
    ),
    r"\.(pt|pth|ckpt|bin)": (
        f"what torch.save writes; save its images {_SAVE} or (N, C, H, W): "
        "numpy.save('images.npy', torch.load(FILE, weights_only=True).numpy())"
    ),
    r"\.safetensors": (
        f"a file of tensors; save its images {_SAVE}: numpy.save('images.npy', safetensors.numpy.load_file(FILE)[NAME])"
    ),
    r"\.(lmdb|mdb)": f"a database of LMDB; save its images {_SAVE}, or as image files",
}
"""By how the name of the file ends."""


def what_to_do(file: str) -> str | None:
    """What a file of this name is, most likely, and how its images can be read: "an archive; unpack it, …". None where
    the name tells nothing."""
    for ending, words in _KINDS.items():
        if re.search(f"{ending}$", file.lower()):
            return words
    return None


def what_to_do_with_most(files: Iterable[str]) -> str | None:
    """That of the kind which most of the files are; None where none is known."""
    counts = Counter(filter(None, map(what_to_do, files)))
    return counts.most_common(1)[0][0] if counts else None
