r"""Your own model: a TorchScript file. (After plain.py.)

It is a program, as a `.pt2` file of torch.export is, and one of an older kind. Where the model's class is at hand, give
its weights, or export it anew. Where the file is all there is, and you trust it, a function opens it:

    memrecon audit torchscript.py:build members.npy \
        --mask half --method accelerated --out runs/torchscript
    memrecon audit exported.pt2 members.npy --trust-model --mask half --method accelerated --out runs/exported
"""

import torch
from plain import Net


def build() -> torch.nn.Module:
    """The file as a module. Loading it runs what is in it."""
    return torch.jit.load("scripted.pt")


if __name__ == "__main__":
    net = Net()
    net.load_state_dict(torch.load("plain.pth", weights_only=True))
    net.eval()
    images = torch.zeros(2, 3, 12, 12)
    torch.jit.save(torch.jit.trace(net, images), "scripted.pt")

    batch = torch.export.Dim("batch")  # any number of images, or the file is refused
    torch.export.save(torch.export.export(net, (images,), dynamic_shapes=({0: batch},)), "exported.pt2")
    print("wrote scripted.pt and exported.pt2")
