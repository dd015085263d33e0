from __future__ import annotations

import copy
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.audit.plan import describe, model_digest
from memrecon_fast.audit.store.manifest import (
    DESCRIPTION,
    cells_of,
    differences,
    parts_of,
    read_description,
    session,
    write_description,
)
from memrecon_fast.audit.store.records import RECORDS
from tests.helpers.auditing import MASKS, METHODS, SETTINGS, small_audit
from tests.helpers.memorised import Memorised


class Applied(nn.Module):
    """Its printed form holds the addresses of a function and of an object."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def extra_repr(self) -> str:
        return f"{self.function}, {object()}"

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


class Halving:
    """A callable that is no module."""

    def __call__(self, images: Tensor) -> Tensor:
        return images / 2


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1), Applied(lambda images: 2 * images))


DIGEST = (
    "from tests.audit.store.test_manifest import make_model, model_digest; print(model_digest(make_model().eval()))"
)


def test_the_digest_of_a_model_is_the_same_in_another_process() -> None:
    digest = model_digest(make_model().eval())
    assert len(digest) == 64
    found = subprocess.run(
        [sys.executable, "-c", DIGEST],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert found.stdout.strip() == digest


def test_the_digest_depends_on_what_a_model_computes() -> None:
    def with_weight(model: nn.Module) -> None:
        next(iter(model.parameters())).data[0, 0] += 1e-7

    def with_buffer(model: nn.Module) -> None:
        model[1].running_mean[2] = 1e-7  # type: ignore[index]

    def with_activation(model: nn.Module) -> None:
        model[2] = nn.LeakyReLU(0.2)  # type: ignore[operator]

    def in_float64(model: nn.Module) -> None:
        model.double()

    def in_bfloat16(model: nn.Module) -> None:
        model.bfloat16()

    def with_a_layer(model: nn.Module) -> None:
        model.append(nn.Identity())  # type: ignore[operator]

    changes = (with_weight, with_buffer, with_activation, in_float64, in_bfloat16, with_a_layer)
    digests = {model_digest(make_model())}
    for change in changes:
        model = make_model()
        change(model)
        digests.add(model_digest(model))
    assert len(digests) == 1 + len(changes)


def test_the_digest_tells_number_formats_of_the_same_bytes_apart() -> None:
    model = nn.Linear(2, 2)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert model_digest(copy.deepcopy(model).half()) != model_digest(copy.deepcopy(model).bfloat16())


def test_the_digest_does_not_depend_on_what_changes_no_result() -> None:
    model = make_model()
    digest = model_digest(model)
    assert model_digest(copy.deepcopy(model)) == digest
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert model_digest(model) == digest
    assert model_digest(model.to(memory_format=torch.channels_last)) == digest  # type: ignore[call-overload]


def test_the_same_weights_in_other_places_are_another_model() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    assert model_digest(nn.Sequential(first, second)) != model_digest(nn.Sequential(second, first))


def test_the_digest_of_an_exported_model_holds_its_code() -> None:
    images = torch.rand(2, 3, 4, 4)
    digests = [
        model_digest(torch.export.export(Applied(function).eval(), (images,)).module())
        for function in (torch.sin, torch.cos, torch.sin)
    ]
    assert digests[0] == digests[2] != digests[1]


def test_of_a_callable_only_the_name_is_known() -> None:
    assert model_digest(Halving()) == "Halving, unknown"
    assert model_digest(torch.nn.functional.relu) == "relu, unknown"


def test_a_description_holds_what_makes_a_run(memorised: Memorised) -> None:
    audit = small_audit(memorised, controls=5, noise_std=0.02, keep_images=3)
    sources = {"members": "IMAGES", "controls": "OTHERS"}
    description = describe(audit, memorised.autoencoder, "cpu", "my.models:build", sources, None)
    assert json.loads(json.dumps(description)) == description
    assert (description["model"], description["sources"]) == ("my.models:build", sources)
    assert description["counts"]["controls"] == {"images": 5, "unusable": 0}
    plan = description["plan"]
    assert plan["model"] == model_digest(memorised.autoencoder)
    assert plan["images"] == {split: images.digest() for split, images in audit.splits.items()}
    assert mf.Settings.from_dict(plan["settings"]) == audit.settings
    assert plan["settings"]["restore_known_pixels"] is False  # as it runs, with noise
    assert plan["methods"] == list(METHODS)
    assert len({plan["masks"][name] for name in MASKS}) == len(MASKS)
    assert description["kept"] == {name: int(mask.sum()) for name, mask in audit.masks.items()}
    assert plan["degraded"] is False
    assert (plan["noise_std"], plan["keep_images"], plan["device"], plan["parts"]) == (0.02, 3, "cpu", None)
    assert cells_of(description) == audit.cells()


def test_two_descriptions_of_an_audit_have_one_plan(memorised: Memorised) -> None:
    audit = small_audit(memorised)
    first, second = (describe(audit, memorised.autoencoder, "cpu", name, {}, None) for name in ("a", "b"))
    assert differences(first["plan"], second["plan"]) == []
    assert first["id"] != second["id"]


def test_where_the_parts_are(memorised: Memorised, tmp_path: Path) -> None:
    def parts(address: str | None) -> tuple[str, str]:
        description = describe(small_audit(memorised), memorised.autoencoder, "cpu", "model", {}, address)
        return parts_of(tmp_path, description), description["id"]

    assert parts(None)[0] == str(tmp_path / RECORDS)
    for address in ("s3://bucket/folder", "s3://bucket/folder/"):
        found, run_id = parts(address)
        assert found == f"s3://bucket/folder/{run_id}"


def test_a_session_says_where_it_ran() -> None:
    found = session(slots=8, workers=None)
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["python"] == platform.python_version()
    assert found["versions"]["memrecon_fast"] == mf.__version__
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["machine"]["processor"]
    assert (found["slots"], found["workers"], found["execution"]) == (8, None, None)


HASHES = ("a" * 64, "b" * 64)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"model": HASHES[0]}, {"model": HASHES[1]}, "the model's weights or layers or pixel range"),
        ({"images": {"members": HASHES[0]}}, {"images": {"members": HASHES[1]}}, "the members"),
        ({"images": {"controls": HASHES[0]}}, {"images": {"controls": HASHES[1]}}, "the controls"),
        ({"images": {}}, {"images": {"controls": HASHES[1]}}, "images.controls (none then, bbbbbbbbbbbb… now)"),
        ({"masks": {"a.b": HASHES[0]}}, {"masks": {"a.b": HASHES[1]}}, "the mask a.b"),
        ({"masks": {"c": HASHES[0]}}, {"masks": {}}, "masks.c (aaaaaaaaaaaa… then, none now)"),
        ({"settings": {"gamma": 0.5}}, {"settings": {"gamma": 1.0}}, "gamma (0.5 then, 1.0 now)"),
        ({"iterate": {"tolerance": 1e-12}}, {"iterate": {"tolerance": 0}}, "iterate.tolerance (1e-12 then, 0 now)"),
        ({"device": "cpu"}, {"device": "cuda"}, 'device ("cpu" then, "cuda" now)'),
        ({"methods": ["paper"]}, {"methods": []}, 'methods (["paper"] then, [] now)'),
        ({"parts": "a"}, {"parts": "b"}, "--parts (a then, b now)"),
        ({"parts": None}, {"parts": "b"}, 'parts (none then, "b" now)'),
        ({}, {"new": False}, "new (none then, false now)"),
    ],
)
def test_differences_in_words(before: dict[str, object], now: dict[str, object], words: str) -> None:
    same = {"image_shape": [3, 8, 8], "nested": {"same": 1}}
    assert differences({**same, **before}, {**same, **now}) == [words]
    assert differences({**same, **now}, {**same, **now}) == []


def test_a_description_is_written_and_read(memorised: Memorised, tmp_path: Path) -> None:
    description = describe(small_audit(memorised), memorised.autoencoder, "cpu", "Modell ä", {}, None)
    write_description(tmp_path, description)
    assert read_description(tmp_path) == description
    assert [path.name for path in tmp_path.iterdir()] == [DESCRIPTION]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_description(tmp_path, {**description, "plan": {"noise_std": float("nan")}})
    assert read_description(tmp_path) == description
    assert [path.name for path in tmp_path.iterdir()] == [DESCRIPTION]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "does not describe a run"),
        ("[]", "does not describe a run"),
        ("3", "does not describe a run"),
        ('{"model": "m"}', "does not describe a run: it must have id, sources, counts, kept, plan, sessions"),
        ('[{"model": "m"}]', "does not describe a run: it must be an object"),
        ("[" * 100_000, "cannot be read: its content is nested too deeply"),
        ('{"id": NaN}', "cannot be read: NaN is no JSON"),
        ("1" * 5000, "cannot be read"),
        ("{", "cannot be read"),
        ("", "cannot be read"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_description_that_describes_nothing_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / DESCRIPTION).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=rf"audit\.json {message}"):
        read_description(tmp_path)


PAPER = {"mask": "estimated", "scored": True, "uses_model": True}


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("model", 3, "model of it must be text"),
        ("id", "../elsewhere", "its id must be 32 hexadecimal digits"),
        ("sources", [], "sources of it must be an object"),
        ("counts", {"members": 16}, "'members' of counts of it must be an object"),
        ("counts", {"members": {"images": 10**400, "unusable": 0}}, "is too large a number"),
        ("counts", {"members": {"images": 1, "unusable": 2}}, "its counts of images"),
        ("kept", {}, "its masks must be those"),
        ("plan", [], "plan of it must be an object"),
        ("plan.methods", "paper", "methods of plan of it must be a list"),
        ("plan.methods", [["paper"]], "item 0 of methods of plan of it must be text"),
        ("plan.methods", ["../paper"], "its methods must be different names"),
        ("plan.methods", [], "its methods must be different names"),
        ("plan.images", {"controls": "x"}, "its splits must be members"),
        ("plan.image_shape", [3, 8], "its image_shape must be three sizes"),
        ("plan.image_shape", [3, 8, None], "item 2 of image_shape of plan of it must be an integer"),
        ("plan.noise_std", 1e300, "noise_std of plan of it is too large a number"),
        ("plan.noise_std", True, "noise_std of plan of it must be an integer or a number"),
        ("plan.masks", {"center": None}, "'center' of masks of plan of it must be text"),
        ("plan.iterate", 3, "what it says of a method must be an object"),
        ("sessions", [None], "item 0 of sessions of it must be an object"),
        ("sessions", [{}], "item 0 of sessions of it must have machine, versions"),
        ("traits", {"paper": {"mask": "given", "scored": True}}, "'paper' of traits of it must have uses_model"),
        ("traits", {"grey": PAPER}, "its traits must be those of its methods"),
        ("traits", dict.fromkeys(METHODS, PAPER | {"mask": "seen"}), "must be one of estimated, given, unused"),
        ("reconstruction_error", 3, "reconstruction_error of it must be an object"),
    ],
)
def test_a_description_that_says_what_cannot_be_is_refused_in_one_line(
    memorised: Memorised, tmp_path: Path, where: str, value: object, message: str
) -> None:
    content = describe(small_audit(memorised, controls=0), memorised.autoencoder, "cpu", "m", {}, None)
    write_description(tmp_path, content)
    assert read_description(tmp_path) == content
    inside, _, name = where.rpartition(".")
    (content[inside] if inside else content)[name] = value
    (tmp_path / DESCRIPTION).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"audit\.json does not describe a run: .*{message}") as caught:
        read_description(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_description_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path} is not the folder of a run: there is no .*audit\.json"):
        read_description(tmp_path)


def test_the_settings_of_the_plan_are_all_there_are(memorised: Memorised) -> None:
    plan = describe(small_audit(memorised), memorised.autoencoder, "cpu", "m", {}, None)["plan"]
    assert plan["settings"] == SETTINGS.to_dict()


def test_names_that_are_no_text_are_shown_as_what_can_be_written(memorised: Memorised, tmp_path: Path) -> None:
    named = {"members": "bilder\udcff"}  # as Python has a name that is not UTF-8
    description = describe(small_audit(memorised, controls=0), memorised.autoencoder, "cpu", "m\udcff", named, None)
    write_description(tmp_path, description)
    assert read_description(tmp_path)["sources"] == {"members": "bilder\\xff"}


def test_the_digest_is_that_of_the_layers_not_of_what_a_model_notes_when_it_is_used() -> None:
    class Noting(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            self.code = images.mean()
            return images

    model = Noting()
    before = model_digest(model)
    model(torch.ones(1, 3, 8, 8))
    assert model_digest(model) == before
