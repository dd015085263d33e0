"""The same audit by workers of a Ray cluster; some of them are killed."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.audit import cluster
from memrecon_fast.audit.model import Model
from memrecon_fast.audit.plan import Audit
from memrecon_fast.audit.progress import Output
from memrecon_fast.audit.session import Means, begin
from memrecon_fast.audit.store.records import RECORDS
from memrecon_fast.audit.worker import Shard
from memrecon_fast.common.errors import AutoencoderChangedError
from memrecon_fast.engine.batched import Batched
from memrecon_fast.images.scan import open_images, scan
from memrecon_fast.images.sources import from_array
from memrecon_fast.methods import METHODS, Method, Open
from memrecon_fast.recovery import prepare_iterate
from tests.audit.test_killing import many_images
from tests.helpers.auditing import contents, small_audit
from tests.helpers.auditing import run as run_alone
from tests.helpers.memorised import Memorised

pytest.importorskip("ray")
KILLS = 3
WITHOUT_SESSIONS = ("summary.json", "report.html", "summary.csv", "verdicts.csv")


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    with cluster.connected(None, 2):
        yield


def results(run: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(run).items() if name not in WITHOUT_SESSIONS}


def run_by_workers(
    audit: Audit,
    autoencoder: nn.Module,
    run: Path,
    *,
    load: Callable[[torch.device], nn.Module] | None = None,
    workers: int = 2,
    parts: str | None = None,
) -> None:
    model = Model("model", autoencoder, load or functools.partial(autoencoder.to), "cpu")
    output = Output(Console(quiet=True), print)
    with begin(audit, model, run, Means(workers, parts=parts, save_every=0.1, output=output)) as session:
        session.work()


def ancestors(process: int) -> list[int]:
    found = []
    while process > 1:
        status = Path(f"/proc/{process}/status").read_text()
        process = int(status.split("PPid:")[1].split()[0])
        found.append(process)
    return found


def worker_processes() -> list[int]:
    """Those of the cluster that this process has started; no others on the machine."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            is_worker = process.name.isdigit() and (process / "cmdline").read_bytes().startswith(b"ray::Worker")
            if is_worker and os.getpid() in ancestors(int(process.name)):
                found.append(int(process.name))
    return found


@pytest.mark.usefixtures("two_workers")
def test_workers_give_the_files_of_a_single_process_also_by_an_address_that_runs_share(
    memorised: Memorised, tmp_path: Path
) -> None:
    """Those that write to the folder of the run itself are killed below, and give the same files."""
    audit = small_audit(memorised, keep_images=2)
    shared = (tmp_path / "shared").as_uri()
    run_by_workers(audit, memorised.autoencoder, tmp_path / "workers", parts=shared)
    run_alone(audit, memorised.autoencoder, tmp_path / "one", parts=shared)
    run_alone(audit, memorised.autoencoder, tmp_path / "alone")
    assert results(tmp_path / "workers") == results(tmp_path / "one") == results(tmp_path / "alone")
    assert not list((tmp_path / "shared").rglob("*.parquet"))


@pytest.mark.skipif(sys.platform != "linux", reason="the workers are found in /proc")
@pytest.mark.usefixtures("two_workers")
def test_workers_that_are_killed_are_replaced_and_nothing_is_lost(memorised: Memorised, tmp_path: Path) -> None:
    small = small_audit(memorised)
    images = scan(from_array(many_images(memorised, 1000)))
    masks = {"center": small.masks["center"]}
    audit = Audit({"members": images}, masks, ("accelerated", "iterate"), small.settings, keep_images=2)
    (tmp_path / "at once").touch()  # records name their model: it must be the same one
    run_alone(audit, Held(memorised.autoencoder, tmp_path / "at once").eval(), tmp_path / "alone")
    killed: list[int] = []
    ended, released = threading.Event(), tmp_path / "released"

    def kill() -> None:
        """Any worker at any moment, but not before more was done since the last one."""
        chance = random.Random(1)
        done: set[Path] = set()
        while len(killed) < KILLS and not ended.wait(0.1):
            now = set((tmp_path / "workers" / RECORDS).rglob("*.parquet"))
            alive = [process for process in worker_processes() if process not in killed]
            if now - done and alive:
                ended.wait(chance.random() / 2)
                killed.append(chance.choice(alive))
                os.kill(killed[-1], signal.SIGKILL)
                done = now
        released.touch()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        run_by_workers(audit, Held(memorised.autoencoder, released).eval(), tmp_path / "workers")
    finally:
        ended.set()
        killer.join()
    assert len(killed) == KILLS
    assert results(tmp_path / "alone") == results(tmp_path / "workers")


class Wrapped(nn.Module):
    """An autoencoder that is another's."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor) -> Tensor:
        return self.autoencoder(images)  # type: ignore[no-any-return]


class Held(Wrapped):
    """Slow until a file is there, so that there is time to be killed in."""

    def __init__(self, autoencoder: nn.Module, released: Path) -> None:
        super().__init__(autoencoder)
        self.released = released

    def forward(self, images: Tensor) -> Tensor:
        if not self.released.exists():
            time.sleep(0.005)
        return super().forward(images)


class FailingLater(Wrapped):
    """Raises, or takes its process with it, after so many calls in one process."""

    def __init__(self, autoencoder: nn.Module, calls: int, deadly: bool) -> None:
        super().__init__(autoencoder)
        self.calls, self.deadly = calls, deadly

    def forward(self, images: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls < 0 and self.deadly:
            os._exit(3)
        if self.calls < 0:
            raise ArithmeticError("the model has had enough")
        return super().forward(images)


@pytest.mark.usefixtures("two_workers")
def test_what_a_model_raises_in_a_worker_is_raised_and_what_was_done_is_kept(
    memorised: Memorised, tmp_path: Path
) -> None:
    audit = small_audit(memorised, controls=0, methods=("known-mask",))
    run_alone(audit, FailingLater(memorised.autoencoder, 10**9, deadly=False).eval(), tmp_path / "alone")
    failing = FailingLater(memorised.autoencoder, 39 + 27, deadly=False).eval()
    with pytest.raises(ArithmeticError, match="the model has had enough"):
        run_by_workers(audit, failing, tmp_path / "run", workers=1)
    assert list((tmp_path / "run" / RECORDS).glob("*/*.parquet"))
    failing.calls = 10**9  # what the digest does not see
    run_by_workers(audit, failing, tmp_path / "run", workers=1)
    assert results(tmp_path / "run") == results(tmp_path / "alone")


@pytest.mark.usefixtures("two_workers")
def test_workers_that_die_again_and_again_are_given_up(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "MAX_DEATHS", 1)
    audit = small_audit(memorised, controls=0, methods=("known-mask",))
    with pytest.raises(cluster.ClusterError, match="2 workers died without an image done in between"):
        run_by_workers(
            audit, FailingLater(memorised.autoencoder, 39 + 10, deadly=True).eval(), tmp_path / "run", workers=1
        )


@pytest.mark.usefixtures("two_workers")
def test_a_worker_that_loads_another_model_is_refused(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised, controls=0, methods=("known-mask",))
    other = Wrapped(memorised.autoencoder).eval()
    with pytest.raises(ValueError, match="the model that a worker loads is not the one that the audit was begun with"):
        run_by_workers(audit, memorised.autoencoder, tmp_path / "run", load=other.to, workers=1)


@pytest.mark.usefixtures("two_workers")
def test_images_that_workers_cannot_read_are_named_and_done_later(memorised: Memorised, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", memorised.members.numpy())
    masks = small_audit(memorised).masks
    audit = Audit({"members": open_images(str(tmp_path / "images.npy"))}, masks, ("known-mask",))
    changed = memorised.members.clone()
    changed[3] = 0
    np.save(tmp_path / "images.npy", changed.numpy())
    with pytest.raises(ValueError, match="every estimate is compared with all members, but 3 has changed since"):
        run_by_workers(audit, memorised.autoencoder, tmp_path / "run", workers=1)
    np.save(tmp_path / "images.npy", 1 - memorised.members.numpy())
    with pytest.raises(ValueError, match=r"a worker on .* cannot read the images: 0 has changed since"):
        run_by_workers(audit, memorised.autoencoder, tmp_path / "run", workers=1)
    np.save(tmp_path / "images.npy", memorised.members.numpy())
    run_alone(audit, memorised.autoencoder, tmp_path / "run")  # goes on where the worker left off
    run_alone(audit, memorised.autoencoder, tmp_path / "alone")
    assert results(tmp_path / "run") == results(tmp_path / "alone")


@pytest.mark.usefixtures("two_workers")
def test_no_more_workers_than_the_cluster_has_room_for() -> None:
    assert cluster.number_of_workers(None, "cpu") == 2
    assert cluster.number_of_workers(1, "cpu") == 1
    with pytest.raises(ValueError, match="--workers 3 needs as many CPUs; the Ray cluster has 2"):
        cluster.number_of_workers(3, "cpu")
    with pytest.raises(ValueError, match="--workers 1 needs as many GPUs; the Ray cluster has 0"):
        cluster.number_of_workers(None, "cuda")
    assert cluster.device_kind("auto") == "cpu"


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"need Ray: pip install 'memrecon-fast\[ray\]'"), cluster.connected(None, 1):
        pytest.fail("connected")


def test_a_cluster_of_its_own_where_another_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Last: it is not the cluster of the tests above."""
    import ray

    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with cluster.connected(None, 1):
        assert cluster.number_of_workers(None, "cpu") == 1


def test_what_only_a_gpu_can_do_is_for_the_workers_to_refuse(memorised: Memorised) -> None:
    audit = small_audit(memorised, settings=mf.Settings(precision="tf32"), backend="triton")
    checked = cluster.without_gpu(audit)
    assert (checked.settings.precision, checked.backend) == ("float32", "auto")
    assert cluster.without_gpu(small_audit(memorised)).backend == "torch"


def test_a_worker_that_was_given_up_gets_no_more_shards(memorised: Memorised) -> None:
    cell = small_audit(memorised).cells()[0]
    first, second, third = (Shard(cell, (index,)) for index in range(3))
    dispatcher = cluster.Dispatcher()
    dispatcher.begin("paper", [first, second, third])
    assert dispatcher.take("worker-1", "paper") == first
    assert dispatcher.take("worker-2", "paper") == second
    assert dispatcher.lost("worker-1") == [first]
    dispatcher.put_back([first])
    assert dispatcher.take("worker-1", "paper") is None  # it lived after all
    assert dispatcher.has_waiting()
    assert [dispatcher.take("worker-3", "paper"), dispatcher.take("worker-3", "paper")] == [first, third]
    assert not dispatcher.has_waiting()
    assert dispatcher.is_needed(["worker-2"])
    assert not dispatcher.is_needed(["worker-1", "worker-4"])


def test_a_worker_that_comes_late_gets_nothing_of_the_next_method(memorised: Memorised) -> None:
    cell = small_audit(memorised).cells()[0]
    dispatcher = cluster.Dispatcher()
    dispatcher.begin("paper", [Shard(cell, (0,))])
    assert dispatcher.take("worker-1", "paper") == Shard(cell, (0,))
    dispatcher.begin("iterate", [Shard(cell, (1,))])
    assert dispatcher.take("worker-2", "paper") is None
    assert dispatcher.take("worker-2", "iterate") == Shard(cell, (1,))
    assert dispatcher.lost("worker-1") == []


@pytest.mark.usefixtures("two_workers")
def test_a_model_in_memory_and_a_method_from_outside_are_sent_to_the_workers(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(degraded: Tensor, masks: Tensor) -> Tensor:
        return torch.where(masks, degraded, 0.5)

    def prepare(autoencoder: Any, shape: Any, settings: Any, backend: str) -> Open:
        return functools.partial(Batched, fill, prepare_iterate(autoencoder, shape, backend=backend))

    monkeypatch.setitem(METHODS, "grey", Method("grey", "given", False, prepare))
    plan = small_audit(memorised, methods=("grey", "known-mask"))
    by_workers = mf.audit.run(plan, memorised.autoencoder, tmp_path / "workers", workers=2, progress=False)
    assert by_workers.description["sessions"][0]["workers"] == 2
    alone = mf.audit.run(plan, memorised.autoencoder, tmp_path / "alone", progress=False)
    assert results(tmp_path / "workers") == results(tmp_path / "alone")
    assert len(by_workers.records) == len(alone.records) == 2 * 2 * 2 * 16


@pytest.mark.usefixtures("two_workers")
def test_a_model_that_cannot_be_sent_is_refused_before_the_run_is_begun(memorised: Memorised, tmp_path: Path) -> None:
    lock = threading.Lock()

    def halve(images: Tensor) -> Tensor:
        with lock:
            return 0.5 * images

    with pytest.raises(ValueError, match=r"the model cannot be sent to the workers: TypeError: .*lock"):
        mf.audit.run(small_audit(memorised), halve, tmp_path / "run", workers=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("two_workers")
def test_a_model_that_is_random_later_in_workers(memorised: Memorised, tmp_path: Path) -> None:
    class Later(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = memorised.autoencoder, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            noise = 1e-3 * torch.randn(x.shape) if self.calls > 60 else 0
            return self.net(x) + noise  # type: ignore[no-any-return]

    audit = small_audit(memorised, controls=0, methods=("iterate",))
    with pytest.raises(AutoencoderChangedError, match=r"the results are in doubt: .*random at times"):
        run_by_workers(audit, Later().eval(), tmp_path / "random")
    assert mf.audit.open(tmp_path / "random").summary["doubts"]
