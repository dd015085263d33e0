"""What a file is, told by its name, its first bytes and its table of contents, before anything in it is read."""

from __future__ import annotations

import difflib
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular
from memrecon_fast.common.memory import available_memory, in_units

TAKEN = (
    "a model is a .safetensors file that `memrecon train` or mf.autoencoders.save wrote, a .pt2 file of torch.export, "
    "or package.module:factory, with --weights FILE for a file of weights"
)
PROGRAM = "a .pt2 file is a program, which can do anything when it is opened"
"""Said in the same words wherever it matters."""
CONVERT = (
    "Convert it where you trust it: safetensors.torch.save_file(state_dict, 'weights.safetensors'), where state_dict "
    "is torch.load(FILE, weights_only=False), of a checkpoint its ['state_dict'], of a whole model its .state_dict(); "
    "and give that as the weights of a package.module:factory"
)
TORCH_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".tar")
"""Of what `torch.save` writes."""
_OTHERS = {
    ".onnx": "a model of ONNX",
    ".h5": "a model of Keras, or other data in HDF5",
    ".hdf5": "a model of Keras, or other data in HDF5",
    ".keras": "a model of Keras",
    ".gguf": "a model of GGUF",
    ".pb": "a model of TensorFlow",
    ".tflite": "a model of TensorFlow Lite",
    ".index": "a checkpoint of TensorFlow",
    ".meta": "a checkpoint of TensorFlow",
    ".msgpack": "a model of Flax",
    ".joblib": "a pickle of joblib",
    ".mlmodel": "a model of Core ML",
    ".engine": "a model of TensorRT",
    ".ts": "TorchScript",
    ".npz": "arrays of NumPy",
    ".npy": "an array of NumPy",
    ".py": "code",
    ".json": "a text",
    ".yaml": "a text",
}
INSTEAD = {
    "exported": "a torch.export archive, a model by itself: give it as the model",
    "other": "another archive",
    "pickled": "what torch.save wrote; if it holds weights, give it with --weights to a package.module:factory",
    "safetensors": "safetensors: rename it, or give it with --weights to a package.module:factory",
    "saved": "what torch.save wrote; if it holds weights, give it with --weights to a package.module:factory",
    "scripted": "TorchScript; export the model again with torch.export.export, and torch.export.save that. Where this "
    "file is all there is, and you trust it, a factory opens it: def build(): return torch.jit.load(FILE)",
    "unknown": "no archive, or one that is not whole",
}
"""What a file of each kind is, and what to do with it, where another was expected."""
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself, which `git lfs pull` fetches"),
    (b"/annex/objects/", "a pointer of git-annex, not the file itself, which `git annex get` fetches"),
    (b"\x89HDF\r\n\x1a\n", "HDF5, of Keras for instance"),
    (b"GGUF", "a model of GGUF"),
    (b"<!DOCTYPE", "a web page: it was downloaded from the page of the file, not from the file"),
    (b"<!doctype", "a web page: it was downloaded from the page of the file, not from the file"),
    (b"<html", "a web page: it was downloaded from the page of the file, not from the file"),
)
_SHOWN = 64


def open_file(path: Path) -> BinaryIO:
    """Open a file that may be a model or weights.

    Raises FileNotFoundError where there is none; ValueError for a folder, a special file, an empty one, and one that is
    known to be something else.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder{_kind_of_folder(path)}; {TAKEN}")
    if not path.exists():
        raise FileNotFoundError(f"there is no model file {path}{_meant(path) or _like(path) or _dotted(path)}; {TAKEN}")
    suffix = path.suffix.lower()
    try:
        file = open_regular(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be opened: {reason(error)}") from error
    try:
        beginning = file.read(_SHOWN)
        file.seek(0)
        kind = next((kind for start, kind in _BEGINNINGS if beginning.startswith(start)), _OTHERS.get(suffix))
        check_fits(path, os.fstat(file.fileno()).st_size)
        if not beginning:
            raise ValueError(f"{path} is empty: it was not written or not downloaded to its end")
        if kind is not None:
            hint = f": {path}:function calls a function of it" if suffix == ".py" else ""
            raise ValueError(f"{path} is {kind}{hint}; {TAKEN}")
    except BaseException:
        file.close()
        raise
    return file


def kind_of(path: Path, file: BinaryIO) -> str:
    """What a file holds, by its first bytes and, of an archive, the names of its members.

    "safetensors"; "exported" (`torch.export`), "scripted" (TorchScript), "saved" (`torch.save`) or "other", an archive;
    "pickled", what `torch.save` wrote before there were archives, or another pickle; "unknown".

    Raises ValueError where more is in an archive than there is memory for: a few megabytes may hold gigabytes.
    """
    beginning = file.read(9)
    file.seek(0)
    # a length of eight bytes, the first of which may look like those of a pickle, and a brace
    if beginning[5:] == b"\0\0\0{":
        return "safetensors"
    if beginning[:1] == b"\x80" and beginning[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "pickled"
    return _archive_kind(path, file)


def _archive_kind(path: Path, file: BinaryIO) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OverflowError):
        return "unknown"
    finally:
        file.seek(0)
    if min((member.header_offset for member in members), default=0) > 0:
        return "unknown"  # of an archive that was cut off, the end of another one inside of it
    check_fits(path, sum(member.file_size for member in members))
    names = [member.filename.partition("/")[2] for member in members]
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return "scripted"
    if "data.pkl" in names:
        return "saved"
    exported = any(name.startswith("models/") or name == "archive_format" for name in names)
    older = "serialized_exported_program.json" in [member.filename for member in members]  # before torch 2.7
    return "exported" if exported or older else "other"


def check_fits(path: Path, size: int) -> None:
    """Raise ValueError where the file says that it holds more bytes than there is memory for."""
    free = available_memory()
    if free is not None and size > free:
        raise ValueError(f"{path} holds {in_units(size)}; {in_units(free)} of memory are free")


def _kind_of_folder(path: Path) -> str:
    found = {entry.name for entry in path.iterdir()}
    if "saved_model.pb" in found:
        return ", a model of TensorFlow"
    if found & {"config.json", "model_index.json"}:
        return (
            f" of Hugging Face; a factory loads it: def build(): return SomeClass.from_pretrained({str(path)!r}).eval()"
        )
    return ""


def _meant(path: Path) -> str:
    """For a factory of a module that is there, named with a dot: module.function; or for the module alone."""
    for module, function in ((path.with_suffix(""), path.suffix[1:] or "function"), (path, "function")):
        file = module.parent / (module.name.replace(".", "/") + ".py")
        if file.is_file() and function.isidentifier():
            return f"; a factory is named {module if module.parent == Path() else file}:{function}"
    return ""


def _dotted(path: Path) -> str:
    """For what reads like package.module.function, wherever the package is."""
    module, _, function = str(path).rpartition(".")
    known = (".safetensors", ".pt2", *TORCH_SUFFIXES, *_OTHERS)
    dotted = all(part.isidentifier() for part in (*module.split("."), function))
    return f"; a factory is named {module}:{function}" if dotted and path.suffix.lower() not in known else ""


def _like(path: Path) -> str:
    """A file of nearly this name."""
    if not path.parent.is_dir():
        return f", and no folder {path.parent}"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    close = difflib.get_close_matches(path.name, names, 1)
    return f"; there is {close[0]}" if close else ""
