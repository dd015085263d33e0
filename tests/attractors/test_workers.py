"""Surveys by worker processes, and surveys that are killed: they come to what one undisturbed process makes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memrecon_fast.attractors import session as sessions
from memrecon_fast.attractors.opened import open_run
from memrecon_fast.attractors.session import run
from memrecon_fast.attractors.survey import plan as plans
from memrecon_fast.attractors.survey import work
from memrecon_fast.attractors.survey.plan import Survey
from memrecon_fast.attractors.survey.table import Table
from memrecon_fast.attractors.survey.work import Crew
from memrecon_fast.audit.cluster import ClusterError
from memrecon_fast.audit.model import open_model
from memrecon_fast.images.scan import open_images
from tests.helpers.memorised import WEIGHTS, Memorised
from tests.helpers.surveying import small_survey, squares, tables_in

ray: Any = pytest.importorskip("ray", reason="Ray is not installed")

MODEL = "tests.helpers.memorised:make_autoencoder"
ROOT = Path(__file__).parents[2]
KILLS = 4


@pytest.fixture(scope="module")
def data(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with members.npy, 80 of them: the same ones again and again."""
    folder = tmp_path_factory.mktemp("data")
    np.save(folder / "members.npy", memorised.members.repeat(5, 1, 1, 1).numpy())
    return folder


def command(data: Path, out: Path) -> list[str]:
    given = [
        "attractors", MODEL, data / "members.npy", "--weights", os.environ[WEIGHTS], "--out", out, "--harvest", 96,
        "--device", "cpu",
    ]  # fmt: skip
    return list(map(str, given))


def test_a_survey_that_is_killed_again_and_again_gives_the_files_of_an_undisturbed_one(
    data: Path, tmp_path: Path
) -> None:
    arguments = [sys.executable, "-m", "tests.helpers.killing", str(KILLS), *command(data, tmp_path / "run")]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert f"after {KILLS} kills: exit code 0" in ended.stdout, ended.stdout + ended.stderr
    whole, killed = tables_in(tmp_path / "run"), tables_in(tmp_path / "run-killed")
    assert {"tables/stability-members.parquet", "tables/starts.parquet", "tables/harvest.parquet"} <= whole.keys()
    assert whole == killed


def test_two_workers_give_the_files_of_one_process(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plans.BLOCK_ROWS, "cpu", 8)  # several blocks of each table
    splits = {"members": open_images(data / "members.npy", limit=16)}
    survey = Survey(splits, harvest=64, curve=20, basins=("missing",))
    model = open_model(MODEL, os.environ[WEIGHTS], "cpu")
    alone = run(survey, model, tmp_path / "alone", progress=False)
    together = run(survey, model, tmp_path / "together", workers=2, progress=False)
    assert tables_in(together.path) == tables_in(alone.path)
    assert together.description["sessions"][0]["workers"] == 2
    assert together.description["sessions"][0].get("doubts") is None


class Deadly:
    """Rows of a block; the process that computes block 1 dies, as often as there is no file of its death."""

    def __init__(self, notes: Path, times: int) -> None:
        self.notes, self.times = notes, times

    def __call__(self, _: object, indices: Any) -> dict[str, Any]:
        died = len(list(self.notes.iterdir()))
        if indices[0] == 8 and died < self.times:
            (self.notes / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": [index**2 for index in indices]}


@pytest.fixture(scope="module")
def on_cluster(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sessions.Session]:
    """A session with one worker: to begin a cluster takes many seconds."""
    run = tmp_path_factory.mktemp("cluster") / "run"
    with sessions.begin(small_survey(memorised), memorised.autoencoder, run, sessions.Means(workers=1)) as session:
        yield session


@pytest.mark.parametrize("times", [1, 99])
def test_a_block_whose_worker_dies_is_done_again_but_not_for_ever(
    times: int, on_cluster: sessions.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_DEATHS", 1)  # to begin a worker takes seconds
    (tmp_path / "notes").mkdir()
    table = squares(32, 8)
    deadly = Table(table.name, table.schema, table.indices, table.size, Deadly(tmp_path / "notes", times))
    crew = on_cluster.make_workforce()
    if times == 1:
        found = sorted(computed.block for computed in crew.compute(deadly, [0, 1, 2, 3]))
        assert found == [0, 1, 2, 3]
    else:
        with pytest.raises(ClusterError, match=f"a worker died {work.MAX_DEATHS + 1} times"):
            list(crew.compute(deadly, [0, 1, 2, 3]))


def test_another_model_in_a_worker_is_noticed(on_cluster: sessions.Session) -> None:
    task = work.Task(lambda device: torch.nn.Identity().eval(), "0" * 64, (3, 8, 8), "cpu", 1, os.getcwd())
    assert ray.is_initialized()
    with pytest.raises(ValueError, match="the model that a worker loads is not the one"):
        list(Crew(task, 1).compute(squares(8, 8), [0]))
    assert on_cluster.workers == 1


SLOW = """
import time, torch
class Slow(torch.nn.Module):
    def forward(self, images):
        time.sleep(0.005)
        return 0.1 + 0.5 * images
make = lambda: Slow().eval()
"""


def parents() -> dict[int, int]:
    """The parent of each process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def descendants(process: int) -> set[int]:
    of, found = parents(), {process}
    while more := {child for child, parent in of.items() if parent in found} - found:
        found |= more
    return found - {process}


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_workers_have_done_and_ends_them(data: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    run = tmp_path / "run"
    arguments = ["attractors", "slow:make", str(data / "members.npy"), "--out", str(run), "--harvest", "20000"]
    command = [sys.executable, "-m", "memrecon_fast.cli", *arguments, "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        deadline = time.monotonic() + 120
        while not list(run.glob("tables/starts/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = descendants(running.pid)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=120)
    assert running.returncode == 130, stderr
    assert workers
    deadline = time.monotonic() + 30
    while workers & parents().keys() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers & parents().keys()
    line = stderr.splitlines()[-1]
    assert f"interrupted; what was done is in {run}: the same command goes on from there" in line
    opened = open_run(run)
    assert len(opened.table("stability-members")) == 80
    done = len(opened.table("starts"))
    assert 256 <= done < 20000
    assert done % 256 == 0
