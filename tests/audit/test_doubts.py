"""A model that turns out, in the course of an audit, not to be a function: the results are kept, and in doubt."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.common.errors import AutoencoderChangedError
from tests.helpers.auditing import small_audit
from tests.helpers.memorised import Memorised

METHODS = ("paper", "iterate")


class Later(nn.Module):
    """The autoencoder, with something done to it before each call."""

    def __init__(self, autoencoder: nn.Module, before: Callable[[Any], float]) -> None:
        super().__init__()
        self.autoencoder, self.before, self.calls = autoencoder, before, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.autoencoder(x) + self.before(self) * torch.randn(x.shape)  # type: ignore[no-any-return]


def every_tenth(model: Any) -> float:
    return 1e-3 if model.calls > 50 and model.calls % 10 == 0 else 0.0


def after_fifty(model: Any) -> float:
    return 1e-3 if model.calls > 50 else 0.0


def interrupting(model: Any) -> float:
    if model.calls == 90:
        raise KeyboardInterrupt
    return after_fifty(model)


def writing_to_weights(model: Any) -> float:
    if model.calls == 50:
        model.autoencoder[1].weight.data.view(-1)[0] += 1e-7
    return 0.0


def summary_of(path: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return summary


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (every_tenth, "random at times"),
        (after_fifty, "random at times"),
        (writing_to_weights, "the weights of the model were changed"),
    ],
)
def test_a_model_that_does_not_stay_the_same_is_said_everywhere(
    memorised: Memorised, tmp_path: Path, before: Callable[[Any], float], message: str
) -> None:
    audit = small_audit(memorised, controls=0, methods=METHODS)
    model = nn.Sequential(Later(copy.deepcopy(memorised.autoencoder), before)).eval()
    with pytest.raises(AutoencoderChangedError, match=f"the results are in doubt: .*{message}"):
        mf.audit.run(audit, model, tmp_path / "run", progress=False)
    summary = summary_of(tmp_path / "run")
    assert any(message in doubt for doubt in summary["doubts"])
    assert summary["missing"] == 0  # nothing is lost
    assert "These results are in doubt" in (tmp_path / "run/report.html").read_text()
    (session,) = json.loads((tmp_path / "run/audit.json").read_text())["sessions"]
    assert session["doubts"] == summary["doubts"]


def test_doubts_stay_when_the_run_is_continued(memorised: Memorised, tmp_path: Path) -> None:
    """Also those of a session that was interrupted."""
    audit = small_audit(memorised, controls=0, methods=METHODS)
    with pytest.raises(KeyboardInterrupt):
        mf.audit.run(audit, Later(memorised.autoencoder, interrupting).eval(), tmp_path / "run", progress=False)
    sound = Later(memorised.autoencoder, lambda model: 0.0).eval()
    with pytest.raises(AutoencoderChangedError, match="random at times"):
        mf.audit.run(audit, sound, tmp_path / "run", progress=False)
    assert summary_of(tmp_path / "run")["doubts"]


def test_a_sound_run_has_no_doubts(memorised: Memorised, tmp_path: Path) -> None:
    run = mf.audit.run(small_audit(memorised, methods=METHODS), memorised.autoencoder, tmp_path / "run", progress=False)
    assert run.summary["doubts"] == []
    assert "in doubt" not in run.report.read_text()
    assert all("doubts" not in session for session in run.description["sessions"])


def test_what_is_no_function_is_refused_with_the_name_of_the_model(memorised: Memorised, tmp_path: Path) -> None:
    noisy = Later(memorised.autoencoder, lambda model: 1e-3).eval()
    with pytest.raises(ValueError, match=r"^Later: autoencoder answers differently to the same images"):
        mf.audit.run(small_audit(memorised), noisy, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
