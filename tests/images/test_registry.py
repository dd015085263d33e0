"""A new kind of source is one module and one line of `SOURCES`: here a module that is not the package's."""

from __future__ import annotations

import dataclasses
import pickle
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from memrecon_fast.audit.store.manifest import DESCRIPTION
from memrecon_fast.images import from_array, from_iterable, open_images, open_source, scan, sources
from memrecon_fast.images.decode import decode
from memrecon_fast.images.sources import Source, SourceKind

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)  # (N, H, W, C)


def open_archive(text: str, pixel_range: tuple[float, float]) -> Source:
    """The image files in a .zip archive."""
    with zipfile.ZipFile(text) as archive:
        names = tuple(archive.namelist())
    return Source(names, partial(read_member, text, names))


def read_member(path: str, names: tuple[str, ...], index: int) -> NDArray[np.uint8]:
    with zipfile.ZipFile(path) as archive, archive.open(names[index]) as file:
        return decode(file)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as writing:
        for number, pixels in enumerate(PIXELS):
            with writing.open(f"{number}.png", "w") as file:
                Image.fromarray(pixels).save(file, "png")
    return path


def test_a_source_of_ones_own_is_opened_like_the_others(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SOURCES", [*sources.SOURCES, SourceKind(open_archive, suffixes=(".zip",))])
    opened = open_images(archive, limit=4)
    assert opened.names == ("0.png", "1.png", "2.png", "3.png")
    assert opened.source.name == str(archive)
    torch.testing.assert_close(opened.stack(), torch.from_numpy(PIXELS[:4]).permute(0, 3, 1, 2) / 255, rtol=0, atol=0)
    assert opened.digest() == pickle.loads(pickle.dumps(opened)).digest()
    (archive.parent / "a.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"nor a \.npy, \.npz, \.parquet or \.zip file"):
        open_source(archive.parent / "a.txt")


def test_a_source_may_be_known_by_how_its_name_begins(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = SourceKind(lambda text, pixel_range: open_archive(text.removeprefix("zip:"), pixel_range), prefix="zip:")
    with pytest.raises(FileNotFoundError, match="there is no file or folder zip:"):
        open_source(f"zip:{archive}")
    monkeypatch.setattr(sources, "SOURCES", [kind, *sources.SOURCES])
    assert open_source(f"zip:{archive}").name == f"zip:{archive}"
    assert open_images(f"zip:{archive}").image_shape == (3, 6, 7)


def test_a_source_knows_what_it_was_called_and_is_the_same_by_another_name(tmp_path: Path) -> None:
    np.save(tmp_path / "members.npy", PIXELS)
    opened = open_images(tmp_path / "members.npy")
    assert opened.source.name == str(tmp_path / "members.npy")
    unnamed = scan(dataclasses.replace(opened.source, text=None))
    assert unnamed.source.name == "5 images"
    assert (unnamed.digest(), unnamed.source) == (opened.digest(), opened.source)
    assert scan(unnamed.source, limit=3).source.name == "3 images"
    assert from_array(PIXELS).name == from_iterable(PIXELS, tmp_path / "spool.npy").name == "5 images"


def test_the_folder_of_a_run_is_no_source_of_images(tmp_path: Path) -> None:
    for folder in ("images", "run"):
        (tmp_path / folder).mkdir()
        Image.fromarray(PIXELS[0]).save(tmp_path / folder / "a.png")
    (tmp_path / "run" / DESCRIPTION).write_text("{}")
    assert open_source(tmp_path).names == ("images/a.png",)
