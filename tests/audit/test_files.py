from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memrecon_fast.audit.files import read_array, read_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.PNG", "a.tif", "a.ppm"])
def test_lossless_files_are_read_exactly(tmp_path: Path, name: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / name)
    np.testing.assert_array_equal(read_image(tmp_path / name), COLOUR)


def test_greyscale_has_one_channel(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), GREY[:, :, None])


def test_a_palette_becomes_colour(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_refused(tmp_path: Path, mode: str) -> None:
    Image.fromarray(COLOUR).convert(mode).save(tmp_path / "clear.png")
    with pytest.raises(ValueError, match=r"clear\.png.*transparency"):
        read_image(tmp_path / "clear.png")


def test_a_transparent_palette_entry_is_refused(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).quantize(8).save(tmp_path / "clear.gif", transparency=0)
    with pytest.raises(ValueError, match="transparency"):
        read_image(tmp_path / "clear.gif")


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="8 bits per channel"):
        read_image(tmp_path / "deep.png")


def test_animations_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="several frames"):
        read_image(tmp_path / "film.gif")


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    (tmp_path / "text.png").write_text("no image")
    for name in ("half.png", "text.png", "absent.png"):
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name)


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(ValueError, match="decompression bomb"):
        read_image(tmp_path / "bomb.png")


def test_npy_files_are_mapped_and_npz_files_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", COLOUR)
    np.savez(tmp_path / "a.npz", images=COLOUR)
    mapped = read_array(tmp_path / "a.npy")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, COLOUR)
    np.testing.assert_array_equal(read_array(tmp_path / "a.npz"), COLOUR)


def test_arrays_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=COLOUR, b=COLOUR)
    np.savez(tmp_path / "objects.npz", a=np.array([{"a": 1}], dtype=object))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects.npy", "two.npz", "objects.npz", "text.npy", "text.npz", "empty.npy"):
        with pytest.raises(ValueError, match=name):
            read_array(tmp_path / name)


def test_a_mode_with_an_a_in_its_name_is_not_transparent(tmp_path: Path) -> None:
    Image.new("LAB", (3, 4)).save(tmp_path / "lab.tif")
    with pytest.raises(ValueError, match="mode 'LAB'"):
        read_image(tmp_path / "lab.tif")


def test_archives_that_hold_no_array_or_are_damaged_are_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("notes.txt", "no array")
    np.savez_compressed(tmp_path / "damaged.npz", images=np.random.default_rng(0).integers(0, 255, 4000, np.uint8))
    content = bytearray((tmp_path / "damaged.npz").read_bytes())
    content[200:400] = bytes(200)
    (tmp_path / "damaged.npz").write_bytes(content)
    for name in ("text.npz", "damaged.npz"):
        with pytest.raises(ValueError, match=name):
            read_array(tmp_path / name)
