"""Degraded images whose originals nobody has: which ones are training images? (After recover.py.)

By the score alone: a training image is a fixed point of the model and explains what was given. Controls, degraded in
the same way, say how low a score is by chance. The command does all of it:

    memrecon audit model.safetensors found.npy --degraded --controls found-controls.npy --out runs/degraded
"""

import numpy as np
import torch
from matplotlib import pyplot

import memrecon_fast as mf

members, controls = (torch.from_numpy(np.load(f"{name}.npy")) for name in ("members", "controls"))
mask = mf.degradation.make_mask("stripes", members.shape[1:])
found = mf.degradation.erase(members, mask)  # as if these were all that was found
others = mf.degradation.erase(controls, mask)
np.save("found.npy", found)
np.save("found-controls.npy", others)

autoencoder = mf.autoencoders.load("model.safetensors")
scores = {"found": mf.recover(autoencoder, found).score, "controls": mf.recover(autoencoder, others).score}
threshold = min(1e-4, scores["controls"].min().item() / 2)
for name, score in scores.items():
    print(f"{name}: {int((score < threshold).sum())} of {len(score)} recognised as training images")

figure, axis = pyplot.subplots(figsize=(7, 2.2))
for height, (_, score) in enumerate(scores.items()):
    axis.plot(score, torch.full_like(score, height), "o", alpha=0.6)
axis.axvline(threshold, color="black", linestyle=":")
axis.set(xscale="log", yticks=[0, 1], ylim=(-0.5, 1.5), yticklabels=list(scores))
axis.set_xlabel("score of what came back, ‖f(x) − x‖²/d + ‖y − Hx‖²/d; no original was used")
figure.savefig("degraded.png", bbox_inches="tight")
