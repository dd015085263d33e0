r"""Your own model: a diffusers AutoencoderKL, of pixels in [−1, 1]. (After recover.py; extra `diffusion`.)

Its `.sample` is found by name, and by default it decodes the mean. A folder of save_pretrained needs a function that
opens it; the pixels are an option. Trained for seconds, this one remembers nothing: the audit shows
what that looks like.

    memrecon audit autoencoder_kl.py:build members.npy --pixel-range -1,1 --controls controls.npy --limit 2 \
        --mask half --method accelerated --max-outer-iterations 10 --out runs/autoencoder_kl
"""

import numpy as np
import torch
from diffusers import AutoencoderKL


def build() -> AutoencoderKL:
    """From the folder that is beside this file when it is run."""
    return AutoencoderKL.from_pretrained("autoencoder_kl", low_cpu_mem_usage=False)


if __name__ == "__main__":
    members = torch.from_numpy(np.load("members.npy")) * 2 - 1
    torch.manual_seed(42)
    net = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=8,
        norm_num_groups=8,
    )
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(40):
        loss = (net(members).sample - members).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.save_pretrained("autoencoder_kl")
    print(f"trained to a loss of {loss.item():.1e}, of pixels in [−1, 1]")
