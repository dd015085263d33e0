from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memrecon_fast.images.decode import IMAGE_SUFFIXES, WrongSize, decode, look, pixels_of, read_image
from memrecon_fast.images.numpy_files import read_array

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


def clear(mode: str, alpha: int = 0) -> Image.Image:
    """The picture with an alpha channel that is opaque but for one pixel."""
    image = Image.fromarray(COLOUR).convert("L" if mode == "LA" else "RGB").convert(mode)
    opacity = np.full(GREY.shape, 255, np.uint8)
    opacity[1, 2] = alpha
    image.putalpha(Image.fromarray(opacity))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("alpha", [0, 254])
def test_transparency_is_refused(tmp_path: Path, mode: str, alpha: int) -> None:
    clear(mode, alpha).save(tmp_path / "clear.png")
    with pytest.raises(ValueError, match=r"clear\.png .* it has transparency; save it without an alpha channel"):
        read_image(tmp_path / "clear.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_that_is_opaque_everywhere_is_dropped(tmp_path: Path, mode: str) -> None:
    clear(mode, 255).save(tmp_path / "opaque.png")
    expected = np.asarray(Image.fromarray(COLOUR).convert("L"))[:, :, None] if mode == "LA" else COLOUR
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), expected)


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_other_modes_with_an_alpha_channel(mode: str) -> None:
    whole = Image.fromarray(COLOUR).convert("LA" if mode == "La" else "RGBA")
    expected = np.asarray(whole.convert("L"))[:, :, None] if mode == "La" else COLOUR
    pixels = pixels_of(whole.convert("P").convert("PA") if mode == "PA" else whole.convert(mode))
    assert pixels.shape == expected.shape
    if mode != "PA":  # a palette of 256 colours is not exact
        np.testing.assert_array_equal(pixels, expected)
    with pytest.raises(ValueError, match="transparency"):
        pixels_of(clear("LA").convert("La") if mode == "La" else clear("RGBA").convert("RGBa"))


@pytest.mark.filterwarnings("error")
def test_a_transparent_palette_entry_is_refused_where_it_is_used(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(8)
    palette.save(tmp_path / "clear.gif", transparency=0)
    palette.save(tmp_path / "clear.png", transparency=bytes([255, 128]))
    for name in ("clear.gif", "clear.png"):
        with pytest.raises(ValueError, match="transparency"):
            read_image(tmp_path / name)
    palette.save(tmp_path / "opaque.png", transparency=bytes([255, 255]))
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), np.asarray(palette.convert("RGB")))


def test_a_transparent_grey_value_is_refused_where_it_is_used(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "unused.png", transparency=7)
    Image.fromarray(GREY).save(tmp_path / "used.png", transparency=40)
    np.testing.assert_array_equal(read_image(tmp_path / "unused.png"), GREY[:, :, None])
    with pytest.raises(ValueError, match="transparency"):
        read_image(tmp_path / "used.png")


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"mode 'I(;16)?'; expected 8 bits per channel, grey or colour"):
        read_image(tmp_path / "deep.png")


def deep_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes(range(12)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def deep_tiff() -> bytes:
    entries = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, 12)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + struct.pack("<HHH", 16, 16, 16) + bytes(12)
    )


@pytest.mark.parametrize(
    "content",
    [
        deep_png(),
        deep_tiff(),
        b"P6 2 1 65535\n" + bytes(12),
        b"P3 2 1 300\n" + b"300 " * 6,
        struct.pack(">hBBHHHHll", 474, 0, 2, 3, 2, 1, 3, 0, 65535) + bytes(488 + 12),
    ],
    ids=["png", "tiff", "ppm", "plain ppm", "sgi"],
)
def test_sixteen_bits_in_colour_are_refused_though_pillow_would_cut_them_to_eight(content: bytes) -> None:
    assert Image.open(io.BytesIO(content)).mode == "RGB"
    with pytest.raises(ValueError, match="it has more than 8 bits per channel"):
        decode(io.BytesIO(content))


def test_an_image_of_five_bits_per_channel_is_read() -> None:
    """Whose raw mode is BGR;16: the bits of all channels."""
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 3, 4, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    content = b"BM" + struct.pack("<IHHI", 14 + 52 + 4, 0, 0, 14 + 52) + header + struct.pack("<HH", 0xF800, 0)
    np.testing.assert_array_equal(decode(io.BytesIO(content)), [[[255, 0, 0]]])


@pytest.mark.parametrize(
    ("suffix", "several"),
    [("gif", "several frames or pages"), ("tif", "several frames or pages"), ("png", "2 frames"), ("webp", "2 frames")],
)
def test_animations_and_several_pages_are_refused(tmp_path: Path, suffix: str, several: str) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    path = tmp_path / f"film.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=f"it has {several}; save the one that is meant as a file of its own"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "jp2", "tga"])
def test_truncated_files_are_refused(suffix: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"whole.{suffix}")
    content = (tmp_path / f"whole.{suffix}").read_bytes()
    assert decode(io.BytesIO(content)).shape == (40, 40, 3)
    with pytest.raises(ValueError, match=r"decoded|damaged|truncated"):
        decode(io.BytesIO(content[: len(content) * 2 // 3]))


def test_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "page.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\n")
    for name in ("text.png", "page.png"):
        with pytest.raises(
            ValueError, match=rf"{name} cannot be read as an image: its format is unknown, or it is damaged"
        ):
            read_image(tmp_path / name)
    with pytest.raises(ValueError, match=r"absent\.png cannot be read as an image: No such file or directory$"):
        read_image(tmp_path / "absent.png")


def test_what_an_error_of_a_decoder_says_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    monkeypatch.setattr("memrecon_fast.images.decode.check_pixels", fail)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: it cannot be decoded: RuntimeError"):
        read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("error")
def test_decompression_bombs_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)
    assert read_image(tmp_path / "bomb.png").shape == (3, 4, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 11)  # of which Pillow would only warn
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"its 12 pixels may be a decompression bomb; .* 11"):
        read_image(tmp_path / "bomb.png")


def test_documents_and_films_are_no_images() -> None:
    assert {".png", ".jpg", ".jpeg", ".webp", ".tif", ".bmp", ".gif", ".jp2"} <= set(IMAGE_SUFFIXES)
    assert not {".eps", ".ps", ".pdf", ".wmf", ".mpg", ".h5", ".hdf", ".grib", ".bufr"} & set(IMAGE_SUFFIXES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\0", "its format is unknown, or it is damaged"),
        (b"\x89PNG", "its format is unknown, or it is damaged"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "it is a Git LFS pointer, not the file itself",
        ),
        (b"/annex/objects/MD5E-s5--00", "it is a pointer of git-annex, not the file itself"),
    ],
)
def test_files_that_hold_no_picture_say_why(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        decode(io.BytesIO(content))


def bomb(width: int, height: int) -> bytes:
    """A PNG of one colour, all of whose pixels are there."""
    stream = io.BytesIO()
    Image.new("1", (width, height)).save(stream, "PNG")
    return stream.getvalue()


def test_an_image_of_another_size_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bomb(9000, 9000)  # below Pillow's limit
    assert len(content) < 20_000
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(WrongSize, match=r"^it is 9000×9000 pixels"):
        look(io.BytesIO(content), (12, 12))


def test_an_icon_with_a_large_picture_inside_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = bomb(9000, 9000)
    content = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inside), 22) + inside
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"^it is an icon with a picture of 9000×9000 pixels; at most 1048576"):
        look(io.BytesIO(content))


def test_an_image_for_which_there_is_no_memory_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memrecon_fast.images.decode.available_memory", lambda: 10**9)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"its 81000000 pixels take up to 1\.94 GB of memory to decode, and 1 GB"):
        decode(io.BytesIO(bomb(9000, 9000)))


def test_frames_are_not_counted_to_know_that_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    frames = [Image.new("L", (2, 2), shade) for shade in range(200)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    stream.seek(0)
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.n_frames", property(lambda _: pytest.fail("all were read")))
    with pytest.raises(ValueError, match="it has several frames"):
        decode(stream)


@pytest.mark.parametrize("kind", ["zTXt", "iCCP"])
def test_a_chunk_that_expands_without_measure_is_an_error_of_one_line(kind: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "PNG")
    content = stream.getvalue()
    data = b"a\0\0" + zlib.compress(bytes(2**27), 9)
    chunk = struct.pack(">I", len(data)) + kind.encode() + data
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    with contextlib.suppress(ValueError):  # Pillow may pass over it
        assert decode(io.BytesIO(content[:33] + chunk + content[33:])).shape == (3, 4, 1)


def test_a_jpeg_as_large_as_can_be_is_refused_by_its_header() -> None:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, "JPEG")
    content = bytearray(stream.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    with pytest.raises(ValueError, match=r"its 4290250000 pixels may be a decompression bomb; at most \d+ are decoded"):
        decode(io.BytesIO(bytes(content)))


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
