from __future__ import annotations

import base64
import dataclasses
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import memrecon_fast as mf
from memrecon_fast.audit.gallery import LARGEST_SIDE, PICTURES, make_picture, read_pictures, write_pictures
from memrecon_fast.audit.records import Record
from memrecon_fast.audit.report import write_report
from memrecon_fast.audit.run import Audit, run_audit
from memrecon_fast.audit.sources import from_array
from memrecon_fast.audit.summary import describe, summarise, write_description
from tests.memorised import Memorised

SHAPE = (3, 8, 8)
EVIL = "<b onclick=x>&\"'{{ 7*7 }}$x_1$.png"


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def audit_into(folder: Path, memorised: Memorised, stop_after: int | None = None, **changes: object) -> None:
    members = from_array(memorised.members.numpy())
    names = (EVIL, *members.names[1:])
    audit = Audit(
        splits={
            "members": dataclasses.replace(members, names=names),
            "controls": from_array(memorised.controls.numpy()),
        },
        masks={name: mf.degradation.make_mask("half", SHAPE) for name in ("half", EVIL)},
        settings=mf.Settings(max_outer_iterations=6),
        backend="torch",
    )
    audit = dataclasses.replace(audit, **changes)  # type: ignore[arg-type]
    solvers = audit.prepare(memorised.autoencoder)
    write_description(folder, describe(audit, solvers, EVIL, dict.fromkeys(audit.splits, EVIL)))
    seen: list[Record] = []

    def report(record: Record) -> None:
        seen.append(record)
        if len(seen) == stop_after:
            raise KeyboardInterrupt

    try:
        run_audit(audit, solvers, folder, report)
    except KeyboardInterrupt:
        assert stop_after


@pytest.fixture(scope="module")
def folder(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    audit_into(folder, memorised)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(write_report(folder, summarise(folder)).read_text(encoding="utf-8"))


def test_the_report_needs_no_network(page: Page) -> None:
    for tag in ("script", "iframe", "object", "embed", "base", "video", "audio", "source"):
        assert not page.all(tag)
    for attributes in page.all("img"):
        assert (attributes["src"] or "").startswith(("data:image/png;base64,", "data:image/svg+xml;base64,"))
    for attributes in page.all("link"):
        assert (attributes["href"] or "").startswith("data:")
    for _, attributes in page.tags:
        assert not any(
            name == "href" and not (value or "").startswith(("#", "data:")) for name, value in attributes.items()
        )


def test_every_picture_has_a_text_for_those_who_cannot_see_it(page: Page) -> None:
    images = page.all("img")
    assert len(images) == 4 + 2 * 2 * PICTURES * 6  # charts; masks × splits × (original, degraded, 3 methods, a mask)
    assert all(attributes["alt"] for attributes in images)


def test_what_users_named_is_text_and_nothing_else(page: Page) -> None:
    assert not page.all("b")
    assert not any("onclick" in attributes for _, attributes in page.tags)
    assert EVIL in page.text
    assert any(attributes["alt"] == f"original of {EVIL}" for attributes in page.all("img"))


def test_the_gallery_shows_the_images(page: Page, memorised: Memorised) -> None:
    degraded = mf.degradation.erase(memorised.members, mf.degradation.make_mask("half", SHAPE))
    recovered = mf.recover(memorised.autoencoder, degraded, None, mf.Settings(max_outer_iterations=6), "torch")
    for alt, image in (
        (f"original of {EVIL}", memorised.members[0]),
        (f"degraded copy of {EVIL}", degraded[0]),
        (f"{EVIL} as recovered by paper", recovered.images[0]),
        (f"mask of {EVIL} as estimated by paper", recovered.masks[0].float()),
    ):
        (first, *_) = [one for one in page.all("img") if one["alt"] == alt]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode((first["src"] or "").split(",")[1]))))
        expected = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(shown, expected)


def test_the_numbers_are_those_of_the_summary(page: Page, folder: Path) -> None:
    for row in summarise(folder)["rows"]:
        assert f"{row['mean_psnr']:.1f}" in page.text
        assert f"{100 * row['approximate_rate']:.1f}".removesuffix(".0") in page.text
    assert "ended early" not in page.text


def test_the_same_run_gives_the_same_report(folder: Path) -> None:
    first = write_report(folder, summarise(folder)).read_bytes()
    assert write_report(folder, summarise(folder)).read_bytes() == first


def test_the_headline_counts_members_that_came_back_under_any_mask(page: Page, folder: Path) -> None:
    back = set()
    for path in (folder / "records").glob("members.paper.*"):
        import pyarrow.parquet as pq

        back |= {row["index"] for row in pq.read_table(path).to_pylist() if row["approximate"]}
    assert back
    assert f"{len(back)} of 16 training images" in page.text
    assert "none came back" in " ".join(page.text.split())


def test_a_run_that_was_ended_early_says_so(memorised: Memorised, tmp_path: Path) -> None:
    audit_into(tmp_path, memorised, stop_after=40)
    page = Page(write_report(tmp_path, summarise(tmp_path)).read_text(encoding="utf-8"))
    assert "ended early: 152 recoveries of" in " ".join(page.text.split())
    assert "not reached" in page.text


def test_the_columns_of_the_gallery_keep_their_headers_where_pictures_are_missing(
    memorised: Memorised, tmp_path: Path
) -> None:
    audit_into(tmp_path, memorised, stop_after=40)
    html = write_report(tmp_path, summarise(tmp_path)).read_text(encoding="utf-8")
    tables = html.split('<table class="gallery">')[1:]
    assert tables
    for table in tables:
        rows = [row.split("</tr>")[0] for row in table.split("</table>")[0].split("<tr>")[1:]]
        assert [rows[0].count(f"<th>{method}</th>") for method in ("paper", "known-mask", "iterate")] == [1, 1, 1]
        assert {row.count("<td") for row in rows[1:]} == {rows[0].count("<th")}
    assert "<td></td>" in html


def test_a_run_without_controls(memorised: Memorised, tmp_path: Path) -> None:
    members = from_array(memorised.members.numpy())
    audit_into(tmp_path, memorised, splits={"members": members}, methods=("iterate",))
    page = Page(write_report(tmp_path, summarise(tmp_path)).read_text(encoding="utf-8"))
    assert "controls" not in page.text


def test_pictures_survive_their_file_and_large_ones_are_reduced(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = [make_picture(index, *torch.rand(4, 1, 5, 9).unbind()) for index in (3, 1)]
    write_pictures(tmp_path / "a.npz", small)
    for read, written in zip(read_pictures(tmp_path / "a.npz"), small[::-1], strict=True):
        for field in dataclasses.fields(read):
            np.testing.assert_array_equal(getattr(read, field.name), getattr(written, field.name))
    large = make_picture(0, *torch.rand(4, 3, 4 * LARGEST_SIDE, 2 * LARGEST_SIDE).unbind())
    assert large.original.shape == (3, LARGEST_SIDE, LARGEST_SIDE // 2)
    assert read_pictures(tmp_path / "absent.npz") == []
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    whole = (tmp_path / "a.npz").read_bytes()
    for bad in (b"nothing", whole[: len(whole) // 2], whole[:60] + bytes(60) + whole[120:]):
        (tmp_path / "bad.npz").write_bytes(bad)
        with pytest.raises(ValueError, match=r"bad\.npz"):
            read_pictures(tmp_path / "bad.npz")


def test_a_picture_of_a_diverged_estimate_is_black_or_white() -> None:
    lost = torch.tensor([float("nan"), float("inf"), -float("inf"), 2.0]).view(1, 2, 2)
    assert make_picture(0, lost, lost, lost, lost).recovered.tolist() == [[[0, 255], [0, 255]]]
