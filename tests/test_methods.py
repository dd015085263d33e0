"""What the methods are; and one from outside the package, which goes all the way through an audit."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import memrecon_fast as mf
from memrecon_fast.audit.plan import DEGRADED_MASK, Audit
from memrecon_fast.baselines.inpainting import inpaint
from memrecon_fast.cli import app
from memrecon_fast.common.typing import Autoencoder
from memrecon_fast.engine.batched import Batched
from memrecon_fast.methods import DEFAULT_METHODS, METHODS, Method, Open, find, headline_of, traits_of
from memrecon_fast.recovery import prepare_iterate
from tests.helpers.auditing import MASKS, images_of, small_audit
from tests.helpers.memorised import Memorised


def test_the_methods_of_the_package() -> None:
    assert {name: (method.mask, method.scored) for name, method in METHODS.items()} == {
        "accelerated": ("estimated", True),
        "paper": ("estimated", True),
        "known-mask": ("given", True),
        "iterate": ("unused", False),
        "inpaint": ("given", False),
        "ddnm": ("given", False),
    }
    assert DEFAULT_METHODS == ("accelerated", "iterate")
    with pytest.raises(ValueError, match=r"method must be one of 'accelerated', 'paper', .* not 'newton'"):
        find("newton")


def test_the_headline_method_estimates_the_mask_where_there_is_such_a_one() -> None:
    assert headline_of(traits_of(("iterate", "paper", "accelerated"))) == "accelerated"
    assert headline_of(traits_of(("inpaint", "iterate", "paper"))) == "paper"
    assert headline_of(traits_of(("inpaint", "iterate"))) == "iterate"
    assert headline_of(traits_of(("inpaint",))) == "inpaint"
    own = {"grey": GREY.traits, "sepia": dataclasses.replace(GREY, mask="estimated").traits}
    assert headline_of(own) == "sepia"
    assert headline_of({**own, **traits_of(("paper",))}) == "paper"


def fill_with_grey(degraded: Tensor, masks: Tensor) -> Tensor:
    return torch.where(masks, degraded, 0.5)


def prepare_grey(autoencoder: Autoencoder, shape: Sequence[int], settings: mf.Settings, backend: str) -> Open:
    return partial(Batched, fill_with_grey, prepare_iterate(autoencoder, shape, backend=backend))


GREY = Method("grey", mask="given", scored=False, prepare=prepare_grey, identity={"level": 0.5})


def test_a_method_from_outside_is_audited_like_the_others(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, GREY.name, GREY)
    plan = small_audit(memorised, methods=("paper", "grey"))
    run = mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)
    table = run.records.filter([method == "grey" for method in run.records["method"].to_pylist()])
    assert len(table) == 2 * 2 * 16
    assert set(table["evaluations"].to_pylist()) == {0}
    assert table["wrong_mask_share"].null_count == len(table)
    for split, images in (("members", memorised.members), ("controls", memorised.controls)):
        for name in MASKS:
            mask = plan.masks[name]
            expected = mf.metrics.mse(fill_with_grey(images * mask, mask.expand_as(images)), images)
            ours = [row["mse"] for row in table.to_pylist() if (row["split"], row["mask"]) == (split, name)]
            torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), expected, rtol=1e-12, atol=0)
    rows = [row for row in run.summary["rows"] if row["method"] == "grey"]
    assert len(rows) == 4
    assert {row["recognized_rate"] for row in rows} == {None}  # it is not scored
    assert {row["mean_evaluations"] for row in rows} == {None}  # they are not counted, whatever it does
    (line,) = [one for one in repr(run).splitlines() if one.split()[:1] == ["grey"]][:1]
    assert line.split()[4] == "–"
    assert run.summary["plan"]["grey"] == run.summary["grey"] == {"level": 0.5}
    page = run.report.read_text()
    cells = page.split("<td>grey</td>", 1)[1].split("</tr>", 1)[0].split("</td>")
    assert '<td class="number">–' in cells
    mf.audit.export(run, tmp_path / "out")
    lines = [line for line in (tmp_path / "out" / "rates.md").read_text().splitlines() if "| grey |" in line]
    assert [line.split("|")[-2].strip() for line in lines] == ["–"] * 2
    assert '<th scope="row">grey</th><td>level 0.5</td>' in page
    assert json.loads((tmp_path / "run" / "audit.json").read_text())["sessions"][0]["execution"]["grey"] == GREY_RAN


GREY_RAN = "batches, without slots"


def test_a_run_is_known_by_what_its_methods_rest_on(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, GREY.name, GREY)
    plan = small_audit(memorised, methods=("grey",))
    mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)
    darker = Method("grey", mask="given", scored=False, prepare=prepare_grey, identity={"level": 0.25})
    monkeypatch.setitem(METHODS, GREY.name, darker)
    with pytest.raises(ValueError, match=r"What differs: grey.level \(0.5 then, 0.25 now\)"):
        mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)


def test_inpainting_knows_nothing_of_the_model(memorised: Memorised, tmp_path: Path) -> None:
    plan = small_audit(memorised, methods=("inpaint",))
    records = [
        mf.audit.run(plan, model, tmp_path / name, progress=False).records
        for name, model in (("trained", memorised.autoencoder), ("other", torch.nn.Hardtanh(0.02, 0.98).eval()))
    ]
    columns = ["index", "split", "mask", "mse", "psnr", "accurate", "approximate", "misfit", "explained"]
    assert records[0].select(columns).equals(records[1].select(columns))
    expected = inpaint(memorised.members * plan.masks["center"], plan.masks["center"].expand(16, -1, -1, -1))
    mse = mf.metrics.mse(expected, memorised.members)
    ours = [row["mse"] for row in records[0].to_pylist() if (row["split"], row["mask"]) == ("members", "center")]
    torch.testing.assert_close(torch.tensor(ours, dtype=torch.float64), mse, rtol=1e-12, atol=0)


def test_degraded_images_need_methods_whose_estimates_are_scored(memorised: Memorised) -> None:
    masks = {DEGRADED_MASK: mf.degradation.make_mask("half", (3, 8, 8))}
    for method in ("iterate", "inpaint"):
        with pytest.raises(ValueError, match=f"what {method} makes of degraded images cannot be judged"):
            Audit({"members": images_of(memorised.members)}, masks, (method,), degraded=True)


@pytest.mark.filterwarnings("ignore:The model does not reconstruct")  # it was trained on others
def test_what_inpainting_gets_back_is_no_verdict_on_the_model(memorised: Memorised, tmp_path: Path) -> None:
    """An image that is smooth comes back from its neighbours, whatever the model is."""
    side = torch.linspace(0, 1, 8)
    smooth = (0.5 * side[:, None] + 0.4 * side).expand(4, 3, 8, 8) + 0.02 * torch.arange(4)[:, None, None, None]
    masks = {"center": mf.degradation.make_mask("center", (3, 8, 8))}
    plan = Audit({"members": images_of(smooth)}, masks, ("known-mask", "inpaint"))
    with pytest.warns(RuntimeWarning, match="does not reconstruct the members"):  # these are none
        summary = mf.audit.run(plan, memorised.autoencoder, tmp_path / "both", progress=False).summary
    rates = {row["method"]: row["approximate_rate"] for row in summary["rows"]}
    assert rates == {"known-mask": 0.0, "inpaint": 1.0}
    assert summary["verdicts"] == {"members": {"not recovered": 4}}
    assert summary["headline"] == "known-mask"
    page = (tmp_path / "both" / "report.html").read_text()
    assert "over all masks and all methods, but for inpaint, where the model has no part." in page
    with (tmp_path / "both" / "verdicts.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    records = mf.audit.open(tmp_path / "both").records.to_pylist()
    ours = {row["index"]: row["psnr"] for row in records if row["method"] == "known-mask"}
    assert [float(line["best_psnr"]) for line in lines] == [round(ours[index], 4) for index in range(4)]
    with pytest.warns(RuntimeWarning, match="does not reconstruct the members"):
        alone = mf.audit.run(
            dataclasses.replace(plan, methods=("inpaint",)), memorised.autoencoder, tmp_path / "alone", progress=False
        )
    assert alone.summary["verdicts"] == {"members": {"accurate": 4}}  # there is no other


def test_an_identity_is_compared_as_it_is_stored(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, GREY.name, dataclasses.replace(GREY, identity={"levels": (0.25, 0.5)}))
    plan = small_audit(memorised, methods=("grey",))
    for _ in range(2):
        mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)


def test_what_is_wrong_with_a_method_is_said_when_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"mask of a method must be one of 'estimated', 'given', .* not 'known'"):
        dataclasses.replace(GREY, mask="known")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the identity of the method 'grey' is no JSON: .*device"):
        dataclasses.replace(GREY, identity={"on": torch.device("cpu")})


def test_a_run_is_read_where_its_method_is_not_known(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that seems to be another method here: what was recorded counts."""
    grey, other_grey = (dataclasses.replace(GREY, scored=known, uses_model=known) for known in (True, False))
    with monkeypatch.context() as known:
        known.setitem(METHODS, GREY.name, grey)
        plan = small_audit(memorised, methods=("grey", "known-mask"))
        made = mf.audit.run(plan, memorised.autoencoder, tmp_path / "run", progress=False)
        for name in ("other", "own"):
            shutil.copytree(tmp_path / "run", tmp_path / name)
    for path, known_here in ((tmp_path / "run", {}), (tmp_path / "own", {"grey": other_grey})):
        with mock.patch.dict(METHODS, known_here):
            opened = mf.audit.open(path)
            assert opened.summary == made.summary
            assert opened.summary["headline"] == "grey"
            assert opened.verdicts.equals(made.verdicts)
            assert len(opened.pictures("members", "center", "grey")) == len(made.pictures("members", "center", "grey"))
    page = made.report.read_bytes()
    made.report.unlink()
    run, other = str(tmp_path / "run"), str(tmp_path / "other")
    for command in (["report", run], ["export", run, "--out", str(tmp_path / "paper")], ["compare", run, other]):
        said = CliRunner().invoke(app, command)
        assert said.exit_code == 0, said.output
    assert "grey" in said.output
    assert made.report.read_bytes() == page
    with pytest.raises(ValueError, match=r"method must be one of .* not 'grey'"):
        dataclasses.replace(plan)  # what it takes to go on


def test_a_run_of_an_earlier_version_is_read_as_the_methods_are_known_here(
    memorised: Memorised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "audit.json"
    with monkeypatch.context() as known:
        known.setitem(METHODS, GREY.name, GREY)
        plan = small_audit(memorised, methods=("grey",))
        made = mf.audit.run(plan, memorised.autoencoder, path.parent, progress=False)
        content = json.loads(path.read_text())
        traits = content.pop("traits")
        path.write_text(json.dumps(content))
        assert mf.audit.open(path.parent).summary == made.summary
    opened = mf.audit.open(path.parent)
    assert (opened.missing, len(opened.records)) == (0, 64)
    with pytest.raises(ValueError, match=r"run: the method 'grey' is unknown here, .* import what adds it"):
        _ = opened.summary
    monkeypatch.setitem(METHODS, GREY.name, GREY)
    mf.audit.run(plan, memorised.autoencoder, path.parent, progress=False)
    assert json.loads(path.read_text())["traits"] == traits  # recorded as it goes on
