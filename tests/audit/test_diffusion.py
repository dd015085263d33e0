"""An audit with the method "ddnm": a diffusion model of the user's beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("diffusers")

from diffusers import DDPMPipeline, DDPMScheduler

import memrecon_fast as mf
from memrecon_fast import autoencoders
from memrecon_fast.baselines.diffusion import Diffusion, NullSpace
from memrecon_fast.cli import app
from memrecon_fast.engine.samples import Sample
from memrecon_fast.methods import METHODS, Method, ddnm, registered
from tests.helpers.auditing import SETTINGS, SHAPE, Interruption, contents, run, small_audit
from tests.helpers.diffusing import small_unet
from tests.helpers.memorised import Memorised

FEW = 4


def method_of(seed: int = 0) -> Method:
    return ddnm(Diffusion(small_unet(seed), DDPMScheduler(), steps=FEW))


def test_it_is_audited_like_the_others(memorised: Memorised, tmp_path: Path) -> None:
    plan = small_audit(memorised, controls=3, methods=("known-mask", "ddnm"))
    with registered(method_of()):
        found = mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)
    records = [row for row in found.records.to_pylist() if row["method"] == "ddnm"]
    assert len(records) == 2 * (16 + 3)
    assert {row["evaluations"] for row in records} == {0}
    mask = plan.masks["center"]
    null_space = NullSpace(
        Diffusion(small_unet(), DDPMScheduler(), steps=FEW), SHAPE, SETTINGS.seed, torch.device("cpu")
    )
    degraded = memorised.members * mask
    for index in (0, 11):
        drawn = null_space(degraded[index : index + 1], mask[None], [Sample(index, degraded[index])], 1)
        (ours,) = (row for row in records if (row["split"], row["mask"], row["index"]) == ("members", "center", index))
        mse = mf.metrics.mse(drawn, memorised.members[index : index + 1])
        torch.testing.assert_close(torch.tensor([ours["mse"]], dtype=torch.float64), mse, rtol=1e-12, atol=0)
    assert METHODS["ddnm"].identity == {}  # as it was
    summary = mf.audit.open(tmp_path / "run").summary  # without the diffusion model
    assert summary["methods"] == ["known-mask", "ddnm"]
    assert summary["ddnm"]["steps"] == FEW
    assert len(summary["ddnm"]["diffusion_model"]) == 64


def test_a_run_is_continued_with_the_same_diffusion_model_alone(memorised: Memorised, tmp_path: Path) -> None:
    plan = small_audit(memorised, controls=2, methods=("ddnm",))
    with registered(method_of()):
        run(plan, memorised.autoencoder, tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            run(plan, memorised.autoencoder, tmp_path / "interrupted", report=Interruption(5))
        with registered(method_of(seed=1)), pytest.raises(ValueError, match=r"What differs: ddnm\.diffusion_model \("):
            run(plan, memorised.autoencoder, tmp_path / "interrupted")
        run(plan, memorised.autoencoder, tmp_path / "interrupted")
    assert contents(tmp_path / "interrupted") == contents(tmp_path / "whole")


def test_the_noise_is_known_to_it(memorised: Memorised, tmp_path: Path) -> None:
    plan = small_audit(memorised, controls=0, methods=("ddnm",), noise_std=0.1, keep_images=16)
    with registered(method_of()):
        found = mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)
    mask = plan.masks["center"]
    degraded = mf.degradation.erase(memorised.members[:1], mask, 0.1, SETTINGS.seed)
    null_space = NullSpace(
        Diffusion(small_unet(), DDPMScheduler(), steps=FEW), SHAPE, SETTINGS.seed, torch.device("cpu")
    )
    drawn = null_space(degraded, mask[None], [Sample(0, degraded[0], noise_std=0.1)], 1)
    expected = mf.metrics.mse(drawn, memorised.members[:1])
    (ours,) = (row["mse"] for row in found.records.to_pylist() if (row["mask"], row["index"]) == ("center", 0))
    torch.testing.assert_close(torch.tensor([ours], dtype=torch.float64), expected, rtol=1e-12, atol=0)


def test_a_worker_gets_it_with_its_model(memorised: Memorised) -> None:
    cloudpickle: Any = pytest.importorskip("ray").cloudpickle
    method = method_of()
    sent = cloudpickle.loads(cloudpickle.dumps({"ddnm": method}))["ddnm"]
    assert sent.identity == method.identity
    mask = mf.degradation.make_mask("center", SHAPE)
    samples = [Sample(index, image * mask, mask) for index, image in enumerate(memorised.members[:2])]
    found = [
        [one.image for batch in each.prepare(memorised.autoencoder, SHAPE, SETTINGS, "torch")(None).batches(samples)
         for one in batch]
        for each in (method, sent)
    ]  # fmt: skip
    assert all(map(torch.equal, *found))


def test_without_a_diffusion_model_it_is_refused(memorised: Memorised) -> None:
    with pytest.raises(ValueError, match="the method ddnm needs a diffusion model: --diffusion FOLDER"):
        small_audit(memorised, methods=("ddnm",)).prepare(memorised.autoencoder)


def test_the_command(tmp_path: Path) -> None:
    pictures = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)).numpy()
    images, model, folder = tmp_path / "images.npy", tmp_path / "model.safetensors", tmp_path / "diffusion"
    np.save(images, pictures)
    torch.manual_seed(0)
    autoencoders.save(autoencoders.FullyConnected(SHAPE, 16, 3).eval(), model)
    DDPMPipeline(small_unet(), DDPMScheduler(num_train_timesteps=100)).save_pretrained(folder)

    def command(*more: str) -> Any:
        where = ["audit", str(model), str(images), "--out", str(tmp_path / "run"), "--mask", "half"]
        return CliRunner().invoke(app, [*where, *more])

    for more, words in (
        (["--method", "ddnm"], "memrecon: the method ddnm needs a diffusion model: --diffusion FOLDER"),
        (["--diffusion", str(folder)], "memrecon: --diffusion is for --method ddnm; the methods are accelerated"),
        (["--method", "ddnm", "--diffusion", str(tmp_path / "no")], f"memrecon: {tmp_path / 'no'} is no folder"),
    ):
        refused = command(*more)
        assert refused.exit_code == 2
        assert refused.stderr.startswith(words)
        assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()
    done = command("--method", "ddnm", "--method", "inpaint", "--diffusion", str(folder))
    assert done.exit_code == 0, done.stderr
    assert {row["method"] for row in mf.audit.open(tmp_path / "run").summary["rows"]} == {"ddnm", "inpaint"}
    DDPMPipeline(small_unet(seed=1), DDPMScheduler(num_train_timesteps=100)).save_pretrained(folder)
    other = command("--method", "ddnm", "--method", "inpaint", "--diffusion", str(folder))
    assert other.exit_code == 2
    assert "What differs: ddnm.diffusion_model (" in other.stderr
    DDPMPipeline(small_unet(in_channels=1, out_channels=1), DDPMScheduler(num_train_timesteps=100)).save_pretrained(
        folder
    )
    grey = command("--method", "ddnm", "--method", "inpaint", "--diffusion", str(folder))
    assert grey.exit_code == 2
    assert "the diffusion model is for images of 1 channels; these have 3" in grey.stderr
