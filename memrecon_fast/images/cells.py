"""What a cell of a Parquet file may hold as an image: a file's bytes, text that leads to one, or pixels."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from memrecon_fast.common.errors import reason
from memrecon_fast.common.files import open_regular
from memrecon_fast.common.memory import in_units
from memrecon_fast.images.arrays import as_image, in_range
from memrecon_fast.images.decode import look
from memrecon_fast.images.source import Look, Size

NAMES = ("image", "img")
"""What a column of images is called, if there are others that may be meant."""
_TEXT_NAMES = (*NAMES, "image_path", "img_path", "path", "file_name", "filename", "file")
_PIXEL_NAMES = (*NAMES, "pixels", "pixel_values")
EXPECTED = (
    "expected is one image in a row, a file as struct {bytes, path} or binary, or, in a column called image or img, "
    "also text (a path below the folder of the Parquet file, or base64) or nested lists of pixels"
)
MAX_CELL = 2**28
"""Bytes."""
_BASE64 = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkqA|TU0AK|Qk)[A-Za-z0-9+/\s]{48,}={0,2}\s*")


class Column(NamedTuple):
    """The column of a table that holds images."""

    name: str
    kind: str
    """"struct", "bytes", "text" or "pixels"."""
    leaves: tuple[str, ...]
    """The paths of what is read of it: image.bytes and image.path of a struct."""
    has_paths: bool
    """Whether it is a struct with a path."""


def find_column(schema: pa.Schema, wanted: str | None = None) -> Column:
    """The column of images; the one that is wanted, if it exists. Raises ValueError, which names the columns and their
    types, where none or several may be meant."""
    kinds = {field.name: _kind(field.type) for field in schema}
    files = [name for name, kind in kinds.items() if kind in ("struct", "bytes")]
    named = [
        name
        for kind, names in (("struct", NAMES), ("bytes", NAMES), ("pixels", _PIXEL_NAMES), ("text", _TEXT_NAMES))
        for name in names
        if kinds.get(name) == kind
    ]
    first = [name for name in named if name in NAMES or not files]
    if wanted is not None and wanted in kinds:
        if kinds[wanted] is None:
            raise ValueError(f"has no images in its column {wanted}: {EXPECTED}; its columns are {_described(schema)}")
        first = [wanted]
    if not first and len(files) != 1:
        which = "several columns that may hold images" if files else "no column that may hold images"
        hint = f"; name one, FILE.parquet:{' or :'.join(files[:4])}" if files else ""
        raise ValueError(f"has {which}: {EXPECTED}; its columns are {_described(schema)}{hint}")
    name = (first or files)[0]
    kind, has_paths = kinds[name], False
    if kind == "struct":
        struct = _plain(schema.field(name).type)
        has_paths = struct.get_field_index("path") >= 0 and _is_text(_plain(struct.field("path").type))
    leaves = (f"{name}.bytes", *([f"{name}.path"] if has_paths else [])) if kind == "struct" else (name,)
    return Column(name, kind or "", leaves, has_paths)


def look_at_cell(cell: pa.Scalar, kind: str, folder: Path, pixel_range: tuple[float, float], size: Size | None) -> Look:
    """The image in a cell of a column of this kind, see `Source.look`. Raises ValueError.

    folder: of the Parquet file; paths are relative to it, and lead to regular files in it.
    """
    if isinstance(cell, pa.DictionaryScalar):
        cell = cell.value
    struct = None
    if kind == "struct" and cell.is_valid:
        struct, cell = cell, cell["bytes"]
        if isinstance(cell, pa.DictionaryScalar):
            cell = cell.value
    if not cell.is_valid:
        path = None if struct is None else struct.as_py().get("path")
        found = None if path is None else _file_below(folder, path)
        if path is not None and found is None:
            raise _leads_out(path)
        if path is None or found is None or not os.path.isfile(found):
            raise ValueError("its cell holds no bytes")
        return _look_at_file(found, path, size)
    if kind == "pixels":
        return _look_at_pixels(_pixels(cell), pixel_range)
    content = cell.as_buffer()
    if content.size > MAX_CELL:
        raise ValueError(f"its cell has {in_units(content.size)}; at most {in_units(MAX_CELL)} are read")
    if kind == "text":
        return _look_at_text(str(cell.as_py()), folder, size)
    return look(io.BytesIO(content.to_pybytes()), size, turn=True)


def _kind(stored: pa.DataType) -> str | None:
    plain = _plain(stored)
    if pa.types.is_struct(plain):
        at = plain.get_field_index("bytes")
        return "struct" if at >= 0 and _is_bytes(_plain(plain.field(at).type)) else None
    if _is_bytes(plain):
        return "bytes"
    if _is_text(plain):
        return "text"
    depth = 0
    while _is_list(plain):
        plain, depth = plain.value_type, depth + 1
    return "pixels" if depth in (2, 3) and (pa.types.is_integer(plain) or pa.types.is_floating(plain)) else None


def _plain(stored: pa.DataType) -> pa.DataType:
    """Without what a type is stored as: the categories of pandas, extensions."""
    if isinstance(stored, pa.FixedShapeTensorType):
        nested = stored.value_type
        for length in reversed(stored.shape):
            nested = pa.list_(nested, length)
        return nested
    if isinstance(stored, pa.BaseExtensionType):
        return _plain(stored.storage_type)
    return _plain(stored.value_type) if pa.types.is_dictionary(stored) else stored


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _described(schema: pa.Schema) -> str:
    """The columns and their types; those first that are called as if they held images."""
    words = []
    for field in sorted(schema, key=lambda field: field.name not in _PIXEL_NAMES):
        kind = " ".join(str(field.type).split())
        words.append(f"{field.name} ({kind if len(kind) <= 80 else f'{kind[:80]}…'})")
    return ", ".join(words[:20]) + (f" and {len(words) - 20} more" if len(words) > 20 else "")


def _look_at_text(text: str, folder: Path, size: Size | None) -> Look:
    """An image in or behind a text: base64, a data URL, or a path."""
    if text.startswith("data:"):
        header, _, content = text.partition(",")
        if not header.endswith(";base64"):
            raise ValueError(f"its data URL begins with {header[:40]!r}; expected data:image/…;base64,…")
        return _look_at_base64(content, size)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text):
        raise ValueError(f"it is an address, {_short(text)}; nothing is downloaded")
    if _BASE64.fullmatch(text):
        return _look_at_base64(text, size)
    path = _file_below(folder, text)
    if path is None:
        raise _leads_out(text)
    return _look_at_file(path, text, size)


def _look_at_base64(text: str, size: Size | None) -> Look:
    try:
        content = base64.b64decode(text)
    except binascii.Error as error:
        raise ValueError(f"it is no base64: {reason(error)}") from error
    return look(io.BytesIO(content), size, turn=True)


def _file_below(folder: Path, path: str) -> str | None:
    """Where a path leads that is relative to the folder; None if it leads out of it, or is no path."""
    if "\0" in path:
        return None
    root = os.path.realpath(folder)
    found = os.path.realpath(os.path.join(root, path))
    return found if os.path.commonpath([root, found]) == root else None


def _leads_out(path: str) -> ValueError:
    return ValueError(f"it is a path, {_short(path)}, that leads out of the folder of the Parquet file")


def _look_at_file(path: str, called: str, size: Size | None) -> Look:
    try:
        with open_regular(path) as file:
            return look(file, size, turn=True)
    except OSError as error:
        raise ValueError(f"the file {_short(called)} cannot be read: {reason(error)}") from error


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


def _pixels(cell: pa.Scalar) -> NDArray[Any]:
    """The array of nested lists of numbers. Raises ValueError where they are ragged or have nulls."""
    if isinstance(cell, pa.FixedShapeTensorScalar):
        tensor: NDArray[Any] = cell.to_numpy()
        return tensor
    if isinstance(cell, pa.ExtensionScalar):
        cell = cell.value
    values, shape = cell.values, [len(cell.values)]
    while _is_list(values.type):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise ValueError("its lists of pixels are not all of one length")
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise ValueError("its lists of pixels have entries without a value")
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(shape)
    return array


def _look_at_pixels(array: NDArray[Any], pixel_range: tuple[float, float]) -> Look:
    remark = None
    if np.issubdtype(array.dtype, np.integer):
        if array.size and not 0 <= array.min() <= array.max() <= 255:
            raise ValueError(f"it has pixels from {array.min()} to {array.max()}; whole numbers must be 0 to 255")
        array = array.astype(np.uint8)
    else:
        array, remark = in_range(array, pixel_range)
    return Look(as_image(array, "it"), remark)
