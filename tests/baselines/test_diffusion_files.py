from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, EulerDiscreteScheduler

from memrecon_fast.baselines.diffusion import Diffusion
from memrecon_fast.baselines.diffusion_files import open_diffusion
from tests.helpers.diffusing import small_unet


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    DDPMPipeline(small_unet(), DDPMScheduler(beta_end=0.01)).save_pretrained(tmp_path / "pipeline")
    return tmp_path / "pipeline"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_pipeline_comes_back(pipeline: Path) -> None:
    opened = open_diffusion(pipeline, steps=50)
    assert opened.identity() == Diffusion(small_unet(), DDPMScheduler(beta_end=0.01), steps=50).identity()
    assert not any(parameter.requires_grad for parameter in opened.unet.parameters())


@pytest.mark.parametrize("scheduler", [DDIMScheduler(prediction_type="v_prediction"), EulerDiscreteScheduler()])
def test_model_and_scheduler_in_one_place(tmp_path: Path, scheduler: Any) -> None:
    small_unet().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"holds no scheduler/scheduler_config\.json and no scheduler_config\.json: exp"
    ):
        open_diffusion(tmp_path)
    scheduler.save_pretrained(tmp_path)
    opened = open_diffusion(tmp_path)
    assert opened.identity() == Diffusion(small_unet(), scheduler).identity()


@pytest.mark.parametrize(("timesteps", "steps"), [(1000, 100), (250, 50), (50, 50), (7, 7), (101, 1)])
def test_as_many_steps_as_divide_the_schedulers(tmp_path: Path, timesteps: int, steps: int) -> None:
    DDPMPipeline(small_unet(), DDPMScheduler(timesteps, beta_end=0.01)).save_pretrained(tmp_path)
    assert open_diffusion(tmp_path).steps == steps


def test_a_latent_model_is_refused(pipeline: Path) -> None:
    change(pipeline / "model_index.json", vqvae=["diffusers", "VQModel"])
    with pytest.raises(ValueError, match=r"pipeline is a latent diffusion model \(its vqvae\): expected one of pixels"):
        open_diffusion(pipeline)


def test_weights_of_half_precision_are_made_float32(tmp_path: Path) -> None:
    DDPMPipeline(small_unet().half(), DDPMScheduler()).save_pretrained(tmp_path)
    opened = open_diffusion(tmp_path)
    assert {parameter.dtype for parameter in opened.unet.parameters()} == {torch.float32}


def test_what_is_no_such_folder_is_named(pipeline: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="elsewhere is no folder: expected one that diffusers' save_pretrained wrote"):
        open_diffusion(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no unet/config\.json and no config\.json: expected a folder"):
        open_diffusion(tmp_path / "empty")
    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"unet holds no diffusion_pytorch_model\.safetensors: other weights, such as"):
        open_diffusion(pipeline)
    weights.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"pipeline cannot be opened by diffusers: "):
        open_diffusion(pipeline)


def test_weights_of_another_model_are_refused(pipeline: Path, tmp_path: Path) -> None:
    config = pipeline / "unet" / "config.json"
    change(config, layers_per_block=2)
    with pytest.raises(ValueError, match=r"unet are not those of its config\.json: missing_keys, first "):
        open_diffusion(pipeline)


def test_another_class_is_refused(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = pipeline / "scheduler" / "scheduler_config.json"
    change(scheduler, _class_name="UNet2DModel")
    with pytest.raises(ValueError, match=r"scheduler_config\.json is of UNet2DModel; expected Scheduler"):
        open_diffusion(pipeline)
    change(scheduler, _class_name="NoSuchScheduler")
    with pytest.raises(ValueError, match="is of NoSuchScheduler, which this version of diffusers does not have"):
        open_diffusion(pipeline)
    monkeypatch.setattr(
        diffusers, "DPMSolverSDEScheduler", type("DPMSolverSDEScheduler", (), {"_backends": ["torchsde"]})
    )
    change(scheduler, _class_name="DPMSolverSDEScheduler")
    with pytest.raises(ValueError, match="is of DPMSolverSDEScheduler, which needs torchsde: not installed"):
        open_diffusion(pipeline)
    change(scheduler, _class_name="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(
        ValueError, match="pipeline: the scheduler FlowMatchEulerDiscreteScheduler has no alphas_cumprod"
    ):
        open_diffusion(pipeline)
    change(pipeline / "unet" / "config.json", _class_name="UNet2DConditionModel")
    with pytest.raises(ValueError, match=r"config\.json is of UNet2DConditionModel; expected UNet2DModel"):
        open_diffusion(pipeline)
    (pipeline / "unet" / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json names no class of diffusers"):
        open_diffusion(pipeline)


def test_a_missing_library_is_named(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"need diffusers: pip install 'memrecon-fast\[diffusion\]'"):
        open_diffusion(pipeline)
