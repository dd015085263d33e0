"""What a reconstruction says in words: the headlines, and what must be said beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memrecon_fast.common.text import counted
from memrecon_fast.reconstruction.pictures import PIXELS, STANDARDISED


def headlines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sentences at the top, one for each target, in two parts, the first of which is emphasised."""
    return [_headline(target, len(summary["targets"]) > 1) for target in summary["targets"]]


def _headline(target: Mapping[str, Any], several: bool) -> tuple[str, str]:
    of = f"{target['name']}: " if several else ""
    if not target["done"]:
        return f"{of}not done yet.", ""
    truth = target["truth"]
    left = f"{target['residual']:.1e} of what the last layer learned is left"
    if target["certain"]:
        left = "they were found in what the units of the first layer learned"
    if truth is not None:
        rest = (
            f"came back from {_of_parameters(target)} alone, to within 1 % of their length (mean error ρ "
            f"{truth['error']:.1e}); {left}."
        )
        if truth["rescaled"] is not None:
            first = f"{of}{truth['rescaled']['recovered']} of {counted(truth['images'], 'training image')} came out"
            return first, f"of {_of_parameters(target)} alone, in another scaling than was said: see below; {left}."
        return f"{of}{truth['recovered']} of {counted(truth['images'], 'training image')}", rest
    if target["certain"]:
        return f"{of}{counted(target['found'], 'training input')} came out:", f"{left}."
    if target["explained"]:
        found = f"{of}{counted(target['found'], 'input')} explain what the last layer learned"
        return found, f"from {target['p']} parameters, but for {target['residual']:.1e} of it."
    if target["verdicts"]["likely"]:
        likely = f"{of}{counted(target['verdicts']['likely'], 'input')}, found by every start, may be right"
        return likely, f"though not all is explained: {left}."
    return (
        f"{of}Nothing that is to be believed came back.",
        f"No {counted(target['found'], 'input')} were found that explain what the last layer learned: {left}.",
    )


def _of_parameters(target: Mapping[str, Any]) -> str:
    return "the weights" if target["certain"] else f"{target['p']} parameters"


def remarks_of(summary: Mapping[str, Any]) -> list[str]:
    """What must be said beside the results, one line each."""
    found = []
    for target in summary["targets"]:
        of = f"{target['name']}: " if len(summary["targets"]) > 1 else ""
        found += [f"{of}{remark}" for remark in (_of_target(target, summary["plan"]) if target["done"] else ())]
    return found


def _of_target(target: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterator[str]:
    if target["moved"] and not target["certain"]:
        yield (
            f"The body of the net was trained, too; features of these inputs moved by {target['moved']:.1e} of their "
            "length. Up to about as much of what the last layer learned is left by the true inputs, too: believe "
            "what several starts find."
        )
    if not target["explained"]:
        yield (
            f"{target['residual']:.1e} of what the last layer learned is not explained, where "
            f"{plan['settings']['tolerance']:.0e} or less is expected. Either the search was not successful "
            "(more starts help, and it takes about 2.5·n·d parameters), there are more inputs than were looked for, or "
            "these are not the features that it was trained on: another V or seed, other initial weights, a body that "
            "moved. It does not show that nothing can be got back."
        )
    asked = plan["images"]
    if asked is not None and target["found"] < asked and target["explained"]:
        yield f"{target['found']} inputs explain it all, fewer than {asked}: some may have been there twice."
    if target["starts_made"] < target["starts"]:
        yield f"{target['starts_made']} of {target['starts']} starts were made so far."
    unknown = target["found"] - target["signs_known"]
    if unknown and target["explained"]:
        yield f"Of {counted(unknown, 'input')} the sign is not known: −x, a negative, explains as much as x."
    by_parameters = target["explained"] and not target["certain"]
    if target["found"] * target["d"] * 2.5 > target["p"] and by_parameters:
        ratio = target["p"] / (target["found"] * target["d"])
        yield f"There are only {ratio:.1f} parameters for each number that was unknown; it is safe from about 2.5 on."
    truth = target["truth"]
    if truth is not None and truth["rescaled"] is not None:
        yield (
            f"{counted(truth['rescaled']['recovered'], 'training image')} came out, but not in the scaling that was "
            f"said: {_said(truth['rescaled']['scaling'])}. Errors and what counts as back are wrong until then."
        )
    if truth is not None and truth["missing"]:
        yield f"For {counted(truth['missing'], 'training image')} there was nothing left to compare it with."
    if truth is not None and target["found"] > truth["images"]:
        yield f"{target['found'] - truth['images']} more came out than there are images to compare with."


def _said(scaling: Mapping[str, Any] | None) -> str:
    """How a scaling is said to the command."""
    if scaling is None:
        return "another one for each, that can only be told by what was done to pictures before training"
    if scaling["name"] == STANDARDISED:
        return f"say --scaling {STANDARDISED}"
    mean, std = (",".join(f"{one:.4g}" for one in scaling[name]) for name in ("mean", "std"))
    return f"say --scaling {PIXELS} --mean={mean} --std={std}"
