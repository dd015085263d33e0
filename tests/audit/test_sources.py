from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from memrecon_fast.audit.sources import from_array, open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)  # (N, H, W, C)
IMAGES = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255


def save_folder(folder: Path) -> None:
    (folder / "b").mkdir(parents=True)
    for name, pixels in zip(("a.png", "c.png", "d.PNG", "b/z.png", "b/a.png"), PIXELS, strict=True):
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("not an image")


def test_a_folder_is_read_in_the_order_of_relative_paths(tmp_path: Path) -> None:
    save_folder(tmp_path)
    images = open_images(tmp_path)
    assert images.names == ("a.png", "b/a.png", "b/z.png", "c.png", "d.PNG")
    assert images.image_shape == (3, 6, 7)
    torch.testing.assert_close(images.stack(), IMAGES[[0, 4, 3, 1, 2]], rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", ["first", "last"])
def test_arrays(tmp_path: Path, suffix: str, dtype: str, channels: str) -> None:
    array = PIXELS if dtype == "uint8" else (PIXELS.astype(np.float32) / np.float32(255))
    array = array.transpose(0, 3, 1, 2) if channels == "first" else array
    path = tmp_path / f"images{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, array)
    images = open_images(str(path))
    assert len(images) == 5
    assert images.image_shape == (3, 6, 7)
    assert images[2].dtype == torch.float32
    assert images[2].is_contiguous()
    torch.testing.assert_close(images.stack(), IMAGES, rtol=0, atol=0)


class Dataset:
    """What the classes of torchvision.datasets have in common."""

    def __init__(self, root: str, download: bool = True) -> None:
        if not Path(root, "found").exists():
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        assert not download

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[index]), 0


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.ModuleType:
    """Stands in for torchvision.datasets, with `Dataset` alone, and its files in tmp_path."""
    module = types.ModuleType("torchvision.datasets")
    module.__dict__.update(__all__=("Dataset",), Dataset=Dataset)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    (tmp_path / "found").touch()
    return module


@pytest.mark.usefixtures("datasets")
def test_torchvision_gives_the_images_of_its_data_set(tmp_path: Path) -> None:
    images = open_images(f"torchvision:Dataset:{tmp_path}")
    assert images.image_shape == (3, 6, 7)
    torch.testing.assert_close(images.stack(), IMAGES, rtol=0, atol=0)


def test_torchvision_items_that_are_no_images_are_refused(tmp_path: Path, datasets: types.ModuleType) -> None:
    class Tensors(Dataset):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:  # type: ignore[override]
            return IMAGES[index], 0

    datasets.__dict__["Dataset"] = Tensors
    with pytest.raises(ValueError, match="image 0 of torchvision:Dataset"):
        open_images(f"torchvision:Dataset:{tmp_path}")


def test_the_real_torchvision(tmp_path: Path) -> None:
    try:
        import torchvision.datasets  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    save_folder(tmp_path / "some class")
    images = open_images(f"torchvision:ImageFolder:{tmp_path}")
    torch.testing.assert_close(images.stack().sum((1, 2, 3)).sort()[0], IMAGES.sum((1, 2, 3)).sort()[0])
    with pytest.raises(ValueError, match="cannot open CIFAR10"):
        open_images(f"torchvision:CIFAR10:{tmp_path}")


def test_the_first_so_many() -> None:
    images = from_array(PIXELS)
    torch.testing.assert_close(images.first(2).stack(), IMAGES[:2], rtol=0, atol=0)
    assert len(images.first(9)) == 5


def test_images_of_a_folder_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    save_folder(tmp_path)
    sent = pickle.loads(pickle.dumps(open_images(tmp_path)))
    torch.testing.assert_close(sent[0], IMAGES[0], rtol=0, atol=0)


def test_a_folder_with_another_size_names_the_file_and_what_was_expected(tmp_path: Path) -> None:
    save_folder(tmp_path)
    Image.fromarray(PIXELS[0, :5]).save(tmp_path / "odd.png")
    with pytest.raises(ValueError, match=r"odd\.png is 5×7 pixels .* colour; expected 6×7 .*a\.png"):
        open_images(tmp_path)


def test_a_folder_with_another_mode_names_the_file_and_what_was_expected(tmp_path: Path) -> None:
    save_folder(tmp_path)
    Image.fromarray(PIXELS[0, :, :, 0]).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"grey\.png is 6×7 .*greyscale; expected .*colour"):
        open_images(tmp_path)


def test_a_folder_with_a_damaged_image_is_refused_before_it_is_needed(tmp_path: Path) -> None:
    save_folder(tmp_path)
    (tmp_path / "zz.jpg").write_bytes(b"\xff\xd8\xff\xe0 damaged")
    with pytest.raises(ValueError, match=r"zz\.jpg"):
        open_images(tmp_path)


def bad_value(value: float) -> np.ndarray:
    array = np.full((4, 3, 5, 5), 0.5, np.float32)
    array[2, 1, 3, 4] = value
    return array


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (np.zeros((2, 3, 5, 5)), TypeError, "float32 in .* not float64"),
        (np.zeros((2, 3, 5, 5), np.int32), TypeError, "not int32"),
        (bad_value(float("nan")), ValueError, "image 2 .* pixel of nan"),
        (bad_value(float("inf")), ValueError, "image 2 .* pixel of inf"),
        (bad_value(200.0), ValueError, "image 2 .* pixel of 200.*must be uint8"),
        (bad_value(-0.01), ValueError, "image 2 .* pixel of -0.01"),
        (np.zeros((2, 5, 5), np.uint8), ValueError, r"\(N, C, H, W\)"),
        (np.zeros((0, 3, 5, 5), np.uint8), ValueError, "none of them 0"),
        (np.zeros((2, 3, 5, 3), np.uint8), ValueError, "first or last"),
        (np.zeros((2, 4, 5, 5), np.uint8), ValueError, "no axis of one or three channels"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array: np.ndarray, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        from_array(array)


def test_a_wrong_pixel_is_found_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memrecon_fast.audit.sources._CHUNK", 80)
    with pytest.raises(ValueError, match="image 2 "):
        from_array(bad_value(2.0))


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match="holds no image files"):
        open_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="neither a folder"):
        open_images(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="absent"):
        open_images(tmp_path / "absent")


@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision:Dataset", "torchvision:NAME:ROOT"),
        ("torchvision:Nothing:{}", "no class 'Nothing'"),
        ("torchvision:Dataset:{}/empty", "cannot open Dataset .* not found or corrupted"),
        ("torchvision:Dataset:{}/absent", "no folder"),
    ],
)
def test_torchvision_sources_that_are_none_are_refused(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_images(source.format(tmp_path))


def test_without_torchvision_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ValueError, match="needs torchvision"):
        open_images(f"torchvision:CIFAR10:{tmp_path}")
