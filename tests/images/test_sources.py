from __future__ import annotations

import os
import pickle
import re
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from memrecon_fast.images.scan import open_images, scan
from memrecon_fast.images.sources import NOISY_PIXEL_RANGE, Source, from_array, from_iterable, open_source

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)  # (N, H, W, C)


def save_folder(folder: Path) -> None:
    (folder / "b").mkdir(parents=True)
    for name, pixels in zip(("a.png", "c.png", "d.PNG", "b/z.png", "b/a.png"), PIXELS, strict=True):
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("not an image")


def check_pixels(source: Source, expected: np.ndarray) -> None:
    assert len(source) == len(expected)
    for index in range(len(source)):
        np.testing.assert_array_equal(source.read(index), expected[index])


def test_a_folder_is_read_in_the_order_of_relative_paths(tmp_path: Path) -> None:
    save_folder(tmp_path)
    source = open_source(tmp_path)
    assert source.names == ("a.png", "b/a.png", "b/z.png", "c.png", "d.PNG")
    check_pixels(source, PIXELS[[0, 4, 3, 1, 2]])


def test_all_formats_that_pillow_reads_are_found_in_a_folder(tmp_path: Path) -> None:
    names = ("a.jp2", "b.webp", "c.TGA", "d.jfif", "e.ppm")
    for name in names:
        Image.fromarray(PIXELS[0]).save(tmp_path / name)
    source = open_source(tmp_path)
    assert source.names == names
    assert [source.read(index).shape for index in range(len(source))] == [(6, 7, 3)] * len(names)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    save_folder(tmp_path / "images")
    for hidden in ("images/.a.png", "images/b/._z.png", "images/.cache/a.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        Image.fromarray(PIXELS[0]).save(tmp_path / hidden)
    assert len(open_source(tmp_path / "images")) == 5


def test_a_file_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    try:
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("the file system takes only text")
    source = open_source(tmp_path)
    assert source.names == (r"\xff.png",)
    np.testing.assert_array_equal(source.read(0), PIXELS[0])


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed over, its images would be missing without a word."""
    save_folder(tmp_path)
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"the folder .*b cannot be listed: Permission denied"):
        open_source(tmp_path)


def test_a_damaged_or_missing_image_of_a_folder_says_so_when_it_is_read(tmp_path: Path) -> None:
    save_folder(tmp_path)
    (tmp_path / "zz.jpg").write_text("no image")
    source = open_source(tmp_path)
    with pytest.raises(ValueError, match=r"^its format is unknown, or it is damaged$"):
        source.read(5)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"^it cannot be read: No such file or directory$"):
        source.read(0)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays(tmp_path: Path, suffix: str, dtype: str, channels: str, order: Any) -> None:
    array = PIXELS if dtype == "uint8" else (PIXELS.astype(np.float32) / np.float32(255))
    stored = np.array(array.transpose(0, 3, 1, 2) if channels == "first" else array, order=order)
    path = tmp_path / f"images{suffix}"
    np.save(path, stored) if suffix == ".npy" else np.savez_compressed(path, stored)
    source = open_source(str(path))
    assert source.names == ("0", "1", "2", "3", "4")
    check_pixels(source, array)
    check_pixels(pickle.loads(pickle.dumps(source)), array)
    check_pixels(from_array(stored), array)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_numpy_file_is_not_pickled_with_its_source(tmp_path: Path, suffix: str) -> None:
    array = np.zeros((50, 40, 40, 3), np.uint8)
    path = tmp_path / f"images{suffix}"
    np.save(path, array) if suffix == ".npy" else np.savez(path, array)
    source = open_source(path)
    source.read(0)
    assert len(pickle.dumps(source)) < 2000


def test_a_relative_path_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a worker reads what was opened here."""
    np.save(tmp_path / "images.npy", PIXELS)
    save_folder(tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    sources = [open_source("images.npy"), open_source("folder")]
    monkeypatch.chdir("/")
    for source in sources:
        np.testing.assert_array_equal(source.read(0), PIXELS[0])


def test_a_numpy_file_that_has_become_shorter_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", PIXELS)
    source = open_source(tmp_path / "images.npy")
    np.save(tmp_path / "images.npy", PIXELS[:2])
    with pytest.raises(ValueError, match=r"^images\.npy is shorter than it was$"):
        source.read(2)
    (tmp_path / "images.npy").unlink()
    with pytest.raises(ValueError, match=r"^images\.npy cannot be read: No such file or directory$"):
        source.read(0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 200.0, -0.01])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_wrong_pixel_belongs_to_its_image(tmp_path: Path, value: float, kind: str) -> None:
    array = np.full((4, 3, 5, 5), 0.5, np.float32)
    array[2, 1, 3, 4] = value
    np.save(tmp_path / "a.npy", array)
    source = from_array(array) if kind == "memory" else open_source(tmp_path / "a.npy")
    for index in (0, 1, 3):
        assert source.read(index).shape == (5, 5, 3)
    message = rf"^it has a pixel of {value:g}; float pixels must lie in \[0, 1\], and those of 0 to 255 must be uint8$"
    with pytest.raises(ValueError, match=message):
        source.read(2)


def test_noisy_pixels_may_leave_the_range_where_that_is_said(tmp_path: Path) -> None:
    array = np.linspace(-0.9, 1.9, 300, dtype=np.float32).reshape(4, 3, 5, 5)
    array[2, 1, 3, 4] = 2.5
    for name, save in (("a.npy", np.save), ("a.npz", np.savez)):
        save(tmp_path / name, array)
        source = open_source(tmp_path / name, NOISY_PIXEL_RANGE)
        for one in (source, pickle.loads(pickle.dumps(source))):
            np.testing.assert_array_equal(one.read(3), array[3].transpose(1, 2, 0))
            with pytest.raises(ValueError, match=r"^it has a pixel of 2\.5; float pixels must lie in \[-1, 2\]"):
                one.read(2)


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (np.zeros((2, 3, 5, 5), np.longdouble), TypeError, r"must hold floats in \[0, 1\] or uint8, not float128$"),
        (np.zeros((2, 3, 5, 5), np.complex64), TypeError, "not complex64$"),
        (
            np.zeros((2, 3, 5, 5), np.int64),
            TypeError,
            r"not int64; pixels of 0 to 255 .*array\.astype\('uint8'\), those",
        ),
        (np.zeros((2, 3, 5, 5), np.uint16), TypeError, "not uint16; pixels of 0 to 255"),
        (np.zeros((2, 3, 5, 5), np.bool_), TypeError, r"not bool; as array\.astype\('float32'\) they are 0 and 1$"),
        (np.zeros((3, 5, 5), np.uint8), ValueError, r"\(N, C, H, W\)"),
        (np.zeros((5, 5, 3), np.uint8), ValueError, r"\(N, C, H, W\)"),
        (np.zeros((5, 5), np.uint8), ValueError, r"\(N, C, H, W\)"),
        (np.zeros((0, 3, 5, 5), np.uint8), ValueError, "none of them 0"),
        (np.zeros((2, 3, 5, 3), np.uint8), ValueError, "could have its channels first or last"),
        (np.zeros((2, 4, 5, 5), np.uint8), ValueError, "no axis of one or three channels"),
    ],
)
def test_arrays_that_are_no_images_are_refused_as_a_whole(
    tmp_path: Path, array: np.ndarray, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^the array .*{message}"):
        from_array(array)
    np.save(tmp_path / "images.npy", array)
    with pytest.raises(kind, match=f"{re.escape(str(tmp_path))}.images.npy .*{message}"):
        open_source(tmp_path / "images.npy")


def test_an_iterable_of_unknown_length_is_written_once_and_read_again(tmp_path: Path) -> None:
    gone_through = 0

    def images() -> Iterator[torch.Tensor]:
        nonlocal gone_through
        gone_through += 1
        for pixels in PIXELS:
            yield torch.from_numpy(pixels).permute(2, 0, 1)

    source = from_iterable(images(), tmp_path / "spool.npy")
    assert source.names == ("0", "1", "2", "3", "4")
    check_pixels(source, PIXELS)
    check_pixels(pickle.loads(pickle.dumps(source)), PIXELS)
    assert gone_through == 1
    np.testing.assert_array_equal(np.load(tmp_path / "spool.npy", mmap_mode="r"), PIXELS)
    assert os.listdir(tmp_path) == ["spool.npy"]


def test_the_file_of_an_iterable_has_room_for_any_number(tmp_path: Path) -> None:
    from_iterable((np.full((1, 1), i % 256, np.uint8) for i in range(12_345)), tmp_path / "spool")
    written = np.load(tmp_path / "spool", mmap_mode="r")
    assert written.shape == (12_345, 1, 1, 1)
    np.testing.assert_array_equal(written.reshape(-1), np.arange(12_345) % 256)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([Image.fromarray(pixels) for pixels in PIXELS], PIXELS),
        ([Image.fromarray(pixels[:, :, 0]) for pixels in PIXELS], PIXELS[..., :1]),
        ([pixels[:, :, 1] for pixels in PIXELS], PIXELS[..., 1:2]),
        (list(PIXELS), PIXELS),
        (torch.from_numpy(PIXELS).float().div(255).requires_grad_(), PIXELS.astype(np.float32) / np.float32(255)),
        (PIXELS / 255, (PIXELS / 255).astype(np.float32)),
        ([(PIXELS[0] / 255).astype(">f4"), torch.from_numpy(PIXELS[1] / 255)], (PIXELS[:2] / 255).astype(np.float32)),
    ],
    ids=["Pillow", "grey Pillow", "without channels", "arrays", "tensor", "float64", "swapped bytes, and float64"],
)
def test_what_an_iterable_may_hold(tmp_path: Path, images: Any, expected: np.ndarray) -> None:
    check_pixels(from_iterable(images, tmp_path / "spool.npy"), expected)


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        ("text", TypeError, "image 1 must be an array or tensor of floats or uint8, or a Pillow image, not str"),
        (torch.zeros(6, 7, 3, dtype=torch.bfloat16), TypeError, "image 1 must be .* not torch.bfloat16"),
        (np.zeros((6, 7, 3), np.int64), TypeError, "image 1 must hold .* not int64; pixels of 0 to 255"),
        (torch.zeros(6, 7, 3, dtype=torch.int32), TypeError, "image 1 must hold .* not int32; pixels of 0 to 255"),
        (np.zeros(6, np.uint8), ValueError, r"image 1 must have the shape \(H, W\), .* it has \(6,\)"),
        (np.zeros((6, 0), np.uint8), ValueError, r"image 1 must .* none of them 0; it has \(6, 0\)"),
        (np.zeros((6, 7, 4), np.uint8), ValueError, "image 1 .* no axis of one or three"),
        (
            PIXELS[0, :5],
            ValueError,
            r"image 1 is of shape \(5, 7, 3\), uint8; expected \(6, 7, 3\), uint8 .*like image 0",
        ),
        (np.zeros((6, 7, 3), np.float32), ValueError, r"image 1 is of shape .* float32; expected .* uint8"),
        (Image.new("RGBA", (7, 6)), ValueError, "image 1 cannot be used: it has transparency"),
    ],
)
def test_what_an_iterable_may_not_hold(tmp_path: Path, image: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        from_iterable(iter([PIXELS[0], image]), tmp_path / "spool.npy")
    assert not os.listdir(tmp_path)


class Numbered(torch.utils.data.Dataset[Any]):
    """A data set of torch that says how long it is, and has no end if it is gone through."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, position: int) -> Any:
        return self.make(position % len(PIXELS))


@pytest.mark.parametrize(
    ("make", "remark"),
    [
        (lambda i: (Image.fromarray(PIXELS[i]), 7), "the first part of each item, (Image, int), was taken"),
        (lambda i: [torch.from_numpy(PIXELS[i]), PIXELS], "the first part of each item, (Tensor, ndarray), was taken"),
        (lambda i: (PIXELS[i],), None),
        (lambda i: PIXELS[i], None),
        (lambda i: {"label": 7, "image": PIXELS[i], "id": i}, "image of each item was taken, beside label, id"),
        (lambda i: {"img": Image.fromarray(PIXELS[i])}, "img of each item was taken"),
    ],
)
def test_of_an_item_of_a_data_set_the_image_is_taken(
    tmp_path: Path, make: Callable[[int], Any], remark: str | None
) -> None:
    source = from_iterable(Numbered(make), tmp_path / "spool.npy")
    check_pixels(source, PIXELS)
    assert source.remarks == (() if remark is None else (remark,))


def test_a_tensor_data_set_and_its_loader(tmp_path: Path) -> None:
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
    dataset = torch.utils.data.TensorDataset(images, torch.arange(5))
    source = from_iterable(dataset, tmp_path / "spool.npy")
    check_pixels(source, images.permute(0, 2, 3, 1).numpy())
    assert source.remarks == ("the first part of each item, (Tensor, Tensor), was taken",)
    message = r"image 0 is a batch, \(2, 3, 6, 7\); give the data set itself, not a loader of batches"
    with pytest.raises(ValueError, match=message):
        from_iterable(torch.utils.data.DataLoader(dataset, batch_size=2), tmp_path / "other.npy")


@pytest.mark.parametrize("images", [PIXELS, torch.zeros(2), Numbered(lambda i: i), [PIXELS[0]], 3, {"a": 1}, ["a", 1]])
def test_images_that_are_no_names_are_told_the_way(images: Any) -> None:
    with pytest.raises(
        TypeError, match=r"opened by their names, texts or paths, not .*; of an array: mf\.images\.scan"
    ):
        open_images(images)
    with pytest.raises(TypeError, match=r"source must be a Source, not .*from_iterable\(images, \"images\.npy\"\)"):
        scan(images)


def test_files_of_other_kinds_are_told_what_to_do(tmp_path: Path) -> None:
    expected = {
        "a.zip": "is an archive; unpack it, and name the folder that comes of it",
        "b.tar.gz": "is an archive; unpack it",
        "data-00000-of-00001.arrow": r"is an Arrow file; .* datasets\.load_from_disk\(FOLDER\)\.to_parquet",
        "c.FEATHER": r"is a Feather file; .*pyarrow\.feather\.read_table",
        "d.tfrecord-00000-of-00002": "is a file of TensorFlow's records; save its images as a .npy file",
        "e.h5": r"is an HDF5 file; .*h5py\.File",
        "f.pkl": "is a pickle, and to unpickle runs whatever code it carries",
        "g.pt": r"is what torch\.save writes; .*torch\.load\(FILE, weights_only=True\)\.numpy",
        "h.pth": r"is what torch\.save writes",
        "i.safetensors": r"is a file of tensors; .*safetensors\.numpy\.load_file",
        "train-images-idx3-ubyte.gz": "is a file of MNIST .* torchvision:MNIST:ROOT reads it",
        "data_batch_1": "is a pickled part of CIFAR-10; torchvision:CIFAR10:ROOT",
    }
    for name, words in expected.items():
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_bytes(b"content")
        with pytest.raises(ValueError, match=f"{re.escape(name)} {words}"):
            open_source(folder / name)
        with pytest.raises(ValueError, match=f"no .parquet files; .* left out. Most are each {words[3:]}"):
            open_source(folder)


def test_what_is_told_of_feather_and_torch_files_works(tmp_path: Path) -> None:
    pyarrow.feather.write_feather(pa.table({"image": [PIXELS[0].tolist()]}), tmp_path / "a.feather")
    pyarrow.parquet.write_table(pyarrow.feather.read_table(tmp_path / "a.feather"), tmp_path / "a.parquet")
    check_pixels(open_source(tmp_path / "a.parquet"), PIXELS[:1])
    torch.save(torch.from_numpy(PIXELS), tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", torch.load(tmp_path / "a.pt", weights_only=True).numpy())
    check_pixels(open_source(tmp_path / "a.npy"), PIXELS)


def test_an_empty_iterable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no images"):
        from_iterable([], tmp_path / "spool.npy")
    assert not os.listdir(tmp_path)


def test_an_image_of_an_iterable_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:1500])
    with (
        Image.open(tmp_path / "a.png") as image,
        pytest.raises(ValueError, match=r"image 0 cannot be used: .*truncated"),
    ):
        from_iterable([image], tmp_path / "spool.npy")


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
    source = open_source(f"torchvision:Dataset:{tmp_path}")
    assert source.names == ("0", "1", "2", "3", "4")
    check_pixels(source, PIXELS)


def test_a_torchvision_data_set_is_opened_where_it_is_read(tmp_path: Path, datasets: types.ModuleType) -> None:
    class Large(Dataset):
        def __init__(self, root: str) -> None:
            super().__init__(root, download=False)
            self.content = bytes(10**6)

    datasets.__dict__["Dataset"] = Large
    source = open_source(f"torchvision:Dataset:{tmp_path}")
    pickled = pickle.dumps(source)
    assert len(pickled) < 2000
    check_pixels(pickle.loads(pickled), PIXELS)


def test_a_torchvision_data_set_is_read_by_one_thread_at_a_time(tmp_path: Path, datasets: types.ModuleType) -> None:
    class Unsafe(Dataset):
        busy = threading.Lock()

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            assert self.busy.acquire(blocking=False)
            time.sleep(0.001)
            self.busy.release()
            return super().__getitem__(index)

    datasets.__dict__["Dataset"] = Unsafe
    source = open_source(f"torchvision:Dataset:{tmp_path}")
    with ThreadPoolExecutor(4) as executor:
        assert len(list(executor.map(source.read, [0, 1, 2, 3, 4] * 4))) == 20


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (torch.zeros(3, 6, 7), "^it is a Tensor, no Pillow image$"),
        (Image.new("RGBA", (7, 6)), "^it has transparency"),
        (OSError("image file is truncated"), "^torchvision cannot read it: image file is truncated$"),
    ],
)
def test_torchvision_items_that_cannot_be_used_say_so(
    tmp_path: Path, datasets: types.ModuleType, item: Any, message: str
) -> None:
    class Odd(Dataset):
        def __getitem__(self, index: int) -> tuple[Any, int]:
            if isinstance(item, Exception):
                raise item
            return item, 0

    datasets.__dict__["Dataset"] = Odd
    source = open_source(f"torchvision:Dataset:{tmp_path}")
    with pytest.raises(ValueError, match=message):
        source.read(0)


@pytest.mark.usefixtures("datasets")
def test_a_pipe_among_the_files_of_a_torchvision_data_set_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data")
    with pytest.raises(ValueError, match=r"data is no regular file$"):
        open_source(f"torchvision:Dataset:{tmp_path}")


def test_a_file_of_a_torchvision_data_set_that_becomes_a_pipe_is_not_waited_for(
    tmp_path: Path, datasets: types.ModuleType
) -> None:
    class Folder(Dataset):
        def __init__(self, root: str) -> None:
            super().__init__(root, download=False)
            self.samples = [(f"{root}/{index}", 0) for index in range(len(PIXELS))]

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            Path(self.samples[index][0]).read_bytes()
            return super().__getitem__(index)

    datasets.__dict__["Dataset"] = Folder
    for index in range(len(PIXELS)):
        (tmp_path / f"{index}").touch()
    source = open_source(f"torchvision:Dataset:{tmp_path}")
    check_pixels(source, PIXELS)
    (tmp_path / "3").unlink()
    os.mkfifo(tmp_path / "3")
    with pytest.raises(ValueError, match="torchvision cannot read it: it is a named pipe, no regular file"):
        source.read(3)


def test_splits_that_torchvision_takes_for_classes_are_refused(tmp_path: Path, datasets: types.ModuleType) -> None:
    datasets.__dict__["Dataset"] = type("Split", (Dataset,), {"classes": ["test", "train"]})
    with pytest.raises(ValueError, match="holds several splits, test and train, as if they were classes"):
        open_source(f"torchvision:Dataset:{tmp_path}")
    datasets.__dict__["Dataset"] = type("Vehicles", (Dataset,), {"classes": ["bus", "train"]})
    assert len(open_source(f"torchvision:Dataset:{tmp_path}")) == len(PIXELS)


def test_the_real_torchvision(tmp_path: Path) -> None:
    try:
        import torchvision.datasets  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    save_folder(tmp_path / "some class")
    source = open_source(f"torchvision:ImageFolder:{tmp_path}")
    check_pixels(source, PIXELS[[0, 4, 3, 1, 2]])
    with pytest.raises(ValueError, match="cannot open CIFAR10"):
        open_source(f"torchvision:CIFAR10:{tmp_path}")


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"the folder .*empty holds no image files .* and no \.parquet files"):
        open_source(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"a\.txt is neither a folder of images nor a \.npy, \.npz or \.parquet file"):
        open_source(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*absent"):
        open_source(tmp_path / "absent")
    with pytest.raises(ValueError, match="must be named"):
        open_source("")


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
        open_source(source.format(tmp_path))


def test_a_torchvision_data_set_without_images_is_refused(tmp_path: Path, datasets: types.ModuleType) -> None:
    datasets.__dict__["Dataset"] = type("Empty", (Dataset,), {"__len__": lambda _: 0})
    with pytest.raises(ValueError, match=r"torchvision:Dataset:.* holds no images"):
        open_source(f"torchvision:Dataset:{tmp_path}")


def test_without_torchvision_the_message_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ValueError, match="needs torchvision"):
        open_source(f"torchvision:CIFAR10:{tmp_path}")


def test_the_folder_of_an_audit_beside_the_images_is_passed_over(tmp_path: Path) -> None:
    save_folder(tmp_path)
    before = open_source(str(tmp_path)).names
    (tmp_path / "run" / "records").mkdir(parents=True)
    (tmp_path / "run" / "audit.json").write_text("{}")
    Image.fromarray(PIXELS[0]).save(tmp_path / "run" / "records" / "picture.png")
    assert open_source(str(tmp_path)).names == before
