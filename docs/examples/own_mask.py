r"""A mask of one's own: a text over the picture. (After recover.py.)

In Python any bool tensor does, True = kept, that broadcasts to the images (in an audit one of their shape, as
`mask.expand(3, 12, 12)`). The command takes a file, an image (bright = kept) or an array:

    memrecon audit model.safetensors members.npy \
        --mask text.png --method accelerated --method inpaint --out runs/own_mask
"""

import numpy as np
import torch
from matplotlib import pyplot
from PIL import Image, ImageDraw

import memrecon_fast as mf

members = torch.from_numpy(np.load("members.npy"))
autoencoder = mf.autoencoders.load("model.safetensors")

picture = Image.new("L", (12, 12), 255)
ImageDraw.Draw(picture).text((0, 0), "©", fill=0, font_size=14)
picture.point(lambda level: 255 * (level > 200)).save("text.png")
mask = torch.from_numpy(np.array(Image.open("text.png")) > 127)  # (12, 12), for all channels

degraded = mf.degradation.erase(members, mask.expand(3, 12, 12))
blind = mf.recover(autoencoder, degraded)
known = mf.recover(autoencoder, degraded, mask=mask)
for name, recovery in {"blind": blind, "with the mask": known}.items():
    mse = mf.metrics.mse(recovery.images, members)
    print(f"{name}: {mf.metrics.recovery_rate(mse, mf.metrics.ACCURATE_MSE):.0%} accurately")
print(f"pixels of the mask estimated wrongly: {(blind.masks != mask).float().mean():.1%}")

figure, axes = pyplot.subplots(3, 8, figsize=(9, 3.4))
rows = {"degraded": degraded, "blind": blind.images, "estimated mask": blind.masks.float()}
for row, (label, images) in zip(axes, rows.items(), strict=True):
    row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axis, image in zip(row, images, strict=True):
        axis.imshow(image.clamp(0, 1).permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
figure.savefig("own_mask.png", bbox_inches="tight")
