"""Audits that are killed: what comes of them in the end is, byte for byte, what an undisturbed one gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from memrecon_fast.audit.store.records import RECORDS
from tests.helpers.auditing import contents
from tests.helpers.memorised import Memorised

IMAGES = 1000
KILLS = 20
WITHOUT_SESSIONS = ("summary.json", "report.html")
ROOT = Path(__file__).parents[2]


def many_images(memorised: Memorised, count: int) -> np.ndarray:
    """uint8 (count, 3, 8, 8): the members, the controls, and ever more of them with noise."""
    known = torch.cat([memorised.members, memorised.controls]).numpy()
    images: np.ndarray = np.resize(known, (count, *known.shape[1:]))
    images[len(known) :] += np.random.default_rng(0).normal(0, 0.02, images[len(known) :].shape)
    pixels: np.ndarray = (images.clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


@pytest.fixture(scope="module")
def data(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "images.npy", many_images(memorised, IMAGES))
    save_file(memorised.autoencoder.state_dict(), folder / "weights.safetensors")
    return folder


def arguments(data: Path, out: Path) -> list[str]:
    given = [
        "audit", "tests.helpers.memorised:make_autoencoder", data / "images.npy", "--weights",
        data / "weights.safetensors", "--out", out, "--mask", "center", "--method", "paper", "--method", "accelerated",
        "--max-outer-iterations", 20, "--keep-images", 3, "--save-every", 0.05, "--device", "cpu",
    ]  # fmt: skip
    return list(map(str, given))


def results(run: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(run).items() if name not in WITHOUT_SESSIONS}


def test_an_audit_killed_twenty_times_gives_the_files_of_an_undisturbed_one(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.killing", str(KILLS), *arguments(data, tmp_path / "run")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert f"after {KILLS} kills: exit code 0" in ended.stdout, ended.stdout + ended.stderr
    whole, killed = results(tmp_path / "run"), results(tmp_path / "run-killed")
    assert len([name for name in whole if name.startswith(RECORDS)]) == 2
    assert whole == killed
