"""Public data that is on your disk: CIFAR-10 of torchvision. Nothing is downloaded.

    python public_data.py ROOT

ROOT is the folder that torchvision's CIFAR10 has its files in, `data` if none is given. `memrecon train` and `memrecon
audit` take the same name, torchvision:CIFAR10:ROOT, and other classes of torchvision.datasets as well; `--limit 50`
takes the first 50 images.
"""

import sys

import numpy as np
from matplotlib import pyplot

import memrecon_fast as mf

NAME = "torchvision:CIFAR10:" + (sys.argv[1] if len(sys.argv) > 1 else "data")

try:
    opened = mf.images.open_images(NAME, limit=16)
except (ValueError, FileNotFoundError) as error:
    sys.exit(f"skipped: {error}")

images = opened.stack()  # float32 (16, 3, 32, 32) in [0, 1]
members, controls = images[:8], images[8:]
autoencoder = mf.autoencoders.FullyConnected(opened.image_shape, width=256, depth=5)
training = mf.autoencoders.train(autoencoder, members, target_loss=1e-6, max_steps=400)
print(f"trained in {training.steps} steps to a loss of {training.loss:.1e}")

mask = mf.degradation.make_mask("random-80", opened.image_shape)
rows = {"members": members, "controls": controls}
figure, axes = pyplot.subplots(4, 8, figsize=(9, 4.6))
for place, (name, originals) in enumerate(rows.items()):
    degraded = mf.degradation.erase(originals, mask)
    recovered = mf.recover(autoencoder, degraded).images
    rate = mf.metrics.recovery_rate(mf.metrics.mse(recovered, originals), mf.metrics.APPROXIMATE_MSE)
    print(f"{name}: {rate:.0%} recovered approximately")
    for row, shown in zip(axes[2 * place :], (degraded, recovered), strict=False):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, image in zip(row, shown, strict=True):
            axis.imshow(np.clip(image.permute(1, 2, 0), 0, 1))
            axis.set(xticks=[], yticks=[])
figure.savefig("public_data.png", bbox_inches="tight")
