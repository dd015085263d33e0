"""Runs: what they write, that they go on, and what they refuse."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memrecon_fast import reconstruction
from memrecon_fast.common.errors import NothingFoundError
from memrecon_fast.reconstruction import Law, Scaling, Search, Target, Truth
from memrecon_fast.reconstruction.kept import results
from memrecon_fast.reconstruction.report.sentences import headlines, remarks_of
from memrecon_fast.reconstruction.search import digest_of_tensors
from tests.helpers.features import Fitted, fitted

SHAPE = (3, 3, 4)


def target(one: Fitted, name: str = "model") -> Target:
    digest = digest_of_tensors(one.model.weights[:], one.theta)
    return Target(name, one.model, one.theta, digest, SHAPE, Scaling())


@pytest.fixture(scope="module")
def search() -> Search:
    """Three pictures of 3×3×4, at p = 6 d·n."""
    pictures = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(5))
    one = fitted(3, 36, 648)
    theta = one.model.fit(Scaling().inputs_of(pictures), torch.tensor([1.0, -1.0, 1.0]))
    return Search(
        [target(dataclasses.replace(one, theta=theta))],
        images=3,
        truth=Truth("somewhere", pictures, ["a", "b", "c"]),
    )


def test_a_run_finds_the_pictures(search: Search, tmp_path: Path) -> None:
    run = reconstruction.run(search, tmp_path / "run", progress=False)
    (found,) = run.summary["targets"]
    assert (found["found"], found["explained"], found["starts_explained"]) == (3, True, 2)
    assert found["verdicts"] == {"found": 3, "likely": 0, "doubtful": 0}
    assert (found["truth"]["recovered"], found["truth"]["accurate"]) == (3, 3)
    assert max(found["truth"]["feature_residual"]) < 1e-8
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == run.summary
    lines = (tmp_path / "run" / "inputs.csv").read_text().splitlines()
    assert len(lines) == 4
    inputs = np.load(tmp_path / "run" / "inputs-0.npy")
    assert search.truth is not None
    compared = reconstruction.compare(Scaling().inputs_of(search.truth.pictures), torch.from_numpy(inputs))
    assert compared.recovered == 3
    page = run.report.read_text()
    assert "3 of 3 training images" in page
    assert page.count('class="pixels"') == 6


def test_an_interrupted_run_goes_on(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reconstruction.run(search, tmp_path / "whole", progress=False)
    session = importlib.import_module("memrecon_fast.reconstruction.session")
    real = session.reconstruct
    seeds = []

    def interrupted(*arguments: Any) -> Any:
        seeds.append(arguments[4])
        if len(seeds) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(session, "reconstruct", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reconstruction.run(search, tmp_path / "run", progress=False)
    again = reconstruction.run(search, tmp_path / "run", resume=True, progress=False)
    assert seeds == [42, 43, 43]
    assert [one["solutions"] for one in again.description["sessions"]] == [1, 1]
    for name in ("inputs-0.npy", "inputs.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_damaged_solution_is_found_again(search: Search, tmp_path: Path) -> None:
    reconstruction.run(search, tmp_path, progress=False)
    whole, path = (tmp_path / "inputs.csv").read_bytes(), tmp_path / "solutions" / "0-43.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        _ = reconstruction.open(tmp_path).results
    with pytest.warns(RuntimeWarning, match="is done again"):
        reconstruction.run(search, tmp_path, progress=False)
    assert (tmp_path / "inputs.csv").read_bytes() == whole


def test_another_search_is_refused(search: Search, tmp_path: Path) -> None:
    reconstruction.run(search, tmp_path, progress=False)
    (one,) = search.targets
    other = dataclasses.replace(one, digest="0" * 64)
    for changed, message in (
        (dataclasses.replace(search, seed=43), r"seed \(42 then, 43 now\)"),
        (dataclasses.replace(search, images=None), r"images \(3 then, none now\)"),
        (dataclasses.replace(search, targets=[other]), "the model, or what it learned"),
    ):
        with pytest.raises(ValueError, match=message):
            reconstruction.run(changed, tmp_path, progress=False)


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of all starts that are made from now on."""
    session = importlib.import_module("memrecon_fast.reconstruction.session")
    real, seeds = session.reconstruct, []

    def counted(*arguments: Any) -> Any:
        seeds.append(arguments[4])
        return real(*arguments)

    monkeypatch.setattr(session, "reconstruct", counted)
    return seeds


def test_the_truth_and_more_starts_can_be_said_later(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reconstruction.run(dataclasses.replace(search, starts=3), tmp_path / "whole", progress=False)
    seeds, folder = counting(monkeypatch), tmp_path / "run"
    reconstruction.run(dataclasses.replace(search, starts=1, truth=None), folder, progress=False)
    assert json.loads((folder / "summary.json").read_text())["targets"][0]["truth"] is None
    told = reconstruction.run(dataclasses.replace(search, starts=3), folder, resume=True, progress=False)
    assert seeds == [42, 43, 44]  # none of them twice
    assert told.summary["targets"][0]["truth"] == whole.summary["targets"][0]["truth"]
    with pytest.warns(RuntimeWarning, match="3 starts were asked for before"):
        again = reconstruction.run(dataclasses.replace(search, truth=None), folder, progress=False)
    assert len(seeds) == 3
    assert again.summary["targets"] == told.summary["targets"]  # the truth is still there


def test_another_scaling_counts_and_is_said(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wrong one nothing seems to come back."""
    (one,) = search.targets
    wrong = dataclasses.replace(search, targets=[dataclasses.replace(one, scaling=Scaling("pixels"))])
    first = reconstruction.run(wrong, tmp_path, progress=False)
    assert first.summary["targets"][0]["truth"]["recovered"] == 0
    rescaled = first.summary["targets"][0]["truth"]["rescaled"]
    assert (rescaled["recovered"], rescaled["scaling"]["name"]) == (3, "standardised")
    assert any("say --scaling standardised." in remark for remark in remarks_of(first.summary))
    ((said, rest),) = headlines(first.summary)
    assert said == "3 of 3 training images came out"
    assert "in another scaling than was said" in rest
    seeds = counting(monkeypatch)
    with pytest.warns(RuntimeWarning, match="scaling of its pictures is another one"):
        second = reconstruction.run(search, tmp_path, progress=False)
    assert not seeds
    truth = second.summary["targets"][0]["truth"]
    assert truth["recovered"] == 3
    assert truth["rescaled"] is None
    assert max(truth["feature_residual"]) < 1e-8  # made again, too


def test_inputs_in_another_scaling_tell_which() -> None:
    pictures = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(5))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    inputs = Scaling("pixels", mean, std).inputs_of(pictures)[[2, 0, 3]]
    inputs[2] = torch.randn(inputs.shape[1], generator=torch.Generator().manual_seed(6))  # is none of them
    found = results._rescaled(pictures, inputs, recovered=0, lengths_known=True)
    assert found is not None
    assert found.scaling is not None
    assert found.recovered == 2
    assert found.scaling.mean == pytest.approx(mean)
    assert found.scaling.std == pytest.approx(std)
    assert results._rescaled(pictures, inputs, recovered=2, lengths_known=True) is None
    assert results._rescaled(pictures, inputs[2:], recovered=0, lengths_known=True) is None
    each = inputs[:2] * torch.tensor([[1.0], [3.0]])  # one of them with three times the contrast
    assert results._rescaled(pictures, each, recovered=0, lengths_known=True) == results.Rescaled(2, None)


@pytest.mark.parametrize("what", ["truth", "scaling", "starts"])
def test_what_is_said_later_counts_at_once_where_the_work_is_interrupted(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Names are never shown beside other pictures, nor residuals that are of another scaling."""
    (one,), more = search.targets, dataclasses.replace(search, starts=3)
    reconstruction.run(search, tmp_path, progress=False)
    pictures = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(9))
    if what == "truth":
        more = dataclasses.replace(more, truth=Truth("elsewhere", pictures, ["w", "x", "y", "z"]))
    elif what == "scaling":
        scaled = dataclasses.replace(one, scaling=Scaling("pixels"))
        more = dataclasses.replace(more, targets=[scaled], truth=None)

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("memrecon_fast.reconstruction.session"), "reconstruct", interrupted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # another scaling is said
        with pytest.raises(KeyboardInterrupt):
            reconstruction.run(more, tmp_path, progress=False)
    run = reconstruction.open(tmp_path)
    truth, described = run.results.truth, run.description["truth"]
    assert truth is not None
    assert len(truth) == len(described["names"]) == (4 if what == "truth" else 3)
    (found,) = run.summary["targets"]
    assert found["truth"]["recovered"] == (3 if what == "starts" else 0)
    assert found["truth"]["feature_residual"] is None
    run.write_report()


def test_a_scaling_that_does_not_fit_what_is_there_is_refused(search: Search, tmp_path: Path) -> None:
    """Its shape and the pictures are known from before, and are not said again."""
    reconstruction.run(search, tmp_path, progress=False)
    before, (one,) = (tmp_path / "reconstruction.json").read_bytes(), search.targets
    two = dataclasses.replace(one, image_shape=None, scaling=Scaling("pixels", (1.0, 2.0), (1.0, 1.0)))
    with pytest.raises(ValueError, match="2 means, and pictures of 3 channels"):
        reconstruction.run(dataclasses.replace(search, targets=[two], truth=None), tmp_path, progress=False)
    assert (tmp_path / "reconstruction.json").read_bytes() == before
    assert reconstruction.open(tmp_path).summary["targets"][0]["truth"]["recovered"] == 3


def test_pictures_that_are_there_must_be_given_again_for_another_shape(search: Search, tmp_path: Path) -> None:
    reconstruction.run(search, tmp_path, progress=False)
    (one,) = search.targets
    turned = dataclasses.replace(one, image_shape=(3, 4, 3))
    with pytest.raises(ValueError, match=r"has pictures \(3, 3, 4\) to compare with, not \(3, 4, 3\)"):
        reconstruction.run(dataclasses.replace(search, targets=[turned], truth=None), tmp_path, progress=False)


def test_a_start_that_finds_nothing_does_not_keep_others_from_it(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = importlib.import_module("memrecon_fast.reconstruction.session")
    real, unlucky = session.reconstruct, {42, 43}

    def refusing(*arguments: Any) -> Any:
        if arguments[4] in unlucky:
            raise ValueError("not found in what its units learned")
        return real(*arguments)

    monkeypatch.setattr(session, "reconstruct", refusing)
    with pytest.raises(
        NothingFoundError, match=r"model: not found in what its units learned \(2 starts made; .*--starts"
    ):
        reconstruction.run(search, tmp_path, progress=False)
    unlucky.remove(43)
    with pytest.warns(RuntimeWarning, match="1 of 2 starts found nothing: not found in what"):
        run = reconstruction.run(search, tmp_path, resume=True, progress=False)
    assert run.summary["targets"][0]["found"] == 3
    unlucky.clear()
    run = reconstruction.run(search, tmp_path, resume=True, progress=False)
    assert run.summary["targets"][0]["starts_explained"] == 2


def test_a_digest_of_bfloat16_tells_numbers_apart() -> None:
    one = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    assert digest_of_tensors(one) == digest_of_tensors(one.clone())
    assert len({digest_of_tensors(one), digest_of_tensors(-one), digest_of_tensors(one.float())}) == 3


def test_what_is_wrong_is_told_before_work(search: Search, tmp_path: Path) -> None:
    (one,) = search.targets
    wrong = dataclasses.replace(one, theta=one.theta * math.nan)
    with pytest.raises(ValueError, match="NaN"):
        reconstruction.run(dataclasses.replace(search, targets=[wrong]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="there is no run to continue"):
        reconstruction.run(search, tmp_path / "run", resume=True, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty, and holds no reconstruction"):
        reconstruction.run(search, tmp_path, progress=False)


def test_pictures_of_another_shape_are_refused(search: Search) -> None:
    assert search.truth is not None
    turned = dataclasses.replace(search.truth, pictures=search.truth.pictures.transpose(2, 3).contiguous())
    with pytest.raises(ValueError, match="its inputs are pictures"):
        dataclasses.replace(search, truth=turned)


def test_what_is_not_explained_says_so(search: Search, tmp_path: Path) -> None:
    """θ of other features than those that are given."""
    (one,) = search.targets
    wrong = dataclasses.replace(one, model=fitted(3, 36, 648, seed=9).model)
    run = reconstruction.run(dataclasses.replace(search, targets=[wrong], starts=1), tmp_path, progress=False)
    (found,) = run.summary["targets"]
    assert not found["explained"]
    assert found["verdicts"]["found"] == 0
    page = run.report.read_text()
    assert "is not explained" in page
    assert "0 of 3 training images" in page


def test_without_the_truth_and_without_pictures(tmp_path: Path) -> None:
    one = fitted(2, 20, 400)
    vectors = dataclasses.replace(target(one), image_shape=None)
    run = reconstruction.run(Search([vectors]), tmp_path, progress=False)
    (found,) = run.summary["targets"]
    assert (found["found"], found["truth"]) == (2, None)
    assert "2 inputs explain what the last layer learned" in run.report.read_text()
    assert reconstruction.compare(one.inputs, run.results.targets[0].judged.best.inputs).recovered == 2  # type: ignore[union-attr]


def test_pictures_without_the_truth_are_shown(search: Search, tmp_path: Path) -> None:
    run = reconstruction.run(dataclasses.replace(search, truth=None, starts=1), tmp_path, progress=False)
    assert run.report.read_text().count('class="pixels"') == 3


def test_the_law_is_drawn(search: Search, tmp_path: Path) -> None:
    with_law = dataclasses.replace(search, starts=1, law=Law(3, [(1, 0.6), (3, 0.0), (648, 0.0)]))
    run = reconstruction.run(with_law, tmp_path, progress=False)
    assert "From how many parameters on" in run.report.read_text()
    assert run.summary["law"]["training_error"][0] == [1, 0.6]


def said(**changes: object) -> tuple[str, str]:
    """The headline and the remarks on a target without a truth."""
    target = {
        "name": "net", "done": True, "truth": None, "residual": 0.1, "certain": False, "moved": 0.0, "explained": False,
        "found": 3, "p": 100, "d": 36, "signs_known": 3, "starts": 2, "starts_made": 2,
        "verdicts": {"found": 0, "likely": 0, "doubtful": 3},
    }  # fmt: skip
    plan = {"images": None, "settings": {"tolerance": 1e-5}}
    summary = {"targets": [{**target, **changes}], "plan": plan}
    ((emphasised, rest),) = headlines(summary)
    return f"{emphasised} {rest}", " ".join(remarks_of(summary))


def test_what_is_said_of_nets_whose_body_was_trained() -> None:
    headline, remarks = said(certain=True, explained=True, moved=0.3)
    assert headline == "3 training inputs came out: they were found in what the units of the first layer learned."
    assert remarks == ""
    headline, remarks = said(verdicts={"found": 0, "likely": 2, "doubtful": 1}, moved=0.3)
    assert headline.startswith("2 inputs, found by every start, may be right")
    assert "moved by 3.0e-01 of their length" in remarks
    headline, remarks = said()
    assert headline.startswith("Nothing that is to be believed came back.")
    assert "It does not show that nothing can be got back." in remarks
