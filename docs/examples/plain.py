r"""Your own model: a plain nn.Module. (After recover.py.)

Its weights are a file of torch.save, and its class makes the model. In Python `mf.recover(net.eval(), …)` takes it
as it is.

    memrecon audit plain.py:Net members.npy --weights plain.pth --controls controls.npy \
        --mask half --method accelerated --out runs/plain
"""

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    """Images of 12×12 pixels in colour to the same."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(432, width), nn.LeakyReLU(), nn.Linear(width, width))
        self.decoder = nn.Sequential(nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, 432))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, 12, 12) to the same."""
        return self.decoder(self.encoder(images)).view_as(images)


if __name__ == "__main__":
    members = torch.from_numpy(np.load("members.npy"))
    torch.manual_seed(42)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=400)
    for _ in range(400):
        loss = (net(members) - members).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save(net.state_dict(), "plain.pth")
    print(f"trained to a loss of {loss.item():.1e}")
