from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import memrecon_fast as mf
from memrecon_fast.audit.store.records import Cell
from memrecon_fast.cli import app, main
from memrecon_fast.cli.demo import run_demo
from tests.helpers.made_run import make_run
from tests.helpers.memorised import Memorised


def memrecon(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


Inside = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """The command as `main` runs it, in `tmp_path`, but in this process: without seconds of imports each time."""

    def command(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = ["memrecon", *map(str, arguments)]
        stdout, stderr = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                main()
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "").parent == tmp_path:
                del sys.modules[name]  # the next command is to import it afresh
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())

    return command


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "memrecon_fast.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload,no-any-return]


def one_line(stderr: str) -> str:
    assert stderr.count("\n") == 1, stderr
    assert stderr.startswith("memrecon: ")
    return stderr


@pytest.fixture(scope="module")
def data(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with members/, controls.npy, and model.safetensors, which the command trained."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "members").mkdir()
    for index, image in enumerate(memorised.members):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "members" / f"{index:02d}.png")
    np.save(folder / "controls.npy", memorised.controls.numpy())
    result = memrecon(
        "train", folder / "members", "--out", folder / "model.safetensors", "--width", 160, "--learning-rate", 2e-3,
        "--target-loss", 1e-6, "--max-steps", 3000, "--seed", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "reached the target loss" in result.stdout
    return folder


def test_audit_and_report(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = process(
        "audit", data / "model.safetensors", data / "members", "--controls", data / "controls.npy", "--out", run,
        "--mask", "center", "--mask", "stripes", "--max-outer-iterations", 30,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert str(run / "report.html") in result.stdout
    assert "accelerated" in result.stdout
    rows = json.loads((run / "summary.json").read_text())["rows"]
    assert {(row["mask"], row["method"], row["split"]) for row in rows} == {
        (mask, method, split)
        for mask in ("center", "stripes")
        for method in ("accelerated", "iterate")
        for split in ("members", "controls")
    }
    for row in rows:
        if row["split"] == "controls":
            assert row["approximate_rate"] == 0
        if row["method"] != "iterate":
            assert row["agreement"] == 1
    (run / "report.html").unlink()
    (run / "summary.json").unlink()
    again = memrecon("report", run)
    assert again.exit_code == 0, again.output
    assert json.loads((run / "summary.json").read_text())["rows"] == rows
    assert "<!DOCTYPE html>" in (run / "report.html").read_text()


def test_options_reach_the_audit(data: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.eye(8, dtype=bool))
    result = memrecon(
        "audit", data / "model.safetensors", data / "members", "--out", tmp_path / "run", "--limit", 3, "--mask",
        tmp_path / "mine.npy", "--method", "paper", "--gamma", 0.25, "--noise-std", 0.02, "--seed", 9, "--slots", 2,
        "--backend", "torch", "--initial-mask", "zeros", "--max-outer-iterations", 2, "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    expected = mf.Settings(gamma=0.25, seed=9, initial_mask="zeros", max_outer_iterations=2, restore_known_pixels=False)
    assert mf.Settings.from_dict(summary["settings"]) == expected
    assert summary["noise_std"] == 0.02
    assert summary["sessions"][0]["execution"] == {"paper": "torch, eager, 2 slots"}
    assert summary["images"] == {"members": 3}
    assert [row["mask"] for row in summary["rows"]] == ["mine.npy"]


def test_several_gammas_and_starts_reach_the_audit_and_its_continuation(data: Path, tmp_path: Path) -> None:
    def audit(*gammas: float) -> Result:
        options = [part for gamma in gammas for part in ("--gamma", gamma)]
        return memrecon(
            "audit", data / "model.safetensors", data / "members", "--out", tmp_path / "run", "--limit", 3, "--mask",
            "corner", "--method", "accelerated", "--starts", 2, "--backend", "torch", "--max-outer-iterations", 2,
            "--device", "cpu", *options,
        )  # fmt: skip

    assert audit(0.3, 1).exit_code == 0
    settings = json.loads((tmp_path / "run" / "summary.json").read_text())["settings"]
    assert mf.Settings.from_dict(settings) == mf.Settings(gamma=(0.3, 1), starts=2, max_outer_iterations=2)
    assert set(pq.read_table(tmp_path / "run" / "records")["attempts"].to_pylist()) == {4}
    again = audit(0.3, 1)
    assert again.exit_code == 0
    assert "3 of 3 recoveries were done before" in again.stdout
    for gammas, said in (((0.3,), "0.3"), ((), "none")):
        assert f"gamma ([0.3, 1.0] then, {said} now)" in one_line(audit(*gammas).stderr)


def degraded_copies(data: Path, folder: Path, noise_std: float) -> tuple[Path, Path]:
    """Of the members and controls of `data`, noisy ones under the mask `random-50`; the mask is in `mask.npy`."""
    mask = mf.degradation.make_mask("random-50", (3, 8, 8))
    np.save(folder / "mask.npy", mask.numpy())
    members = [np.asarray(Image.open(path)) for path in sorted((data / "members").iterdir())]
    images = torch.from_numpy(np.stack(members)).permute(0, 3, 1, 2).float() / 255
    controls = torch.from_numpy(np.load(data / "controls.npy"))
    for name, originals in (("given", images), ("others", controls)):
        np.save(folder / f"{name}.npy", mf.degradation.erase(originals, mask, noise_std).numpy())
    return folder / "given.npy", folder / "others.npy"


@pytest.mark.parametrize(("known", "noise_std"), [(False, 0.002), (True, 0.002), (False, 0.02)])
def test_degraded_images_are_audited_without_their_originals(
    data: Path, tmp_path: Path, inside: Inside, known: bool, noise_std: float
) -> None:
    given, others = degraded_copies(data, tmp_path, noise_std)
    assert np.load(given).min() < 0  # noise leaves [0, 1]
    result = inside(
        "audit", data / "model.safetensors", given, "--controls", others, "--degraded", "--out", tmp_path / "run",
        *(["--mask", tmp_path / "mask.npy"] if known else []),
        *(["--noise-std", noise_std] if noise_std > 0.01 else []),  # less is not worth a word
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Originals unknown" in result.stdout
    assert "≤ 17.1%" in result.stdout  # 16 controls
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["methods"] == ["known-mask" if known else "accelerated"]
    (members, controls) = summary["rows"]
    assert members["recognized_rate"] >= 0.8
    assert controls["recognized_rate"] == 0
    assert "originals are unknown" in (tmp_path / "run" / "report.html").read_text()
    assert pq.read_table(tmp_path / "run" / "records")["mse"].null_count == 32
    again = memrecon("report", tmp_path / "run")
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_a_fall_back_to_torch_is_remarked_on_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memrecon_fast.ops._why_no_cpp", lambda: "no compiler was there")
    result = memrecon(
        "audit", data / "model.safetensors", data / "members", "--out", tmp_path / "run", "--limit", 2,
        "--method", "paper", "--method", "known-mask", "--max-outer-iterations", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no compiler was there" in one_line(result.stderr)
    (session,) = json.loads((tmp_path / "run" / "summary.json").read_text())["sessions"]
    assert session["execution"]["paper"].startswith("torch, ")


def test_a_factory_with_weights(data: Path, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "mymodels.py").write_text(
        "from memrecon_fast.autoencoders import build\ndef make():\n    return build('fc-10', (3, 8, 8), width=160)\n"
    )
    result = inside(
        "audit", "mymodels:make", data / "members", "--weights", data / "model.safetensors", "--out", "run",
        "--mask", "center", "--method", "known-mask",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]
    assert row["approximate_rate"] > 0.5


def test_a_model_of_other_pixels_is_said_and_the_option_that_the_audit_names_is_right(
    data: Path, tmp_path: Path, inside: Inside
) -> None:
    (tmp_path / "theirs.py").write_text(
        "import torch\nfrom memrecon_fast.autoencoders import load\n"
        "class Symmetric(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        f"        self.trained = load({str(data / 'model.safetensors')!r})\n"
        "    def forward(self, x):\n        return 2 * self.trained((x + 1) / 2) - 1\n"
    )
    command = (
        "audit", "theirs:Symmetric", data / "members", "--controls", data / "controls.npy", "--mask", "center",
        "--method", "known-mask",
    )  # fmt: skip
    wrong = inside(*command, "--out", "wrong")
    assert wrong.returncode == 0
    assert "memrecon: The model does not reconstruct the members" in one_line(wrong.stderr)
    assert "With --pixel-range -1,1 the error falls to" in wrong.stderr
    assert " ".join(wrong.stdout.split()).startswith("The model does not reconstruct the members")
    report = " ".join((tmp_path / "wrong" / "report.html").read_text().split())
    assert report.index("does not reconstruct the members") < report.index("None of 16 training images")
    errors = json.loads((tmp_path / "wrong" / "summary.json").read_text())["reconstruction_error"]
    assert errors["members"]["above"] == errors["members"]["images"] == 16

    right = inside(*command, "--pixel-range", "-1,1", "--out", "right")
    assert (right.returncode, right.stderr) == (0, "")
    summary = json.loads((tmp_path / "right" / "summary.json").read_text())
    assert summary["reconstruction_error"]["members"]["mean"] < 1e-5
    assert summary["reconstruction_error"]["hint"] is None
    rate = {row["split"]: row["approximate_rate"] for row in summary["rows"]}
    assert rate["members"] > 0.5
    assert rate["controls"] == 0

    other = inside(*command, "--pixel-range", "0,255", "--out", "right")
    assert other.returncode == 2
    assert "holds another audit" in one_line(other.stderr)


def test_training_can_be_resumed(data: Path, tmp_path: Path) -> None:
    def train(out: str, *more: object) -> Result:
        return memrecon("train", data / "members", "--out", tmp_path / out, "--width", 16, "--max-steps", 20, *more)

    assert train("whole.safetensors").exit_code == 0
    part = train("part.safetensors", "--checkpoints", tmp_path / "state")
    assert "did not reach" in part.stdout
    assert "more --max-steps" in one_line(part.stderr)
    result = train("rest.safetensors", "--checkpoints", tmp_path / "state", "--resume")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "rest.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def damaged_folder(folder: Path) -> Path:
    bad = folder / "bad"
    bad.mkdir()
    (bad / "<b>.png").write_bytes(b"no image")
    return bad


def mostly_odd(folder: Path) -> Path:
    odd = folder / "odd"
    odd.mkdir()
    for name, width in (("a", 9), ("b", 8), ("c", 9)):
        Image.new("RGB", (width, 8)).save(odd / f"{name}.png")
    return odd


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "array.npy", array)
    return folder / "array.npy"


def not_a_number(folder: Path) -> Path:
    return saved(folder, np.full((2, 3, 8, 8), np.nan, np.float32))


def pickled(folder: Path) -> Path:
    (folder / "model.pt").write_bytes(b"\x80\x04.")
    return folder / "model.pt"


def other_shape(folder: Path) -> Path:
    return saved(folder, np.zeros((2, 3, 9, 9), np.uint8))


def occupied(folder: Path) -> Path:
    (folder / "run").mkdir()
    (folder / "run" / "thesis.txt").touch()
    return folder / "run"


NO_VALUE = object()
"""Of an option that is a switch."""


def with_ray(message: str) -> str:
    """What is said where Ray is installed; where it is not, that it is needed."""
    return message if importlib.util.find_spec("ray") else "need Ray: pip install"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": lambda _: "absent.safetensors"}, "absent.safetensors"),
        ({"model": pickled}, "model.pt is refused: "),
        ({"model": lambda _: "nomodule:make"}, "nomodule"),
        ({"--weights": lambda folder: folder / "w.safetensors"}, "weights are for a factory"),
        ({"images": lambda _: "absent"}, "no file or folder absent"),
        ({"images": lambda folder: folder}, "holds no image files"),
        ({"images": damaged_folder}, "<b>.png"),
        ({"images": not_a_number}, "none of the 2 images can be used; 0: it has a pixel of nan"),
        ({"images": other_shape}, "0: it is 9×9 pixels (height×width); expected 8×8, as the model (--resize 8x8"),
        ({"images": mostly_odd}, "2 of 3 members cannot be used, for instance a.png: it is 8×9 pixels"),
        ({"--resize": lambda _: "8"}, "--resize must be HEIGHTxWIDTH, for instance 64x64, not '8'"),
        ({"--keep-images": lambda _: "some"}, "--keep-images must be all or a number of images, not 'some'"),
        ({"--resume": lambda _: NO_VALUE}, "there is no run to continue in"),
        ({"--parts": lambda _: "nowhere://bucket"}, "nowhere://bucket/"),
        ({"--parts": lambda folder: saved(folder, np.zeros(1)) / "parts"}, "no part files can be written in"),
        (
            {"--workers": lambda _: 2, "--device": lambda _: "cuda:0"},
            with_ray("Ray gives each its GPU"),
        ),
        ({"--ray": lambda _: "127.0.0.1:1"}, with_ray("the Ray cluster at 127.0.0.1:1 cannot be reached")),
        ({"--device": lambda _: "cuda:99"}, "--device cuda:99 is not there: torch finds"),
        ({"--device": lambda _: "tpu"}, "--device must be auto, cpu, cuda or cuda:N, not 'tpu'"),
        (
            {"--precision": lambda _: "half"},
            "precision must be one of 'float32', 'float32x3', 'tf32', 'bfloat16', 'progressive'",
        ),
        ({"--precision": lambda _: "tf32", "--device": lambda _: "cpu"}, "'tf32' is a format of NVIDIA GPUs"),
        ({"images": lambda folder: saved(folder, np.zeros((2, 3, 8, 8), np.int64))}, "int64"),
        ({"--controls": other_shape}, "the controls: none of the 2 images can be used"),
        ({"images": lambda _: ""}, "its name is empty"),
        ({"--controls": lambda _: ""}, "its name is empty"),
        ({"--mask": lambda _: "centre"}, "mask must be one of"),
        ({"--mask": lambda _: "absent.png"}, "no mask file absent.png"),
        ({"--method": lambda _: "magic"}, "method must be one of"),
        ({"--degraded": lambda _: NO_VALUE, "--method": lambda _: "iterate"}, "cannot do --method iterate; expected"),
        ({"--degraded": lambda _: NO_VALUE, "--method": lambda _: "known-mask"}, "without the known --mask cannot do"),
        (
            {"--degraded": lambda _: NO_VALUE, "--mask": lambda _: "half", "--method": lambda _: "paper"},
            "with the known --mask cannot do --method paper; expected known-mask",
        ),
        ({"--degraded": lambda _: NO_VALUE, "--resize": lambda _: "8x8"}, "images as they are, without --resize"),
        ({"--degraded": lambda _: NO_VALUE, "images": not_a_number}, "it has a pixel of nan"),
        ({"--starts": lambda _: 0}, "starts must be"),
        ({"--gamma": lambda _: 0}, "gamma must be"),
        ({"--gamma": lambda _: "nan"}, "gamma must be"),
        ({"--noise-std": lambda _: -1}, "noise_std must be"),
        ({"--noise-std": lambda _: "1e39"}, "noise_std must be at most 1"),
        ({"--seed": lambda _: -1}, "seed must be"),
        ({"--slots": lambda _: 0}, "slots must be"),
        ({"--backend": lambda _: "abacus"}, "backend must be one of"),
        ({"--backend": lambda _: "triton"}, "not available"),
        ({"--initial-mask": lambda _: "ones"}, "initial_mask must be one of"),
        ({"--max-outer-iterations": lambda _: 0}, "max_outer_iterations must be"),
        ({"--out": occupied}, "run is not empty"),
        ({"--out": lambda folder: saved(folder, np.zeros(1))}, "is a file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_before_work_starts(
    data: Path, tmp_path: Path, changes: dict[str, Callable[[Path], object]], message: str
) -> None:
    good = {"model": data / "model.safetensors", "images": data / "members", "--out": tmp_path / "out"}
    given = good | {name: make(tmp_path) for name, make in changes.items()}
    options = [
        part for name, value in given.items() if name.startswith("--") for part in (name, value) if part is not NO_VALUE
    ]
    result = memrecon("audit", given["model"], given["images"], *options)
    assert result.exit_code == 2, result.output
    assert message in one_line(result.stderr)
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "model.pt"], "--out must be a .safetensors file"),
        (["--out", "absent/model.safetensors"], "--out must be a .safetensors file in a folder that exists"),
        (["--out", "/proc/model.safetensors"], "no file can be written in /proc"),
        (["--out", "m.safetensors", "--architecture", "vae"], "architecture must be one of"),
        (["--out", "m.safetensors", "--activation", "sine"], "activation must be one of"),
        (["--out", "m.safetensors", "--target-loss", "0"], "target_loss must be"),
        (["--out", "m.safetensors", "--resume"], "resume needs"),
        (["--out", "m.safetensors", "--resume", "--checkpoints", "absent"], "no training to resume"),
    ],
)
def test_bad_input_to_train(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = memrecon("train", data / "members", *arguments)
    assert result.exit_code == 2, result.output
    assert message in one_line(result.stderr)
    assert not list(tmp_path.iterdir())


def test_a_model_is_not_trained_for_a_place_that_is_a_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memrecon_fast.autoencoders.train", lambda *_, **__: pytest.fail("it was trained"))
    (tmp_path / "model.safetensors").mkdir()
    result = memrecon("train", data / "members", "--out", tmp_path / "model.safetensors")
    assert result.exit_code == 2
    assert "model.safetensors is a folder" in one_line(result.stderr)


FAILING = """
import torch
calls = 0
class Failing(torch.nn.Module):
    def forward(self, images):
        global calls
        calls += 1
        if calls > 60:
            raise RuntimeError("the device is lost\\nand more lines")
        return images
make = lambda: Failing().eval()
"""


@pytest.mark.parametrize("traceback", ["0", "1"])
def test_a_model_that_fails_half_way_is_named_and_the_records_kept(
    data: Path, tmp_path: Path, inside: Inside, traceback: str
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    arguments = [
        "audit", "failing:make", data / "members", "--out", "run", "--mask", "half", "--mask", "center",
        "--method", "known-mask", "--slots", 16,
    ]  # fmt: skip
    if traceback == "1":  # which is Python's own, as it ends
        result = process(*arguments, cwd=tmp_path, env=os.environ | {"MEMRECON_TRACEBACK": traceback})
    else:
        result = inside(*arguments)
    assert result.returncode == 1
    line, *rest = result.stderr.splitlines()
    assert line.startswith("memrecon: the model failing:make failed: RuntimeError: the device is lost; ")
    assert line.endswith("and once it takes these images the same command goes on from there")
    assert bool(rest) == (traceback == "1")
    assert pq.read_table(tmp_path / "run" / "records").num_rows == 16


def test_what_is_no_run_has_no_report(tmp_path: Path) -> None:
    result = memrecon("report", tmp_path)
    assert result.exit_code == 2
    assert "is not the folder of a run" in one_line(result.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit"], "Missing argument"),
        (["audit", "m", "i", "--out", "r", "--gamma", "big"], "Invalid value for '--gamma'"),
        (["audit", "m", "i", "--out", "r", "--gama", "1"], "No such option"),
        (["auditt"], "No such command"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line_too(inside: Inside, arguments: list[str], message: str) -> None:
    result = inside(*arguments)
    assert result.returncode == 2
    assert message in one_line(result.stderr)
    assert result.stdout == ""


def test_help_and_version(inside: Inside) -> None:
    for command in ([], ["--help"], ["audit", "--help"]):
        result = inside(*command)
        assert result.returncode == 0
        assert "Usage: memrecon" in result.stdout
    assert inside("--version").stdout == process("--version").stdout == f"memrecon_fast {mf.__version__}\n"


SLOW = """
import time, torch
class Slow(torch.nn.Module):
    def forward(self, images):
        time.sleep(0.01)
        return 0.5 * images
make = lambda: Slow().eval()
"""


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_the_records_and_says_how_to_go_on(data: Path, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    run = tmp_path / "run"
    arguments = [
        "audit", "slow:make", data / "members", "--out", run, "--method", "known-mask", "--mask", "corner", "--mask",
        "half", "--slots", 4, "--save-every", 0,
    ]  # fmt: skip
    command = [sys.executable, "-m", "memrecon_fast.cli", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        deadline = time.monotonic() + 60
        while not list(run.glob("records/*/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    line = one_line(stderr.splitlines(keepends=True)[-1])  # the first says that the model does not reconstruct them
    assert "interrupted; what was done is in" in line
    assert "the same command goes on from there" in line
    assert f"memrecon report {run}" in line
    result = memrecon("report", run)
    assert result.exit_code == 0, result.output
    assert "ended early" in (run / "report.html").read_text()
    done = sum(row["images"] for row in json.loads((run / "summary.json").read_text())["rows"])
    assert 0 < done < 32
    again = inside(*arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert f"{done} of 32 recoveries were done before" in again.stdout
    assert "ended early" not in (run / "report.html").read_text()
    once_more = inside(*arguments)
    assert once_more.returncode == 0
    assert "32 of 32 recoveries were done before" in once_more.stdout


def arguments_of_a_short_audit(data: Path, run: Path, **changes: object) -> list[object]:
    options: dict[str, object] = {"out": run, "mask": "half", "method": "known-mask", "device": "cpu", **changes}
    named = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    return ["audit", data / "model.safetensors", data / "members", *named]


def test_a_run_that_differs_is_not_continued_and_the_message_says_in_what(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert memrecon(*arguments_of_a_short_audit(data, run)).exit_code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = memrecon(*arguments_of_a_short_audit(data, run, gamma=0.25, seed=7, limit=3))
    assert result.exit_code == 2
    line = one_line(result.stderr)
    begun = "it can be continued only as it was begun, and another one needs another folder"
    assert f"{run} holds another audit; {begun}. What differs:" in line
    assert "the members" in line
    assert "gamma (none then, 0.25 now)" in line
    assert "seed (42 then, 7 now)" in line
    assert "gone among the members: 03.png, 04.png, 05.png and 10 more" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_is_left_out_of_a_folder_is_said_and_kept(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data / "members", tmp_path / "images")
    for name in ("a.heic", "b.heic", "notes.txt"):
        (folder / name).write_bytes(b"...")
    (folder / "gone").symlink_to("nowhere")
    arguments = arguments_of_a_short_audit(data, tmp_path / "run")
    result = memrecon(*[folder if one == data / "members" else one for one in arguments])
    assert result.exit_code == 0, result.output
    remark = "2 .heic files that cannot be read here, 1 link that leads nowhere and 1 .txt file are left out"
    assert f"memrecon: the members: {remark}\n" in result.stderr
    assert json.loads((tmp_path / "run" / "audit.json").read_text())["remarks"] == {"members": [remark]}


def test_splits_are_refused_together_and_taken_by_name(data: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(data / "members", tmp_path / "images" / split)
    arguments = arguments_of_a_short_audit(data, tmp_path / "run")
    named = [tmp_path / "images" if one == data / "members" else one for one in arguments]
    result = memrecon(*named)
    assert result.exit_code == 2
    assert "images holds several splits: 16 files in train, 16 in test" in one_line(result.stderr)
    assert f"for instance {tmp_path}/images/train" in result.stderr
    named = [f"{tmp_path}/images/train/*.png" if one == data / "members" else one for one in arguments]
    result = memrecon(*named, "--controls", tmp_path / "images" / "test", "--controls", data / "controls.npy")
    assert result.exit_code == 0, result.output
    description = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert description["counts"]["members"] == {"images": 16, "unusable": 0}
    assert description["counts"]["controls"]["images"] > 16


def test_images_that_cannot_be_used_are_left_out_and_named(data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data / "members", tmp_path / "images")
    (folder / "00.png").write_bytes((folder / "00.png").read_bytes()[:60])
    Image.new("RGB", (9, 8)).save(folder / "odd.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(folder / "seen through.png")
    result = memrecon(
        "audit", data / "model.safetensors", folder, "--out", tmp_path / "run", "--mask", "half", "--method",
        "known-mask",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "3 of 18 members cannot be used and are left out, for instance 00.png: it " in one_line(result.stderr)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["images"] == {"members": 15}
    assert [one["name"] for one in summary["unusable"]["members"]["first"]] == ["00.png", "odd.png", "seen through.png"]
    assert summary["rows"][0]["images"] == 15
    report = (tmp_path / "run" / "report.html").read_text()
    assert "seen through.png" in report
    resized = memrecon(
        "audit", data / "model.safetensors", folder, "--out", tmp_path / "resized", "--mask", "half", "--method",
        "known-mask", "--resize", "8x8",
    )  # fmt: skip
    assert "2 of 18 members cannot be used" in resized.stderr


def test_two_runs_in_one_folder(data: Path, tmp_path: Path) -> None:
    from memrecon_fast.audit.store.folder import locked

    run = tmp_path / "run"
    assert memrecon(*arguments_of_a_short_audit(data, run)).exit_code == 0
    with locked(run):
        result = memrecon(*arguments_of_a_short_audit(data, run))
    assert result.exit_code == 2
    assert f"another audit is at work in {run}; wait for it, or give another folder" in one_line(result.stderr)


def test_a_damaged_part_file_is_remarked_on_and_done_again(data: Path, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    arguments = [
        "audit", "failing:make", data / "members", "--out", "run", "--mask", "half", "--mask", "center",
        "--method", "known-mask", "--slots", 16,
    ]  # fmt: skip
    assert inside(*arguments).returncode == 1
    (part,) = tmp_path.glob("run/records/*/*.parquet")
    part.write_bytes(part.read_bytes()[:-7])
    again = inside(*arguments)
    first, *_ = again.stderr.splitlines()
    assert part.name in first
    assert first.endswith("what it held is done again")
    assert "were done before" not in again.stdout


def test_a_full_disk_ends_the_audit_and_costs_nothing_that_was_written(data: Path, tmp_path: Path) -> None:
    """The kernel refuses files beyond a size: larger ones than part files of few images without pictures, smaller
    than the estimates of all."""
    run = tmp_path / "run"
    arguments = arguments_of_a_short_audit(data, run, keep_images="all", save_every=0, slots=4)
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); from memrecon_fast.cli import main; main()"
    command = [sys.executable, "-c", limit, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1, ended.stderr
    assert "File too large" in one_line(ended.stderr)
    again = memrecon(*arguments)
    assert again.exit_code == 0, again.output
    assert pq.read_table(run / "records").num_rows == 16


HUNGRY = """
import torch
class Hungry(torch.nn.Module):
    def forward(self, images):
        if len(images) > 16:
            raise torch.OutOfMemoryError("there is no memory for that many")
        return 0.5 * images
make = lambda: Hungry().eval()
"""


@pytest.mark.filterwarnings("default:memory ran out:RuntimeWarning")
def test_when_memory_runs_out_fewer_images_are_worked_on_at_a_time(data: Path, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "hungry.py").write_text(HUNGRY)
    result = inside(
        "audit", "hungry:make", data / "members", "--out", "run", "--mask", "half", "--mask", "center", "--mask",
        "corner", "--mask", "stripes", "--method", "iterate", "--slots", 64,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "memory ran out with 64 slots; going on with 32" in result.stdout
    assert "memory ran out with 32 slots; going on with 16" in result.stdout
    assert pq.read_table(tmp_path / "run" / "records").num_rows == 64


def test_more_slots_than_recoveries(data: Path, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "hungry.py").write_text(HUNGRY.replace("> 16", "> 999"))
    result = inside(
        "audit", "hungry:make", data / "members", "--out", "run", "--mask", "half", "--method", "iterate",
        "--slots", 10**9,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    execution = json.loads((tmp_path / "run" / "audit.json").read_text())["sessions"][0]["execution"]
    assert execution["iterate"].endswith("16 slots")


def test_images_that_memory_has_no_room_for_are_refused_before_the_work(
    data: Path, tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hungry.py").write_text(HUNGRY)
    monkeypatch.setattr("memrecon_fast.engine.memory.free_memory", lambda device: 10**5)
    result = inside("audit", "hungry:make", data / "members", "--out", "run", "--slots", 12)
    assert result.returncode == 2
    line = one_line(result.stderr)
    assert "slots=12 for images of shape (3, 8, 8) take at least" in line
    assert "of memory, and 100 kB are free: at most" in line
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_too_large_from_the_beginning(data: Path, tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "hungry.py").write_text(HUNGRY.replace("> 16", "> 0"))
    result = inside("audit", "hungry:make", data / "members", "--out", "run")
    assert result.returncode == 2
    assert "memory ran out before the work could begin: there is no memory for that many" in one_line(result.stderr)


def test_workers_from_the_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(data)  # relative paths, which workers must find as well
    for name, workers in (("alone", []), ("workers", ["--workers", "1"])):
        arguments = [
            "audit", data / "model.safetensors", "members", "--controls", "controls.npy", "--out", tmp_path / name,
            "--mask", "half", "--method", "paper", "--max-outer-iterations", 9, *workers,
        ]  # fmt: skip
        result = memrecon(*arguments)
        assert result.exit_code == 0, result.output
    alone, by_workers = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "records").iterdir()}
        for name in ("alone", "workers")
    )
    assert len(alone) == 2
    assert alone == by_workers


def test_without_the_extras_the_message_names_them(tmp_path: Path) -> None:
    for missing, arguments in (("typer", ["--help"]), ("pyarrow", ["report", str(tmp_path)])):
        hide = tmp_path / missing
        hide.mkdir()
        (hide / "sitecustomize.py").write_text(
            "from importlib.machinery import PathFinder\n"
            "find = PathFinder.find_spec\n"
            "def hide(name, path=None, target=None):\n"
            f"    return None if name.split('.')[0] == {missing!r} else find(name, path, target)\n"
            "PathFinder.find_spec = hide\n"
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(hide), os.environ.get("PYTHONPATH", "")])}
        result = process(*arguments, env=environment)
        assert result.returncode == 2
        assert missing in one_line(result.stderr)
        assert "pip install 'memrecon-fast[audit]'" in result.stderr


def test_the_demonstration_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    path = run_demo(tmp_path, Console(), images=6, max_steps=600)
    assert path == tmp_path / "run" / "report.html"
    shown = capsys.readouterr().out
    assert "Training an autoencoder" in shown
    assert "came out of nothing, with no degraded copy and no original" in " ".join(shown.split())
    harvest = json.loads((tmp_path / "attractors" / "summary.json").read_text())["harvest"]
    assert harvest["found"]["members"] >= 4
    assert harvest["found"]["controls"] == 0
    assert (tmp_path / "attractors" / "report.html").exists()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(summary["rows"]) == 6 * 3 * 2
    assert summary["images"] == {"members": 6, "controls": 6}
    rates = {(row["split"], row["mask"], row["method"]): row["approximate_rate"] for row in summary["rows"]}
    for method in ("accelerated", "paper"):
        ahead = [rates["members", mask, method] - rates["members", mask, "iterate"] for mask in summary["masks"]]
        assert min(ahead) >= 0
        assert sum(ahead) / len(ahead) >= 0.3
    assert not any(rate for (split, _, _), rate in rates.items() if split == "controls")


def test_degraded_images_have_one_mask_at_most(data: Path, tmp_path: Path) -> None:
    result = memrecon(
        "audit", data / "model.safetensors", data / "members", "--out", tmp_path / "run", "--degraded",
        "--mask", "half", "--mask", "center",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "--degraded takes one --mask, the known one, or none" in one_line(result.stderr)


def test_the_demonstration_takes_a_folder_of_its_own(tmp_path: Path) -> None:
    result = memrecon("demo", "--out", occupied(tmp_path))
    assert result.exit_code == 2
    assert "run is not empty" in one_line(result.stderr)


def test_masks_that_erase_nothing_or_that_the_images_contradict_are_refused(
    memorised: Memorised, tmp_path: Path, inside: Inside
) -> None:
    mf.autoencoders.save(mf.autoencoders.FullyConnected((3, 8, 8), 8, 2), tmp_path / "model.safetensors")
    np.save(tmp_path / "whole.npy", memorised.members.clamp(min=0.02).numpy())
    np.save(tmp_path / "mask.npy", mf.degradation.make_mask("center", (3, 8, 8)).numpy())
    np.save(tmp_path / "all.npy", np.ones((3, 8, 8), bool))
    for options, words in (
        (("--mask", "all.npy"), "the mask all.npy keeps everything"),
        (("--degraded", "--mask", "mask.npy"), "16 of 16 members contradict the mask, first 0: 48 of the 48 entries"),
        (("--degraded",), "the members are not degraded: not one entry of an image is 0"),
    ):
        done = inside("audit", "model.safetensors", "whole.npy", "--out", "run", *options)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert words in line


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_encoding_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Help with γ, a table with ≤ and lines, and names in other scripts, with a mask that would steer a terminal."""
    errors = {
        Cell(split, "given", "accelerated"): [1e-8, 1e-2] if split == "members" else [1e-2, 1e-2]
        for split in ("members", "controls")
    }
    make_run(tmp_path / "läuft 記\x1b[31m", errors, degraded=True, model="模型")
    for arguments, code, words in (
        (["audit", "--help"], 0, "gamma"),
        (["report", str(tmp_path / "läuft 記\x1b[31m")], 0, "<= "),
        (["report", str(tmp_path / "記")], 2, "is not the folder of a run"),
        (["audit", "模型.bin", "記", "--out", "run"], 2, "memrecon: "),
    ):
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["memrecon", *arguments])
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as ended:
                main()
            said = b""
            for stream in streams.values():
                stream.flush()
                said += stream.buffer.getvalue()
        assert (ended.value.code or 0) == code
        assert words in said.decode(encoding, "replace")
        assert b"\x1b[31m" not in said


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--method", "acelerated"], "'accelerated'"),
        (["--mask", "centre"], "'center'"),
        (["--precision", "bfloat"], "'bfloat16'"),
        (["--initial-mask", "zero"], "'zeros'"),
        (["--initialmask", "zeros"], "--initial-mask"),
    ],
)
def test_what_is_misspelt_is_suggested(tmp_path: Path, inside: Inside, arguments: list[str], meant: str) -> None:
    mf.autoencoders.save(mf.autoencoders.FullyConnected((3, 8, 8), 8, 2), tmp_path / "model.safetensors")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((3, 3, 8, 8), np.float32))
    done = inside("audit", "model.safetensors", "images.npy", "--out", "run", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "did you mean" in line.lower() or "possible options" in line.lower()  # as click says it
    assert meant in line


def test_a_misspelt_command_and_backend_are_suggested(tmp_path: Path, inside: Inside) -> None:
    assert "Did you mean 'audit'?" in inside("audti").stderr
    with pytest.raises(ValueError, match=r"not 'trton'; did you mean 'triton'\?"):
        mf.recover(torch.nn.Identity().eval(), torch.zeros(1, 3, 8, 8), backend="trton")
    with pytest.raises(ValueError, match=r"not 'acelerated'; did you mean 'accelerated'\?"):
        mf.Settings(solver="acelerated")
    with pytest.raises(ValueError, match=r"not 'centre'; did you mean 'center'\?"):
        mf.degradation.make_mask("centre", (3, 8, 8))
