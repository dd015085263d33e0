"""What do classical inpainting and a diffusion model get back of members, without the autoencoder?

    OMP_NUM_THREADS=1 python -m benchmarks diffusion
    python -m benchmarks diffusion --quick                   tiny, to see that it works

Trains a small diffusion model (a diffusers `UNet2DModel`) on crops of three photographs, and an autoencoder on crops of
three others, its members: the diffusion model has seen no member and no control, nor any part of their photographs.
Then audits members and controls by the accelerated solver, iteration, "inpaint" and "ddnm".

Writes benchmarks/results/diffusion.json and .md.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import skimage.data
import skimage.io
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from benchmarks.measuring import results_path, where, write_results
from benchmarks.registry import make_parser
from memrecon_fast import autoencoders, degradation
from memrecon_fast.baselines.diffusion import Diffusion
from memrecon_fast.methods import ddnm, registered

SEEN = ("chelsea.png", "coffee.png", "ihc.png")
"""Of the diffusion model."""
AUDITED = ("astronaut.png", "rocket.jpg", "motorcycle_left.png")
METHODS = ("accelerated", "iterate", "inpaint", "ddnm")
FACTOR = 4
MIN_STD = 0.08


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained and audited."""

    side: int = 16
    images: int = 16
    """Members, and as many controls."""
    loss: float = 1e-7
    autoencoder_steps: int = 1500
    width: int = 384
    depth: int = 10
    channels: tuple[int, ...] = (32, 64)
    diffusion_steps: int = 1000
    batch: int = 32
    steps: int = 100
    masks: tuple[str, ...] = degradation.MASKS


QUICK = Task(8, 2, 1e-1, 20, 32, 3, (8,), 5, 4, 5, ("center",))


def crops(names: Sequence[str], side: int, stride: int) -> Tensor:
    """(N, 3, side, side) in [0, 1]: crops of photographs that are reduced by averaging, flat ones left out; those of
    the photographs in turn, shuffled within each."""
    pools = []
    for number, name in enumerate(names):
        picture = torch.from_numpy(skimage.io.imread(Path(skimage.data.__file__).parent / name)[..., :3].copy())
        small = nn.functional.avg_pool2d(picture.permute(2, 0, 1).float() / 255, FACTOR)
        found = small.unfold(1, side, stride).unfold(2, side, stride).permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side)
        vivid = found[found.mean(dim=1).flatten(1).std(dim=1) >= MIN_STD]
        pools.append(vivid[torch.randperm(len(vivid), generator=torch.Generator().manual_seed(number))])
    longest = max(map(len, pools))
    return torch.stack([pool[i] for i in range(longest) for pool in pools if i < len(pool)])


def train_diffusion(task: Task) -> tuple[Diffusion, dict[str, Any]]:
    """A diffusion model of crops that overlap, and their mirror images."""
    from diffusers import DDPMScheduler, UNet2DModel

    images = crops(SEEN, task.side, max(1, task.side // 4))
    images = 2 * torch.cat([images, images.flip(3)]) - 1
    torch.manual_seed(0)
    levels = len(task.channels)
    unet = UNet2DModel(
        sample_size=task.side,
        layers_per_block=1,
        block_out_channels=task.channels,
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        add_attention=False,
    )
    scheduler: Any = DDPMScheduler()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(unet.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.diffusion_steps)
    begin, losses = time.perf_counter(), []
    for _ in range(task.diffusion_steps):
        chosen = images[torch.randint(len(images), (task.batch,), generator=generator)]
        noise = torch.randn(chosen.shape, generator=generator)
        timesteps = torch.randint(1000, (task.batch,), generator=generator)
        loss = (unet(scheduler.add_noise(chosen, noise, timesteps), timesteps).sample - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-max(1, len(losses) // 10) :]
    return Diffusion(unet.eval(), scheduler, steps=task.steps), {
        "images": len(images),
        "parameters": sum(parameter.numel() for parameter in unet.parameters()),
        "loss": sum(last) / len(last),
        "seconds": time.perf_counter() - begin,
    }


def measure(task: Task, folder: Path) -> dict[str, Any]:
    """All that is trained, and the rows of the audit."""
    found = crops(AUDITED, task.side, task.side)
    members, controls = found[: task.images], found[task.images : 2 * task.images]
    diffusion, trained = train_diffusion(task)
    print(f"diffusion model: loss {trained['loss']:.3f} in {trained['seconds']:.0f} s", flush=True)
    net = autoencoders.FullyConnected((3, task.side, task.side), task.width, task.depth, "leaky_relu")
    result = autoencoders.train(net, members, task.loss, optimizer="adam", max_steps=task.autoencoder_steps)
    print(f"autoencoder: loss {result.loss:.1e} in {result.seconds:.0f} s", flush=True)
    splits = {
        split: mf.images.scan(mf.images.from_array(images.numpy()))
        for split, images in (("members", members), ("controls", controls))
    }
    masks = {name: degradation.make_mask(name, (3, task.side, task.side)) for name in task.masks}
    plan = mf.audit.Audit(splits, masks, METHODS)
    begin = time.perf_counter()
    with registered(ddnm(diffusion)):
        summary = mf.audit.run(plan, net.eval(), folder, progress=False).summary
    return {
        "where": where(),
        "task": dataclasses.asdict(task),
        "diffusion": trained,
        "autoencoder": {"loss": result.loss, "seconds": result.seconds},
        "audit_seconds": time.perf_counter() - begin,
        "rows": summary["rows"],
        "without_model": summary["without_model"],
    }


def page_of(results: dict[str, Any]) -> str:
    """For people."""
    task, diffusion = results["task"], results["diffusion"]
    found = {(row["mask"], row["method"], row["split"]): row for row in results["rows"]}

    def cell(mask: str, method: str) -> str:
        rows = [found[mask, method, split] for split in ("members", "controls")]
        rates = " / ".join(f"{100 * row['approximate_rate']:.0f} %" for row in rows)
        return f"{rates} ({rows[0]['mean_psnr']:.1f} / {rows[1]['mean_psnr']:.1f} dB)"

    lines = [
        "# Without the model: inpainting and DDNM",
        "",
        f"Made by `OMP_NUM_THREADS=1 python -m benchmarks diffusion`. {task['images']} members and as many controls, "
        f"{task['side']}×{task['side']}×3; autoencoder: {task['depth']} layers × {task['width']}, train loss "
        f"{results['autoencoder']['loss']:.1e}. Diffusion model: {diffusion['parameters']:,} parameters, trained for "
        f"{diffusion['seconds']:.0f} s on {diffusion['images']:,} crops of other photographs, of which it has seen no "
        f"member and no control; loss {diffusion['loss']:.3f}; {task['steps']} steps.",
        "",
        "Approximately recovered, members / controls (mean PSNR, the same). `inpaint` and `ddnm` are told the mask.",
        "",
        "| mask | " + " | ".join(METHODS) + " |",
        "|---" * (1 + len(METHODS)) + "|",
        *(f"| {mask} | " + " | ".join(cell(mask, method) for method in METHODS) + " |" for mask in task["masks"]),
        "",
        "Inpainting and DDNM know nothing of the autoencoder: what they get back needs no memory. A small diffusion "
        "model is a weak one; a published checkpoint knows more of photographs, and may have seen the images.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Run it."""
    parser = make_parser("diffusion", __doc__)
    parser.add_argument("--quick", action="store_true", help="tiny")
    parser.add_argument("--out", type=Path, help="where the results go, without a suffix")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(QUICK if options.quick else Task(), Path(folder) / "run")
    write_results(results_path("diffusion", options.out, options.quick), results, page_of(results))
