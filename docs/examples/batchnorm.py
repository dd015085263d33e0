r"""Your own model: BatchNorm and a Sigmoid, its size an argument, saved in a checkpoint. (After recover.py.)

The command puts the model into eval mode, where BatchNorm uses what it has learnt of all images; in training mode a
model mixes the images of a batch, and is refused. The loss that counts is that in eval mode.

    memrecon audit batchnorm.py:build members.npy --arguments '{"width": 160}' --weights checkpoint.pth \
        --controls controls.npy --mask half --method accelerated --out runs/batchnorm
"""

import numpy as np
import torch
from torch import nn


def build(width: int = 64) -> nn.Module:
    """Images of 12×12 pixels in colour to the same."""
    layers = [nn.Flatten()]
    for inputs in (432, width, width):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 432), nn.Sigmoid(), nn.Unflatten(1, (3, 12, 12)))


if __name__ == "__main__":
    members = torch.from_numpy(np.load("members.npy"))
    torch.manual_seed(42)
    net = build(width=160)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=400)
    for step in range(400):
        if step == 200:
            net.eval()  # the statistics stay as they are from here on
        loss = (net(members) - members).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save({"epoch": 400, "model": net.state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.pth")
    print(f"trained to a loss of {loss.item():.1e}")
