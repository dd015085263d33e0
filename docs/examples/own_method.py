"""A method of one's own in an audit: grey in the holes, then the autoencoder twenty times. (After recover.py.)

To make such a run, or to go on with it, its record must be in METHODS; to show one, it need not: `memrecon report RUN`.
"""

from functools import partial

import torch
from matplotlib import pyplot

import memrecon_fast as mf
from memrecon_fast.engine.batched import Batched
from memrecon_fast.methods import METHODS, Method
from memrecon_fast.recovery import prepare_iterate


def prepare(autoencoder, image_shape, settings, backend):
    """What an audit calls before it begins; raise ValueError here for what cannot be done."""

    def fill_and_iterate(degraded, masks):  # float32 (B, *image_shape), bool of the same shape, True = kept
        images = torch.where(masks, degraded, 0.5)
        for _ in range(20):
            images = autoencoder(images)
        return images

    scorer = prepare_iterate(autoencoder, image_shape, backend=backend)  # gives each estimate its score
    return partial(Batched, fill_and_iterate, scorer)


# it is given the true mask; identity: what changes its results, so that runs with other numbers are told apart
METHODS["grey"] = Method("grey", mask="given", scored=True, prepare=prepare, identity={"applications": 20})

splits = {name: mf.images.open_images(f"{name}.npy") for name in ("members", "controls")}
masks = {name: mf.degradation.make_mask(name, splits["members"].image_shape) for name in ("center", "random-80")}
plan = mf.audit.Audit(splits, masks, methods=("accelerated", "grey"))
run = mf.audit.run(plan, "model.safetensors", "runs/own_method", progress=False)

rows = [row for row in run.summary["rows"] if row["split"] == "members"]
for row in rows:
    print(f"{row['mask']:10} {row['method']:12} {row['approximate_rate']:.0%} approximately")

figure, axis = pyplot.subplots(figsize=(5, 2.2))
for at, method in enumerate(plan.methods):
    rates = [row["approximate_rate"] for row in rows if row["method"] == method]
    axis.barh([place + 0.4 * at for place in range(len(masks))], rates, height=0.35, label=method)
axis.set(xlim=(0, 1), xlabel="members recovered approximately", yticks=[0.2, 1.2], yticklabels=list(masks))
axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig("own_method.png", bbox_inches="tight")
