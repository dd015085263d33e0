from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import memrecon_fast as mf
from memrecon_fast import methods
from memrecon_fast.audit.plan import Audit, describe
from memrecon_fast.audit.store import opening
from memrecon_fast.audit.store.manifest import DESCRIPTION, read_description, session, write_description
from memrecon_fast.audit.store.opening import IMAGES, check_run_folder, open_run
from memrecon_fast.audit.store.parts import Row
from memrecon_fast.audit.store.records import RECORDS, Cell
from memrecon_fast.images.scan import Images, read_images, scan
from memrecon_fast.images.sources import Source, from_array
from tests.helpers.auditing import METHODS, SETTINGS, SHAPE, make_record, run, small_audit
from tests.helpers.memorised import Memorised

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8), np.uint8)
MASK = mf.degradation.make_mask("center", SHAPE)


def named_images(names: str, *others: np.ndarray) -> Images:
    """One of `PIXELS` for each letter; others in the place of the first ones."""
    pixels = [*others, *PIXELS[["abcdefgh".index(name) for name in names]][len(others) :]]
    return scan(Source(tuple(f"{name}.png" for name in names), from_array(np.stack(pixels)).read))


def model(slope: float = 0.01, weight: float = 0.5) -> nn.Module:
    scale = nn.Conv2d(3, 3, 1)
    for parameter in scale.parameters():
        nn.init.constant_(parameter, weight)
    return nn.Sequential(scale, nn.LeakyReLU(slope)).eval()


def make_audit(**changes: object) -> Audit:
    splits = {"members": named_images("abcd"), "controls": named_images("efg")}
    audit = Audit(splits=splits, masks={"center": MASK}, methods=METHODS, settings=SETTINGS, backend="torch")
    return dataclasses.replace(audit, **changes)  # type: ignore[arg-type]


def begin(
    run: Path,
    audit: Audit | None = None,
    autoencoder: nn.Module | None = None,
    *,
    device: str = "cpu",
    name: str = "model",
    parts: str | None = None,
    resume: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Open a run and do nothing; returns its description and the remarks."""
    audit = audit or make_audit()
    remarks: list[str] = []
    description = describe(audit, autoencoder or model(), device, name, dict.fromkeys(audit.splits, name), parts)
    with open_run(audit.splits, description, run, resume, remarks.append) as opened:
        assert opened.folder.path == run
    return opened.description, remarks


def test_a_new_run_says_what_it_is(tmp_path: Path) -> None:
    run = tmp_path / "new" / "run"
    description, remarks = begin(run)
    assert remarks == []
    assert json.loads((run / DESCRIPTION).read_text()) == read_description(run) == description
    assert description["counts"] == {
        "members": {"images": 4, "unusable": 0},
        "controls": {"images": 3, "unusable": 0},
    }
    images = read_images(run / IMAGES)
    assert images["name"].tolist() == [f"{name}.png" for name in "abcdefg"]
    assert images["split"].tolist() == 4 * ["members"] + 3 * ["controls"]
    assert set(images["near_duplicate_of"]) == {None}


def test_controls_that_are_nearly_a_member_are_noted(tmp_path: Path) -> None:
    begin(tmp_path, make_audit(splits={"members": named_images("abcd"), "controls": named_images("efc")}))
    assert read_images(tmp_path / IMAGES)["near_duplicate_of"].tolist() == 6 * [None] + ["c.png"]


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_is_continued_as_it_was_begun(tmp_path: Path, resume: bool) -> None:
    description, _ = begin(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*.*")}
    again, remarks = begin(tmp_path, name="the same under another name", resume=resume)
    assert again == description  # with its own names, and its own id
    assert remarks == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_where_nothing_was_begun_there_is_nothing_to_continue(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=rf"there is no run to continue in {folder}: it has no audit\.json"):
            begin(folder, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").touch()
    with pytest.raises(ValueError, match=f"the folder {tmp_path} is not empty, and holds no audit"):
        begin(tmp_path)
    with pytest.raises(ValueError, match=r"holiday\.png is a file; a run needs a folder"):
        begin(tmp_path / "holiday.png")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]


def test_whether_there_is_a_run_can_be_asked_before_any_work(tmp_path: Path) -> None:
    assert check_run_folder(tmp_path / "run", resume=False) is False
    assert not (tmp_path / "run").exists()
    begin(tmp_path / "run")
    assert check_run_folder(tmp_path / "run", resume=True) is True
    with pytest.raises(ValueError, match="not empty"):
        check_run_folder(tmp_path, resume=False)


def test_a_folder_at_which_another_audit_is_at_work_is_refused(tmp_path: Path) -> None:
    audit = make_audit()
    description = describe(audit, model(), "cpu", "model", {}, None)
    with open_run(audit.splits, description, tmp_path, False, print):
        for resume in (False, True):
            with pytest.raises(ValueError, match=f"another audit is at work in {tmp_path}"):
                begin(tmp_path, resume=resume)
    begin(tmp_path)


OTHER_MASK = MASK.clone()
OTHER_MASK[0, 0, 0] ^= True
CHANGES: list[tuple[dict[str, object], str]] = [
    ({"settings": dataclasses.replace(SETTINGS, gamma=0.25)}, r"gamma \(0\.5 then, 0\.25 now\)"),
    ({"settings": dataclasses.replace(SETTINGS, seed=7)}, r"seed \(42 then, 7 now\)"),
    ({"settings": dataclasses.replace(SETTINGS, initial_mask="zeros")}, r'initial_mask \("random" then, "zeros" now\)'),
    ({"masks": {"center": OTHER_MASK}}, "the mask center"),
    (
        {"masks": {"centre": MASK}},
        r"masks\.center \(\w{12}… then, none now\), masks\.centre \(none then, \w{12}… now\)",
    ),
    ({"masks": {"center": MASK, "more": MASK}}, r"masks\.more \(none then, \w{12}… now\)"),
    (
        {"methods": ("paper", "iterate")},
        r'methods \(\["paper", "known-mask", "iterate"\] then, \["paper", "iterate"\] now\); '
        "to go on with its methods, say --method paper --method known-mask --method iterate",
    ),
    ({"noise_std": 0.1}, r"restore_known_pixels \(true then, false now\), noise_std \(0\.0 then, 0\.1 now\)"),
    ({"keep_images": 3}, r"keep_images \(0 then, 3 now\)"),
    ({"splits": {"members": named_images("abcd")}}, r"images\.controls \(\w{12}… then, none now\)"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_another_audit_is_refused_with_what_differs(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    begin(tmp_path)
    begun = "it can be continued only as it was begun, and another one needs another folder"
    expected = rf"{tmp_path} holds another audit; {begun}\. What differs: {message}$"
    with pytest.raises(ValueError, match=expected):
        begin(tmp_path, make_audit(**changes))
    begin(tmp_path)  # which is still there


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"autoencoder": model(weight=0.25)}, "the model's weights or layers or pixel range"),
        ({"autoencoder": model(slope=0.2)}, "the model's weights or layers or pixel range"),
        ({"autoencoder": model().bfloat16()}, "the model's weights or layers or pixel range"),
        ({"device": "cuda"}, r'device \("cpu" then, "cuda" now\)'),
        ({"parts": "file:///somewhere"}, r'parts \(none then, "file:///somewhere" now\)'),
    ],
)
def test_another_model_or_device_is_refused(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    begin(tmp_path)
    with pytest.raises(ValueError, match=rf"What differs: {message}$"):
        begin(tmp_path, **other)


def test_another_method_of_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = dataclasses.replace(methods.METHODS["iterate"], name="mine")
    monkeypatch.setitem(methods.METHODS, "mine", mine)
    audit = make_audit(methods=("mine",))
    begin(tmp_path, audit)
    begin(tmp_path, audit)
    monkeypatch.setitem(methods.METHODS, "mine", dataclasses.replace(mine, uses_model=not mine.uses_model))
    with pytest.raises(ValueError, match="begun with another method 'mine': uses_model was True, and is False now"):
        begin(tmp_path, audit)


def test_other_parts_are_refused(tmp_path: Path) -> None:
    begin(tmp_path / "run", parts=str(tmp_path / "a"))
    with pytest.raises(ValueError, match=rf"differs: --parts \({tmp_path}/a then, {tmp_path}/b now\)$"):
        begin(tmp_path / "run", parts=str(tmp_path / "b"))


def brighter(pixels: np.ndarray) -> np.ndarray:
    changed: np.ndarray = pixels.copy()
    changed[0, 0, 0] ^= 1
    return changed


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"members": named_images("abcd", brighter(PIXELS[0]))}, r"the members \(changed among the members: a\.png\)"),
        ({"members": named_images("abcdh")}, r"the members \(new among the members: h\.png\)"),
        ({"members": named_images("abc")}, r"the members \(gone among the members: d\.png\)"),
        ({"members": named_images("abch")}, r"the members \(new among the members: h\.png; gone .*: d\.png\)"),
        (
            {"controls": named_images("efg", brighter(PIXELS[4]))},
            r"the controls \(changed among the controls: e\.png\)",
        ),
        (
            {"members": named_images("abc"), "controls": named_images("efgh")},
            r"the members, the controls \(gone among the members: d\.png; new among the controls: h\.png\)",
        ),
        (
            {"members": named_images("efgh")},
            r"\(new .*: e\.png, f\.png, g\.png and 1 more; gone .*: a\.png, b\.png, c\.png and 1 more\)",
        ),
        ({"members": named_images("abdc")}, "the members"),  # in another order
    ],
)
def test_other_images_are_refused_by_name(tmp_path: Path, splits: dict[str, Images], message: str) -> None:
    begin(tmp_path)
    with pytest.raises(ValueError, match=rf"What differs: .*{message}$"):
        begin(tmp_path, make_audit(splits={**make_audit().splits, **splits}))


def test_an_image_that_can_be_used_by_now_is_named(tmp_path: Path) -> None:
    whole = named_images("abcd")

    def read(index: int) -> np.ndarray:
        if index == 1:
            raise ValueError("it is damaged")
        return whole.source.read(index)

    damaged = scan(Source(whole.names, read))
    audit = make_audit(splits={**make_audit().splits, "members": damaged})
    description, _ = begin(tmp_path, audit)
    assert description["counts"]["members"] == {"images": 4, "unusable": 1}
    with pytest.raises(ValueError, match=r"the members \(changed among the members: b\.png\)$"):
        begin(tmp_path)
    begin(tmp_path, audit)


def test_what_does_not_change_a_result_may_differ(tmp_path: Path) -> None:
    begin(tmp_path)
    frozen = model()
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    begin(tmp_path, make_audit(slots=3, backend="auto"), frozen)


def test_several_differences_are_all_named(tmp_path: Path) -> None:
    begin(tmp_path)
    audit = make_audit(settings=dataclasses.replace(SETTINGS, gamma=1.0), keep_images=1)
    with pytest.raises(ValueError, match=r"differs: the model's .* or pixel range, gamma .*, keep_images "):
        begin(tmp_path, audit, model(weight=1))


def test_damaged_parts_are_remarked_on(tmp_path: Path) -> None:
    audit = make_audit()
    cell = Cell("members", "center", "paper")
    with open_run(audit.splits, describe(audit, model(), "cpu", "model", {}, None), tmp_path, False, print) as opened:
        members = audit.splits["members"]
        opened.folder.parts.write(cell, [Row(make_record(cell, 2, name="c.png", sha256=members.sha256[2]))])
    path = tmp_path / RECORDS / cell.file_stem / "bad.parquet"
    path.write_bytes(b"bad")
    _, (remark,) = begin(tmp_path)
    assert remark.startswith(f"{path} cannot be read as records of an audit: ")
    assert remark.endswith("; it is set aside, and what it held is done again")
    assert "\n" not in remark
    assert begin(tmp_path)[1] == []
    assert opened.folder.done(cell).tolist() == [2]


def test_where_no_parts_can_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="no part files can be written in"):
        begin(tmp_path / "run", parts=str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"nonsense://there/\w+ is no folder and no address that pyarrow\.fs can open"):
        begin(tmp_path / "other", parts="nonsense://there")


def test_two_runs_with_parts_under_one_address_do_not_meet(tmp_path: Path) -> None:
    cell = Cell("members", "center", "paper")
    audit = make_audit()
    done = []
    for name in ("one", "two"):
        description = describe(audit, model(), "cpu", "model", {}, str(tmp_path / "parts"))
        with open_run(audit.splits, description, tmp_path / name, False, print) as opened:
            done.append(opened.folder.done(cell).tolist())
            opened.folder.parts.write(cell, [Row(make_record(cell, 2))])
    assert done == [[], []]


@pytest.mark.parametrize("when", ["find_near_duplicates", "write_images", "write_description"])
def test_a_beginning_that_was_interrupted_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(opening, when, interrupt)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path)
    begin(tmp_path)
    assert len(read_images(tmp_path / IMAGES)["name"]) == 7
    assert read_description(tmp_path)["counts"]["members"]["images"] == 4


def test_what_describes_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION).write_text("{")
    with pytest.raises(ValueError, match=r"audit\.json cannot be read"):
        begin(tmp_path)


def test_another_audit_where_the_first_one_had_hardly_begun(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised)
    description = describe(audit, memorised.autoencoder, "cpu", "model", {}, None)
    with opening.open_run(audit.splits, description, tmp_path / "run", False, print):
        pass
    (tmp_path / "run" / opening.IMAGES).unlink()
    other = small_audit(memorised, noise_std=0.01)
    now = describe(other, memorised.autoencoder, "cpu", "model", {}, None)
    with (
        pytest.raises(ValueError, match=r"What differs: .*noise_std \(0.0 then, 0.01 now\)"),
        opening.open_run(other.splits, now, tmp_path / "run", False, print),
    ):
        pytest.fail("it was opened")


def test_other_versions_are_remarked_on(memorised: Memorised, tmp_path: Path) -> None:
    audit = small_audit(memorised, controls=0, methods=("known-mask",))
    assert run(audit, memorised.autoencoder, tmp_path / "run") == []
    before = read_description(tmp_path / "run")
    old = session(slots=8, workers=None)
    old["versions"]["torch"] = "1.0"
    write_description(tmp_path / "run", {**before, "sessions": [old]})
    (remark,) = run(audit, memorised.autoencoder, tmp_path / "run")
    assert remark.startswith("the last bits of what follows may differ from what was done before: torch 1.0 then, ")
