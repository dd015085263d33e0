"""Recover training images from degraded copies, and look at them.

Makes what the other examples use, too: members.npy, controls.npy and model.safetensors, in the current folder.
"""

import numpy as np
from matplotlib import pyplot

import memrecon_fast as mf
from memrecon_fast.images.photographs import make_photographs

members, controls = make_photographs(8, 8, size=12)  # float32 (8, 3, 12, 12) in [0, 1]; the model sees the members only
np.save("members.npy", members)
np.save("controls.npy", controls)

autoencoder = mf.autoencoders.FullyConnected((3, 12, 12), width=192, depth=5)
training = mf.autoencoders.train(autoencoder, members, target_loss=1e-7, max_steps=600)
mf.autoencoders.save(autoencoder, "model.safetensors")
print(f"trained in {training.steps} steps to a loss of {training.loss:.1e}")

mask = mf.degradation.make_mask("half", (3, 12, 12))
degraded = mf.degradation.erase(members, mask)
recovery = mf.recover(autoencoder, degraded)  # it is not told the mask

mse = mf.metrics.mse(recovery.images, members)
print(f"{mf.metrics.recovery_rate(mse, mf.metrics.APPROXIMATE_MSE):.0%} of the members recovered approximately,")
print(f"{mf.metrics.recovery_rate(mse, mf.metrics.ACCURATE_MSE):.0%} accurately")
unseen = mf.recover(autoencoder, mf.degradation.erase(controls, mask))
rate = mf.metrics.recovery_rate(mf.metrics.mse(unseen.images, controls), mf.metrics.APPROXIMATE_MSE)
print(f"{rate:.0%} of the controls approximately")

rows = {
    "training image": members,
    "degraded": degraded,
    "recovered": recovery.images,
    "estimated mask": recovery.masks.float(),
}
figure, axes = pyplot.subplots(len(rows), len(members), figsize=(9, 4.4))
for row, (label, images) in zip(axes, rows.items(), strict=True):
    row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axis, image in zip(row, images, strict=True):
        axis.imshow(image.clamp(0, 1).permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
figure.savefig("recover.png", bbox_inches="tight")
