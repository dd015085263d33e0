"""What comes out of noise: fixed points that the model falls into, without any image. (After recover.py.)

The command does the same, and writes a report:

    memrecon attractors model.safetensors members.npy --controls controls.npy --harvest 32 --out runs/harvest
"""

import numpy as np
import torch
from matplotlib import pyplot

import memrecon_fast as mf

members = torch.from_numpy(np.load("members.npy"))
autoencoder = mf.autoencoders.load("model.safetensors")

stability = mf.attractors.stability(autoencoder, members)
print("the members are:", ", ".join(mf.attractors.Verdict(int(one)).name.lower() for one in stability.verdict))

# members are for the comparison afterwards; nothing but noise goes into the model
harvest = mf.attractors.harvest(autoencoder, members.shape[1:], starts=32, members=members)
for share, nearest, mse in zip(harvest.share, harvest.nearest, harvest.nearest_mse, strict=True):
    print(f"{share:.0%} of the starts end near member {nearest}, MSE {mse:.1e}")

count = min(8, len(harvest.images))
figure, axes = pyplot.subplots(2, max(2, count), figsize=(9, 2.6))
for column in range(count):
    axes[0, column].imshow(harvest.images[column].clamp(0, 1).permute(1, 2, 0))
    axes[1, column].imshow(members[harvest.nearest[column]].permute(1, 2, 0))
    axes[0, column].set_title(f"{harvest.share[column]:.0%}")
for axis, label in zip(axes[:, 0], ("out of noise", "nearest member"), strict=True):
    axis.set_ylabel(label, rotation=0, ha="right", va="center")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
figure.savefig("harvest.png", bbox_inches="tight")
