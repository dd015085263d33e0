"""What must be said beside the rates of a run, in lines: images that do not count, controls that are no controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from memrecon_fast.common.text import listed
from memrecon_fast.metrics import THRESHOLD_NAMES


def remarks_of(summary: Mapping[str, Any]) -> list[str]:
    """Sentences for the terminal and the report; none where there is nothing to say. summary: of `make_summary`."""
    found = (_nothing_erased, _told, _controls, _low_contrast, _copies)
    return [sentence for remarks in found for sentence in remarks(summary)]


def given_out_of(summary: Mapping[str, Any]) -> list[str]:
    """Which training images came out of other images, in sentences, the worst first; none where none did.

    summary: of `make_summary`. Counted are all methods that use the model.
    """
    found = summary.get("given_out", {}).get("by_model", {})  # nothing is known without originals
    controls, members = (found.get(split, {"members": 0}) for split in ("controls", "members"))
    words = []
    if controls["members"]:
        pictures = "a picture" if controls["images"] == 1 else f"{controls['images']} pictures"
        words.append(
            f"Shown {pictures} it had never seen, the model gave out {controls['members']} of its training images."
        )
    if members["members"]:
        different = "one" if members["members"] == 1 else f"{members['members']} different ones"
        words.append(
            f"For {members['giving']} of {members['images']} members another training image came out under some mask: "
            f"{different}."
        )
    return words


def _nothing_erased(summary: Mapping[str, Any]) -> Iterator[str]:
    left_out: dict[tuple[str, str], tuple[int, int]] = {}  # by mask and split, of the method with the most
    for row in summary["rows"]:
        found = (row["nothing_erased"], row["images"] + row["nothing_erased"])
        key = (row["mask"], row["split"])
        left_out[key] = max(found, left_out.get(key, (0, 0)))
    words = [
        f"{count} of {images} {split}" + ("" if summary["degraded"] else f" under {mask}")
        for (mask, split), (count, images) in left_out.items()
        if count
    ]
    if words and summary["degraded"]:
        yield (
            f"{', '.join(words)} were left out: the estimates are hardly more than what was given, so that nothing was "
            "erased of these images, or nothing was found."
        )
    elif words:
        yield (
            f"{', '.join(words)} were left out: nothing of them was erased, as the degraded copy passes for the image."
        )
    if summary["erased_unknown"]:
        yield (
            f"{summary['erased_unknown']} recoveries were recorded by an earlier version, without how much was erased: "
            "they count even where that was nothing."
        )


def _told(summary: Mapping[str, Any]) -> Iterator[str]:
    """Methods that are given the mask stand beside blind ones."""
    told = [method for method, traits in summary.get("traits", {}).items() if traits["mask"] == "given"]
    if told and len(told) < len(summary["traits"]):
        yield f"{listed(told)} {'were' if len(told) > 1 else 'was'} told which pixels are missing."


def _controls(summary: Mapping[str, Any]) -> Iterator[str]:
    same, controls = summary["copies"]["controls_in_members"], summary["images"].get("controls", 0)
    if same and summary["degraded"]:
        yield (
            f"{same} of {controls} controls are members, with the same pixels: the threshold is set so that nothing "
            "like them is recognized."
        )
        return
    near = summary.get("near_duplicates", {"count": 0})["count"] - same
    words = [f"{same} of {controls} controls are members, with the same pixels"] if same else []
    words += [f"{near} of {controls} controls are nearly a member"] if near > 0 else []
    if words:
        yield (
            f"{', '.join(words)}: what comes back of them is that member; they are left out where members are compared "
            "with controls, and count in the rates of the controls."
        )


def _low_contrast(summary: Mapping[str, Any]) -> Iterator[str]:
    found = {split: one for split, one in summary.get("low_contrast", {}).items() if one and one["approximate"]}
    words = [f"{one['approximate']} of {summary['images'][split]} {split}" for split, one in found.items()]
    if words:
        yield (
            f"{listed(words)} came back that have little contrast: their mean colour alone passes for them, as "
            f"its mean squared error, the variance of their pixels, is below {THRESHOLD_NAMES['approximate']}, the "
            "limit of an approximate recovery. Any estimate near it counts as one, and tells nothing of the model."
        )


def _copies(summary: Mapping[str, Any]) -> Iterator[str]:
    for split, (copies, originals) in summary["copies"]["within"].items():
        if copies:
            images = "image" if originals == 1 else "images"
            yield (
                f"{copies} of {summary['images'][split]} {split} are copies of {originals} {images}, and count as "
                "often as they are there."
            )
