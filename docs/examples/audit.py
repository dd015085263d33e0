"""Audit a model from Python: members against controls, and the records as a table. (After recover.py.)"""

import torch
from matplotlib import pyplot

import memrecon_fast as mf

splits = {name: mf.images.open_images(f"{name}.npy") for name in ("members", "controls")}
shape = splits["members"].image_shape
masks = {name: mf.degradation.make_mask(name, shape) for name in ("center", "random-80")}
plan = mf.audit.Audit(splits, masks, methods=("accelerated", "iterate"))

# an nn.Module does for the file; stopped at any time, the same call goes on
run = mf.audit.run(plan, "model.safetensors", "runs/audit", progress=False)

for row in run.summary["rows"]:
    print(f"{row['split']:9} {row['mask']:10} {row['method']:12} {row['approximate_rate']:.0%} approximately")

records = run.records  # a table of pyarrow: to_pandas() makes a DataFrame, a row for each image, mask and method
print(records.num_rows, "records:", ", ".join(records.column_names))
print("the report:", run.report)

kind = list(zip(*(records.column(name).to_pylist() for name in ("split", "method", "mse")), strict=True))
bins = torch.logspace(-16, 0, 49).tolist()
figure, axes = pyplot.subplots(2, 1, figsize=(7, 4), sharex=True)
for axis, method in zip(axes, plan.methods, strict=True):
    for split in splits:
        axis.hist([mse for one, by, mse in kind if (one, by) == (split, method)], bins, label=split, alpha=0.6)
    axis.axvline(mf.metrics.APPROXIMATE_MSE, color="black", linestyle=":")
    axis.set(xscale="log", ylabel=method)
axes[0].legend()
axes[1].set_xlabel("MSE of what came back; left of the line: approximately recovered")
figure.savefig("audit.png", bbox_inches="tight")
