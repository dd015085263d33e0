from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import memrecon_fast as mf
from memrecon_fast.audit.analysis.groups import HEADINGS
from memrecon_fast.audit.analysis.results import Results, read_results
from memrecon_fast.audit.analysis.sheet import best_first
from memrecon_fast.audit.analysis.statistics import GROUPS, IN_EACH_GROUP, choose_shown
from memrecon_fast.audit.report import showcase
from memrecon_fast.audit.report.embedding import Encoding, embed_image, embed_mask
from memrecon_fast.audit.report.page import write_report
from memrecon_fast.audit.report.summary import summarise
from memrecon_fast.audit.store.pictures import (
    LARGEST_SIDE,
    Picture,
    make_picture,
    read_pictures,
    write_pictures,
)
from memrecon_fast.audit.store.records import Cell
from tests.helpers.auditing import SHAPE, images_of, run, small_audit
from tests.helpers.made_run import make_run
from tests.helpers.memorised import Memorised

EVIL = "<b onclick=x>&\"'{{ 7*7 }}$x_1$.png"
CHARTS = 6
SIX_ITERATIONS = mf.Settings(max_outer_iterations=6, solver="paper")
SHOWN = len(GROUPS) * IN_EACH_GROUP
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOST, UNDONE = np.inf, np.nan
A, P, N = 1e-8, 1e-5, 1e-2  # accurate, approximate, not recovered


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("style", "script", "nav", "select"):
            self._hidden = tag

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report_of(results: Results) -> str:
    return write_report(results, summarise(results)).read_text(encoding="utf-8")


def words(page: Page) -> str:
    return " ".join(page.text.split())


def pixels_of(address: str | None) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode((address or "").split(",")[1])))
    return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def folder(memorised: Memorised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("all") / "run"
    members = images_of(memorised.members)
    members = dataclasses.replace(members, names=(EVIL, *members.names[1:]))
    audit = small_audit(
        memorised,
        splits={"members": members, "controls": images_of(memorised.controls)},
        masks={name: mf.degradation.make_mask("half", SHAPE) for name in ("half", EVIL)},
        settings=SIX_ITERATIONS,
    )
    run(audit, memorised.autoencoder, path)
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(report_of(read_results(folder)))


def test_the_report_needs_no_network(page: Page) -> None:
    for tag in ("iframe", "object", "embed", "base", "video", "audio", "source", "form"):
        assert not page.all(tag)
    assert page.all("script") == [{}]
    for attributes in page.all("img"):
        assert (attributes["src"] or "").startswith(("data:image/png;base64,", "data:image/svg+xml;base64,"))
    allowed = ("verdicts.csv", "records/")
    links = [attributes["href"] or "" for _, attributes in page.tags if "href" in attributes]
    assert all(link.startswith(("#", "data:")) or link in allowed for link in links)
    assert {*allowed} <= {*links}


def test_no_script_runs_but_the_one_that_is_the_reports(page: Page, folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_each_section_is_in_the_contents(page: Page) -> None:
    links = [attributes["href"] for attributes in page.all("a") if (attributes["href"] or "").startswith("#")]
    ids = [attributes["id"] for attributes in page.all("h2")]
    assert len(ids) == len(set(ids)) >= 12
    assert links[: len(ids)] == [f"#{one}" for one in ids]


def test_every_picture_has_a_text_for_those_who_cannot_see_it(page: Page) -> None:
    images = page.all("img")
    of_controls = [one for one in images if "control" in (one["alt"] or "") and one["class"] == "pixels"]
    on_sheet = 2 * 16
    assert len(of_controls) >= 3 * 3  # by each method: the control, what was shown, what came out; and then the member
    assert len(of_controls) % 3 == 0
    given_out = 4 * len(of_controls) // 3
    # masks × splits × (original, degraded, 3 methods, a mask)
    assert len(images) == CHARTS + on_sheet + 2 * 2 * SHOWN * 6 + given_out
    assert all(attributes["alt"] for attributes in images)


def test_what_users_named_is_text_and_nothing_else(page: Page) -> None:
    assert not page.all("b")
    assert not any("onclick" in attributes for _, attributes in page.tags)
    assert EVIL in page.text


def test_what_users_named_is_text_in_lists_too(tmp_path: Path) -> None:
    errors = {Cell(split, EVIL, method): [UNDONE, A, A] for split in ("members", "controls") for method in ("paper",)}
    errors |= {Cell(split, EVIL, "iterate"): [UNDONE, N, N] for split in ("members", "controls")}
    names = {split: [f"{split}{what}{EVIL}" for what in ("bad", "good", "other")] for split in ("members", "controls")}
    results = make_run(
        tmp_path,
        errors,
        names=names,
        problems={split: {0: f"why{EVIL}"} for split in names},
        near_duplicates={1: 2},
        model=EVIL,
    )
    results.description["sessions"][0]["machine"]["processor"] = f"chip{EVIL}"
    page = Page(report_of(results))
    assert not page.all("b")
    assert not any("onclick" in attributes for _, attributes in page.tags)
    for name in (
        "membersbad",
        "controlsbad",
        "why",
        "controlsgood",
        "membersother",
        "membersgood",
        "chip",
        "audit of ",
    ):
        assert name + EVIL in page.text


@pytest.mark.parametrize("group", GROUPS)
def test_the_gallery_shows_the_images(folder: Path, page: Page, memorised: Memorised, group: str) -> None:
    degraded = mf.degradation.erase(memorised.members, mf.degradation.make_mask("half", SHAPE))
    recovered = mf.recover(memorised.autoencoder, degraded, None, SIX_ITERATIONS, "torch")
    errors = mf.metrics.mse(recovered.images, memorised.members)
    order = errors.argsort().tolist()
    logarithms = [abs(math.log(mse / limit)) for mse in errors.tolist() for limit in (1e-7, 5e-4)]
    nearest = min(order[IN_EACH_GROUP:-IN_EACH_GROUP], key=lambda one: min(logarithms[2 * one : 2 * one + 2]))
    index = {"best": order[0], "borderline": nearest, "worst": order[-1]}[group]
    name = EVIL if index == 0 else str(index)
    for alt, image in (
        (f"original of {name}", memorised.members[index]),
        (f"degraded copy of {name}", degraded[index]),
        (f"{name} as recovered by paper", recovered.images[index]),
        (f"mask of {name} as estimated by paper", recovered.masks[index].float()),
    ):
        (first, *_) = [one for one in page.all("img") if one["alt"] == alt]
        expected = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(pixels_of(first["src"]), expected)


def test_the_galleries_have_groups(page: Page) -> None:
    sections = page.text.split("Gallery")[1].split("How this was made")[0].split("estimated mask")[2:]
    assert len(sections) == 2 * 2
    for section in sections:
        found = [line.strip() for line in section.splitlines() if line.strip() in HEADINGS]
        assert found == [heading for heading in HEADINGS if heading in found]
        assert found[0] == "best"
        assert len(found) >= len(GROUPS) - 1


def test_the_numbers_are_those_of_the_summary(page: Page, folder: Path) -> None:
    summary = summarise(read_results(folder))
    assert len(summary["rows"]) == 12
    for row in [*summary["rows"], *summary["rows_over_masks"]]:
        for verdict in ("approximate", "accurate"):
            assert f"{100 * row[f'{verdict}_rate']:.1f}".removesuffix(".0") in page.text
            low, high = row[f"{verdict}_interval"]
            assert f"{100 * low:.1f} – {100 * high:.1f}" in page.text
    for row in summary["rows"]:
        assert f"{row['mean_psnr']:.1f}" in page.text
    for row in [*summary["comparisons"], *summary["comparisons_over_masks"]]:
        for at in row["at"]:
            assert f"{at['threshold']:.1e}" in page.text
    for digest in (summary["plan"]["model"], *summary["plan"]["images"].values()):
        assert digest in page.text
    assert "not complete" not in page.text
    assert "could not be used" not in page.text


def test_the_same_run_gives_the_same_report(folder: Path) -> None:
    assert report_of(read_results(folder)) == report_of(read_results(folder))


def test_the_headline_counts_members_that_came_back_under_any_mask(page: Page, folder: Path) -> None:
    cells = read_results(folder).cells
    back = set()
    for mask in ("half", EVIL):
        columns = cells[Cell("members", mask, "paper")]
        back |= set(columns["index"][columns["approximate"]].tolist())
    assert back
    assert f"{len(back)} of 16 training images" in page.text
    assert "none came back" in words(page)


def test_a_run_that_was_ended_early_says_so(tmp_path: Path) -> None:
    errors = {
        Cell("members", "half", "paper"): [A, A, N],
        Cell("controls", "half", "paper"): [N, N, N],
        Cell("members", "half", "iterate"): [N, UNDONE, UNDONE],
        Cell("controls", "half", "iterate"): [UNDONE, UNDONE, UNDONE],
    }
    results = make_run(tmp_path, errors, unfinished=[Cell("members", "half", "iterate")], sessions=2)
    results.description["sessions"][0]["workers"] = 3
    results.description["sessions"][1]["seconds"] = None
    html = report_of(results)
    text = words(Page(html))
    assert "5 recoveries of 12 are missing" in text
    assert "not reached" in text
    assert "not done" in text
    assert "2 sessions, 12.5 s" in text
    assert "not ended in order" in text
    assert "7 recoveries in 12.5 s, 3 workers" in text
    assert "paper: cpp, captured, 64 slots" in text


def test_the_galleries_of_a_run_that_was_ended_early_show_what_is_there(tmp_path: Path) -> None:
    errors = {Cell("members", "half", "paper"): [A, UNDONE, N], Cell("members", "half", "iterate"): [UNDONE] * 3}
    page = Page(report_of(make_run(tmp_path, errors, unfinished=list(errors))))
    shown = [one["alt"] or "" for one in page.all("img") if "members-" in (one["alt"] or "")]
    assert len(shown) == 2 * 2 + 2 * 4  # on the contact sheet, in the gallery
    assert not any("members-1" in alt for alt in shown)


def test_what_a_method_made_of_an_image_is_said_where_its_picture_is_missing(tmp_path: Path) -> None:
    errors = {
        Cell("members", "half", "paper"): np.geomspace(1e-9, 1e-1, 30).tolist(),
        Cell("members", "half", "iterate"): [P] * 30,
        Cell("members", "half", "known-mask"): [N] * 29 + [UNDONE],
    }
    results = make_run(tmp_path, errors, unfinished=[Cell("members", "half", "known-mask")])
    (tmp_path / "gallery" / "members.iterate.half.npz").unlink()
    table = report_of(results).split('<table class="gallery">')[1].split("</table>")[0]
    rows = [row.split("</tr>")[0] for row in table.split('<tr class="image"')]
    columns = rows[0].count("<th data") + 3
    assert len(rows) == 1 + SHOWN
    assert {row.count("<td") for row in rows[1:]} == {columns}
    assert sum('–<div class="verdict approximate">50.0 dB' in row for row in rows) == SHOWN
    assert sum(row.count('data-error="1e-05"') for row in rows) == SHOWN
    assert sum("not done" in row for row in rows) == 1


def test_pictures_that_were_never_kept_leave_dashes(tmp_path: Path) -> None:
    results = make_run(tmp_path, {Cell("members", "half", "paper"): [A, N]})
    (tmp_path / "gallery" / "members.paper.half.npz").unlink()
    page = Page(report_of(results))
    assert len(page.all("img")) == CHARTS - 1  # no ROC
    assert page.text.count("–") >= 2 * 4


def tiles_of(html: str) -> list[tuple[str, str, str, str]]:
    """Of each tile: the name, the verdict, the mask, and what is said."""
    found = re.findall(
        r'<figure class="tile" data-name="(.*?)" data-verdict="(.*?)" data-mask="(.*?)">(.*?)</figure>', html, re.DOTALL
    )
    return [
        (name, verdict, mask, words(Page(said.replace("</div>", " </div>")))) for name, verdict, mask, said in found
    ]


def test_the_contact_sheet_says_what_came_back_and_from_how_little(tmp_path: Path) -> None:
    errors = {
        Cell("members", "easy", "paper"): [1e-12, 1e-9, A, P, N, LOST],
        Cell("members", "hard", "paper"): [1e-4, 1e-8, N, N, 1e-3, LOST],
        Cell("members", "easy", "iterate"): [N] * 6,
        Cell("members", "hard", "iterate"): [A] * 6,
    }
    html = report_of(make_run(tmp_path, errors))
    assert tiles_of(html) == [
        ("members-1.png", "accurate", "hard", "accurate, 80.0 dB under hard 2 of 2 members-1.png"),
        (
            "members-0.png", "accurate", "easy",
            "accurate, 120.0 dB under easy 2 of 2 approximate even under hard members-0.png",
        ),
        ("members-2.png", "accurate", "easy", "accurate, 80.0 dB under easy 1 of 2 members-2.png"),
        ("members-3.png", "approximate", "easy", "approximate, 50.0 dB under easy 1 of 2 members-3.png"),
        ("members-4.png", "not recovered", "hard", "not recovered, 30.0 dB closest under hard members-4.png"),
        ("members-5.png", "diverged", "hard", "diverged, 5.0 dB closest under hard members-5.png"),
    ]  # fmt: skip
    text = words(Page(html))
    assert "All 6 members, best first" in text
    assert "how exactly: hard, easy." in text
    assert "if it came back under at least one of two masks by the paper method" in text


def test_the_contact_sheet_of_a_real_run_has_all_members_and_what_came_back_of_them(
    folder: Path, page: Page, memorised: Memorised
) -> None:
    results = read_results(folder)
    standings, _ = best_first(results)
    assert len(standings) == 16
    of = {mask: {one.index: one for one in results.folder.thumbnails(Cell("members", mask, "paper"), range(16))}
          for mask in results.masks}  # fmt: skip
    assert [len(thumbnails) for thumbnails in of.values()] == [16, 16]
    shown = [one for one in page.all("img") if (one["alt"] or "").startswith("what came back of ")]
    for standing, image in zip(standings, shown, strict=True):
        expected = of[standing.mask][standing.index]
        np.testing.assert_array_equal(pixels_of(image["src"]), expected.recovered.transpose(1, 2, 0))
        member = (memorised.members[standing.index].clamp(0, 1) * 255).round().byte().numpy()
        np.testing.assert_array_equal(expected.original, member)


def test_a_run_whose_pictures_are_few_says_that_there_are_others(tmp_path: Path) -> None:
    """As of an earlier version, which kept those of the gallery alone."""
    errors = {Cell("members", "half", "paper"): np.geomspace(1e-9, 1e-1, 30)}
    results = make_run(tmp_path, errors)
    html = report_of(results)
    assert len(tiles_of(html)) == SHOWN
    assert "12 of 30 members, those of which a picture was kept, best first" in words(Page(html))
    (tmp_path / "gallery" / "members.paper.half.npz").unlink()
    assert "Which came back" not in report_of(results)


def test_a_run_without_controls(tmp_path: Path) -> None:
    html = report_of(make_run(tmp_path, {Cell("members", "half", "iterate"): [A, N]}))
    assert "controls" not in html
    assert "Near-duplicates" not in html
    assert "by one method alone" not in html
    assert "1 of 2 training images" in html


def test_a_run_where_everything_diverged(tmp_path: Path) -> None:
    errors = {Cell(split, "half", "paper"): [LOST] * 3 for split in ("members", "controls")}
    text = words(Page(report_of(make_run(tmp_path, errors))))
    assert "None of 3 training images came back" in text
    assert "diverged" in text


def test_one_image_only(tmp_path: Path) -> None:
    page = Page(report_of(make_run(tmp_path, {Cell("members", "half", "paper"): [A]})))
    assert "1 of 1 training images came back from degraded copies, all of them accurately" in words(page)
    assert len(page.all("img")) == CHARTS - 1 + 2 + 4


def test_near_duplicates_are_said_and_listed(tmp_path: Path) -> None:
    errors = {
        Cell("members", "half", "paper"): [A] * 30,
        Cell("controls", "half", "paper"): [A] * 25 + [N] * 5,
    }
    text = words(Page(report_of(make_run(tmp_path, errors, near_duplicates={i: i for i in range(24)}))))
    assert "25 came back, 24 of them near-duplicates of training images" in text
    assert "24 controls are left out here" in text
    assert "the first 20, and 4 more in verdicts.csv" in text
    assert "controls-19.png" in text.split("Near-duplicates")[1].split("Distribution")[0]
    assert "controls-20.png" not in text.split("Near-duplicates")[1].split("Distribution")[0]


def test_controls_that_are_all_near_duplicates_are_not_compared(tmp_path: Path) -> None:
    errors = {Cell(split, "half", "paper"): [A, A] for split in ("members", "controls")}
    text = words(Page(report_of(make_run(tmp_path, errors, near_duplicates={0: 0, 1: 1}))))
    assert "2 came back, all of them near-duplicates" in text
    assert "nothing to compare" in text


def test_images_of_one_method_alone_and_unusable_ones_are_listed(tmp_path: Path) -> None:
    errors = {
        Cell("members", "half", "paper"): [A, N, UNDONE],
        Cell("members", "half", "iterate"): [N, N, UNDONE],
    }
    text = words(Page(report_of(make_run(tmp_path, errors, problems={"members": {2: "it is empty"}}))))
    assert "paper, accurate: 1 members-0.png" in text
    assert "iterate, accurate: none" in text
    assert "1 images could not be used" in text
    assert "members-2.png it is empty" in text.replace("members-2.pngit", "members-2.png it")


def test_what_is_recognized_without_the_originals_is_said(page: Page, folder: Path) -> None:
    recognition = summarise(read_results(folder))["recognition"]
    assert len(recognition) == 2 * 2  # masks × methods, but for "iterate"
    text = page.text.split("Recognized without the original")[1].split("Recovered by one method alone")[0]
    for row in recognition:
        assert f"{row['threshold']:.1e}" in text
        assert f"{row['lowest_control']:.1e}" in text
        assert f"{row['auc']:.4f}" in text
        assert f"≤ {100 * row['false_positive_bound']:.1f}" in text
    assert "iterate" not in text


def test_without_controls_no_false_positives_are_spoken_of(tmp_path: Path) -> None:
    page = Page(report_of(make_run(tmp_path, {Cell("members", "half", "paper"): [A, N]})))
    text = page.text.split("Recognized without the original")[1].split("Distribution")[0]
    assert "There are no controls" in text
    assert "50.0 %" in text
    assert "≤" not in text


def test_the_report_of_degraded_images_says_that_their_originals_are_unknown(tmp_path: Path) -> None:
    picture = np.stack([np.full((3, 8, 8), level, np.uint8) for level in (10, 20, 30, 255)])
    errors = {
        Cell("members", "given", "accelerated"): [A, P, N, LOST],
        Cell("controls", "given", "accelerated"): [N, N, 5e-4],
    }
    names = {"members": ["a.png", "b.png", "c.png", "d.png"], "controls": ["e.png", "f.png", "g.png"]}
    page = Page(report_of(make_run(tmp_path, errors, names=names, picture=picture, degraded=True)))
    text = words(page)
    assert "2 of 4 degraded images were recognized as recovered. The originals are unknown" in text
    assert "none of the 3 controls, degraded images that the model was not trained on, is recognized" in text
    assert "≤ 63.2 %" in text
    assert "7.5e-05" in text
    for absent in ("dB", "accurate", "members", "training images", "Near-duplicates"):
        assert absent not in text
    gallery = text.split("Gallery")[1]
    assert "score 3.0e-09recognized" in gallery
    assert "score 3.0e-03not recognized" in gallery
    assert "diverged" in gallery
    shown = [one for one in page.all("img") if "a.png" in (one["alt"] or "")]
    levels = {one["alt"]: int(pixels_of(one["src"])[0, 0, 0]) for one in shown}
    assert levels == {
        "given image a.png": 20,
        "what came back of a.png": 30,
        "a.png as recovered by accelerated": 30,
        "mask of a.png as estimated by accelerated": 255,
    }


def test_degraded_images_without_controls(tmp_path: Path) -> None:
    text = words(Page(report_of(make_run(tmp_path, {Cell("members", "given", "known-mask"): [A]}, degraded=True))))
    assert "1 of 1 degraded images was recognized" in text
    assert "There are no controls, so nothing is known of the rate of false positives" in text
    assert "≤" not in text


def test_many_large_pictures_are_shown_with_fewer_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), np.uint8)
    errors = {Cell("members", "half", "paper"): np.geomspace(1e-9, 1e-1, 30)}
    results = make_run(tmp_path, errors, shape=(3, 64, 64), picture=picture)
    for most, side, kind in ((9_000_000, 64, "png"), (SHOWN * 25_000, 64, "webp"), (SHOWN * 6_000, 32, "webp")):
        monkeypatch.setattr(showcase, "MAX_CHARACTERS", most)
        (part,) = showcase.make_showcase(results)
        shown = [
            image[name] for group in part["groups"] for image in group["images"] for name in ("original", "degraded")
        ]
        assert len(shown) == SHOWN * 2
        assert {one.partition(";")[0] for one in shown} == {f"data:image/{kind}"}
        assert {pixels_of(one).shape for one in shown} == {(side, side, 3)}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reduce", [1, 2])
def test_embedded_pictures_are_what_was_given(channels: int, reduce: int) -> None:
    encoding = Encoding(reduce)
    random = np.random.default_rng(0)
    mask = (random.random((channels, 4, 6)) < 0.5).repeat(reduce, 1).repeat(reduce, 2) * np.uint8(255)
    image = random.integers(0, 256, (channels, 4, 6), np.uint8).repeat(reduce, 1).repeat(reduce, 2)
    for address, pixels in ((embed_mask(mask, encoding), mask), (embed_image(image, encoding), image)):
        expected = np.broadcast_to(pixels[:, ::reduce, ::reduce], (3, 4, 6)).transpose(1, 2, 0)
        np.testing.assert_array_equal(pixels_of(address), expected)


def browse(path: Path, profile: Path) -> Page:
    """The page that a browser makes of a file; nothing may be written on its console."""
    assert CHROMIUM
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    arguments = [CHROMIUM, *options, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" not in done.stderr
    return Page(done.stdout)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_renders_the_report(folder: Path, tmp_path: Path) -> None:
    path = write_report(results := read_results(folder), summarise(results))
    assert "of 16 training images" in browse(path, tmp_path).text


def measured(folder: Path, tmp_path: Path, expression: str) -> str:
    """What this script, let into the report, measures in a browser."""
    html = (folder / "report.html").read_text(encoding="utf-8")
    script = f"<script>document.body.dataset.measured = (() => {{ {expression} }})();</script></body>"
    (policy,) = re.findall(r"script-src '[^']*'", html)
    path = tmp_path / "report.html"
    html = html.replace(policy, "script-src 'unsafe-inline'").replace("</body>", script)
    path.write_text(html, encoding="utf-8")
    (body,) = browse(path, tmp_path / "profile").all("body")
    return body["data-measured"] or ""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_galleries_open_in_a_browser(page: Page, folder: Path, tmp_path: Path) -> None:
    expression = """
    const galleries = [...document.querySelectorAll("details")].filter(one => one.querySelector(".gallery"));
    const open = () => galleries.filter(one => one.getBoundingClientRect().height > 200).length;
    const before = open();
    galleries.filter(one => !one.open).forEach(one => one.querySelector("summary").click());
    const broken = [...document.images].filter(one => !one.complete || !one.naturalWidth).length;
    const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
    return [galleries.length, before, open(), broken, wide];"""
    # of two masks and splits; and of what came out of controls by one method
    assert measured(folder, tmp_path, expression) == "5,2,5,0,false"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_galleries_and_contact_sheet_are_filtered_and_sorted(page: Page, folder: Path, tmp_path: Path) -> None:
    expression = """
    const set = (of, name, value) => {
      const one = document.querySelector(`.filters[data-of=${of}] [name=${name}]`);
      one.value = value;
      one.dispatchEvent(new Event("input", {bubbles: true}));
    };
    const seen = what => [...document.querySelectorAll(what)].filter(one => one.offsetParent !== null);
    const bars = seen(".filters").length;
    set("sheet", "name", "<B ON");
    const tiles = seen(".tile").map(one => one.dataset.name);
    set("sheet", "name", "");
    const all = seen(".tile").length;
    set("gallery", "mask", "half"); set("gallery", "split", "members");
    set("gallery", "method", "iterate"); set("gallery", "verdict", "not recovered");
    set("gallery", "order", "worst");
    const rows = seen("tr.image");
    const cells = rows.map(row => row.querySelector("td[data-verdict]:not([hidden])"));
    const errors = cells.map(cell => Number(cell.dataset.error));
    const sorted = errors.every((error, at) => !at || error <= errors[at - 1]);
    const right = cells.every(cell => cell.dataset.method === "iterate" && cell.dataset.verdict === "not recovered");
    const sections = seen("details.cell").length;
    for (const name of ["mask", "split", "method", "verdict", "order"]) set("gallery", name, "");
    return JSON.stringify([bars, tiles, all, rows.length, sorted, right, sections, seen("details.cell").length]);"""
    columns = read_results(folder).cells[Cell("members", "half", "iterate")]
    shown = choose_shown(read_results(folder).cells[Cell("members", "half", "paper")])
    failed = [index for index in shown if not columns["approximate"][index]]
    assert len(failed) > 1
    assert json.loads(measured(folder, tmp_path, expression)) == [2, [EVIL], 16, len(failed), True, True, 1, 4]


def test_pictures_survive_their_file_and_large_ones_are_reduced(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = [Picture(index, *make_picture(*torch.rand(4, 1, 5, 9).unbind())) for index in (3, 1)]
    write_pictures(tmp_path / "a.npz", small)
    for read, written in zip(read_pictures(tmp_path / "a.npz"), small[::-1], strict=True):
        for field in dataclasses.fields(read):
            np.testing.assert_array_equal(getattr(read, field.name), getattr(written, field.name))
    large = make_picture(*torch.rand(4, 3, 4 * LARGEST_SIDE, 2 * LARGEST_SIDE).unbind())
    assert large.shape == (5, 3, LARGEST_SIDE, LARGEST_SIDE // 2)
    assert read_pictures(tmp_path / "absent.npz") == []
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    whole = (tmp_path / "a.npz").read_bytes()
    for bad in (b"nothing", whole[: len(whole) // 2], whole[:60] + bytes(60) + whole[120:]):
        (tmp_path / "bad.npz").write_bytes(bad)
        with pytest.raises(ValueError, match=r"bad\.npz"):
            read_pictures(tmp_path / "bad.npz")


def test_a_picture_of_a_diverged_estimate_is_black_or_white() -> None:
    lost = torch.tensor([float("nan"), float("inf"), -float("inf"), 2.0]).view(1, 2, 2)
    assert make_picture(lost, lost, lost, lost)[2].tolist() == [[[0, 255], [0, 255]]]


@pytest.mark.parametrize("degraded", [False, True])
def test_the_control_that_lowers_a_threshold_is_named(tmp_path: Path, degraded: bool) -> None:
    mask, method = ("given", "accelerated") if degraded else ("half", "paper")

    def said(score: float, **changes: Any) -> str:
        """Scores are 0.3 of the errors."""
        cells = {Cell("members", mask, method): [A], Cell("controls", mask, method): [N, score / 0.3]}
        return words(Page(report_of(make_run(tmp_path / f"{score}", cells, degraded=degraded, **changes))))

    name = method if degraded else f"{method}, {mask}"
    assert f"{name}: the control controls-1.png, with a score of 1.5e-04, lowered the threshold" in said(1.5e-4)
    assert "controls-1.png, with" not in said(3e-4)
    assert "within what the noise leaves, so that nothing can be recognized" in said(1e-5, noise_std=0.01)


def test_a_model_that_does_not_reconstruct_its_members_is_said_above_all_else(tmp_path: Path) -> None:
    results = make_run(tmp_path, {Cell("members", "half", "paper"): [N, N], Cell("controls", "half", "paper"): [N]})
    split = {"images": 2, "mean": 0.25, "median": 0.25, "above": 2, "variance": 0.06}
    hint = {"options": "--pixel-range -1,1", "mean": 7e-9}
    results.description["reconstruction_error"] = {"members": split, "controls": {**split, "mean": None}, "hint": hint}
    page = Page(report_of(results))
    text = words(page)
    warning = text.index(
        "The model does not reconstruct the members: it misses them, as they are, by a mean squared error of 2.5e-01"
    )
    assert warning < text.index("None of 2 training images came back")
    assert "With --pixel-range -1,1 the error falls to 7.0e-09." in text
    assert "members 2.5e-01, controls not finite" in text
    assert any("notice" in (attributes.get("class") or "") for attributes in page.all("p"))


def test_how_well_a_model_reconstructs_is_said_without_alarm_where_it_does(tmp_path: Path) -> None:
    results = make_run(tmp_path, {Cell("members", "half", "paper"): [A, A]})
    split = {"images": 2, "mean": 7e-9, "median": 7e-9, "above": 0, "variance": 0.06}
    results.description["reconstruction_error"] = {"members": split, "hint": None}
    page = Page(report_of(results))
    assert "members 7.0e-09." in words(page)
    assert "does not reconstruct" not in words(page)
    assert not any("notice" in (attributes.get("class") or "") for attributes in page.all("p"))


def test_what_was_left_out_of_a_folder_stands_beside_it(tmp_path: Path) -> None:
    results = make_run(tmp_path, {Cell("members", "half", "paper"): [A, A]})
    results.description["remarks"] = {"members": ["30 .heic files that cannot be read here are left out"]}
    assert "members, notes30 .heic files that cannot be read here are left out" in words(Page(report_of(results)))
