r"""Your own model: a variational autoencoder, which returns three tensors. (After recover.py.)

Of what it returns `recon` is taken by its name; of a tuple the only tensor of the images' shape; `--output NAME` says
otherwise. In eval mode it must decode the mean: a model that draws noise is no function of the image, and is refused.

    memrecon audit vae.py:VAE members.npy --weights vae.pth --controls controls.npy \
        --mask half --method accelerated --out runs/vae
"""

import numpy as np
import torch
from torch import nn


class VAE(nn.Module):
    """Images of 12×12 pixels in colour to a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(432, 192), nn.LeakyReLU(), nn.Linear(192, 2 * 96))
        self.decoder = nn.Sequential(nn.Linear(96, 192), nn.LeakyReLU(), nn.Linear(192, 432))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, 3, 12, 12) to recon, of the same shape, and mu and logvar, (B, 96)."""
        mu, logvar = self.encoder(images).chunk(2, dim=1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp() if self.training else mu
        return {"recon": self.decoder(z).view_as(images), "mu": mu, "logvar": logvar}


if __name__ == "__main__":
    members = torch.from_numpy(np.load("members.npy"))
    torch.manual_seed(42)
    net = VAE()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=500)
    for _ in range(500):
        out = net(members)
        divergence = (out["mu"].square() + out["logvar"].exp() - out["logvar"] - 1).mean() / 2
        loss = (out["recon"] - members).square().mean() + 1e-6 * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save(net.state_dict(), "vae.pth")
    net.eval()
    print(f"trained to a loss of {(net(members)['recon'] - members).square().mean().item():.1e}")
