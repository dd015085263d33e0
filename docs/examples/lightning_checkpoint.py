r"""Your own model: a checkpoint of Lightning. (After recover.py.)

Lightning itself is not needed: the file is written here with the keys that its Trainer writes.

The net is usually an attribute of the LightningModule, and its name stands in front of all names: it is taken off, and
said. Only tensors are read of the file: what else a Trainer keeps cannot run code.

    memrecon audit plain.py:Net members.npy --weights last.ckpt \
        --mask half --method accelerated --out runs/lightning_checkpoint
"""

import numpy as np
import torch
from plain import Net

members = torch.from_numpy(np.load("members.npy"))
torch.manual_seed(7)
net = Net()
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=400)
for _ in range(400):
    loss = (net(members) - members).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
checkpoint = {
    "epoch": 400,
    "global_step": 400,
    "pytorch-lightning_version": "2.5.0",
    "state_dict": {f"model.{name}": value for name, value in net.state_dict().items()},
    "loops": {},
    "callbacks": {},
    "optimizer_states": [optimizer.state_dict()],
    "lr_schedulers": [],
    "hyper_parameters": {"width": 192},
}
torch.save(checkpoint, "last.ckpt")
print(f"trained to a loss of {loss.item():.1e}")
