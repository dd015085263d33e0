"""What a survey says in words: the headline, and what must be said beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MUCH_UNSEEN = 0.05
"""Of the starts: above it, a harvest is far from its end."""
UNTRUSTED = (
    "The largest modulus ρ of an eigenvalue says nothing alone: a net that was never trained has a small one "
    "everywhere, and so have many images that are no fixed points. It counts only where ‖f(x) − x‖²/d is small."
)


def headlines(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sentences at the top, each in two parts, the first of which is emphasised. summary: of `make_summary`."""
    return [*_of_members(summary), *_of_harvest(summary), *_of_one_step(summary)]


def _of_members(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rows = {row["split"]: row for row in summary["stability"]}
    members, controls = rows.get("members"), rows.get("controls")
    if members is None:
        return
    beside = ""
    if controls is not None:
        beside = f"; {_some(controls['attractor'])} of {controls['images']} controls, which it never saw"
    yield (
        f"{_some(members['attractor'], capital=True)} of {members['images']} training images",
        f"{'is an attractor' if members['attractor'] == 1 else 'are attractors'}: applied again and again, the model "
        f"falls back into {'it' if members['attractor'] == 1 else 'them'}{beside}.{_of_the_rest(members)}",
    )


def _of_the_rest(members: Mapping[str, Any]) -> str:
    """Said where it is most of them."""
    rest = {"marginal": "marginal", "repeller": "repellers", "no_fixed_point": "without a fixed point near"}
    counts = [f"{members[name]} {words}" for name, words in rest.items() if members[name]]
    return f" The others: {', '.join(counts)}." if counts and 2 * members["attractor"] < members["images"] else ""


def _of_harvest(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    harvest = summary["harvest"]
    if harvest is None or harvest["found"] is None:
        return
    found = harvest["found"]
    nothing = f"with no degraded copy and no original, from {harvest['starts']} random starts"
    if "members" not in summary["images"]:
        yield (
            f"{_some(found['fixed_points'], capital=True)} different {_images(found['fixed_points'])}",
            f"came out of nothing, {nothing}. Only who knows the training images can tell whether they are among them.",
        )
        return
    controls = ""
    if "controls" in summary["images"]:
        controls = f"; of {summary['images']['controls']} controls {_some(found['controls'])}"
    if found["others"]:
        neither = "no training image and no control" if "controls" in summary["images"] else "no training image"
        like = f", {found['resemble']} of them resembling the nearest one" if found["resemble"] else ""
        more = f"{found['others']} more {_images(found['others'])} that {_are(found['others'])}"
        controls += f"; and {more} {neither}{like}"
    yield (
        f"{_some(found['members'], capital=True)} of {summary['images']['members']} training images",
        f"came out of nothing, {nothing}{controls}.",
    )


def _of_one_step(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where the net super-attracts."""
    curve = summary["curve"]
    if curve is None or curve["times"][0] != 1 or not curve["share"][0]:
        return
    members = f"{curve['different'][0]} training {_images(curve['different'][0])}"
    yield (
        f"One application made {curve['share'][0]:.1%} of {curve['starts']} random starts",
        f"into {members}.",
    )


def in_words_of_median(basins: Mapping[str, Any]) -> str:
    """How far the median member reaches, in one sentence. basins: an entry of the summary."""
    noise = basins["degradation"] == "noise"
    level = basins["levels"][0] if basins["median_censoring"] == "below" else basins["median"]
    reach = f"noise of σ = {level:g}" if noise else f"{level:.0%} of the pixels erased"
    if basins["median_censoring"] == "below":
        return f"The median member does not come back even from {reach}."
    further = ", the most that was tried" if basins["median_censoring"] == "at_or_above" else ""
    return f"The median member comes back from {reach}{further}."


def remarks_of(summary: Mapping[str, Any]) -> list[str]:
    """What must be said beside the numbers, in lines: for the terminal and the report."""
    found = []
    if summary["missing"]:
        words = ", ".join(f"{count} rows of {name}" for name, count in summary["missing"].items())
        found.append(f"This run is not complete: {words} are missing.")
    harvest = summary["harvest"]
    if harvest is not None and harvest["found"] is None:
        found.append("The harvest is not complete: what was found is told once all starts are done.")
    elif harvest is not None and harvest["unseen_share"] > MUCH_UNSEEN:
        found.append(
            f"About {harvest['unseen_share']:.0%} of further starts would bring something new: what this harvest did "
            "not find may come out of a longer one."
        )
    found += [line for basins in summary["basins"] for line in _of_basins(basins)]
    if summary["near_duplicates"]:
        found.append(
            f"{summary['near_duplicates']} of {summary['images']['controls']} controls are nearly a member (a mean "
            "squared error below 5·10⁻⁴): where that member is an attractor, so are they."
        )
    unusable = [f"{count} {split}" for split, count in summary["unusable"].items() if count]
    if unusable:
        found.append(f"{' and '.join(unusable)} could not be used, and are in no number.")
    return found


def _of_basins(basins: Mapping[str, Any]) -> Iterator[str]:
    """What must be known before its numbers are believed."""
    way = "noise" if basins["degradation"] == "noise" else "missing pixels"
    said = {
        "began_near": "were hardly changed by it: that they come back says nothing",
        "unsettled": "still moved when iterations were over",
        "diverged": "diverged",
    }
    for name, words in said.items():
        levels = [f"{count} at {level:g}" for level, count in zip(basins["levels"], basins[name], strict=True) if count]
        if levels:
            yield f"Basins by {way}: of {basins['images']} members, in most draws, {', '.join(levels)} {words}."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


def _some(count: int, capital: bool = False) -> str:
    """A number as it stands in a sentence."""
    return str(count) if count else "None" if capital else "none"
