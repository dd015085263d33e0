from __future__ import annotations

import collections
import copy
import dataclasses
import pickle
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import memrecon_fast as mf
from memrecon_fast.audit.plan import model_digest
from memrecon_fast.autoencoders import FullyConnected, UNet, adapt
from memrecon_fast.engine.prox import device_of, make_prox
from memrecon_fast.engine.stated import stated_shape

SHAPE = (3, 4, 4)
CPU = torch.device("cpu")
CAFFE = (104.0, 117.0, 123.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Expecting(nn.Module):
    """A good autoencoder of certain pixels: whatever does not lie where they lie comes back as something else."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low.view(-1, 1, 1))  # nn.Buffer is newer than the oldest torch
        self.register_buffer("high", high.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images.clamp(self.low, self.high)


IMAGES = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pixel_range": (-1, 1)}, IMAGES * 2 - 1),
        ({"mean": 0.5, "std": 0.5}, IMAGES * 2 - 1),
        ({"pixel_range": (0, 255)}, IMAGES * 255),
        ({"pixel_range": [0, 255], "mean": np.array(CAFFE)}, IMAGES * 255 - torch.tensor(CAFFE).view(3, 1, 1)),
        ({"mean": MEAN, "std": STD}, (IMAGES - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)),
        ({"std": torch.tensor(0.25)}, IMAGES * 4),
        ({"channels": "bgr"}, IMAGES[:, [2, 1, 0]]),
        ({"channels": "bgr", "mean": MEAN}, IMAGES[:, [2, 1, 0]] - torch.tensor(MEAN).view(3, 1, 1)),
    ],
)  # fmt: skip
def test_the_model_is_given_its_own_pixels_and_gives_back_those_of_the_images(
    options: dict[str, Any], expected: Tensor
) -> None:
    given: list[Tensor] = []

    def identity(images: Tensor) -> Tensor:
        given.append(images.clone())
        return images

    # 0 to 255 in float32: a unit in the last place is 1.5e-5
    torch.testing.assert_close(adapt(identity, **options)(IMAGES), IMAGES, rtol=0, atol=3e-7)
    torch.testing.assert_close(given[0], expected, rtol=3e-7, atol=1e-5)


@pytest.mark.parametrize("options", [{"pixel_range": (-1, 1)}, {"mean": MEAN, "std": STD}, {"pixel_range": (0, 255)}])
def test_a_model_of_other_pixels_recovers_what_it_recovers_in_0_to_1(options: dict[str, Any]) -> None:
    """Held against the model in its own pixels: black and white are where it has them, and its errors come back."""
    adapted = adapt(nn.Identity(), **options)
    ends = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)])
    kept: list[Tensor] = []
    adapt(lambda x: kept.append(x) or x, **options)(ends)  # type: ignore[func-returns-value]
    model = Expecting(kept[0][0, :, 0, 0], kept[0][1, :, 0, 0])
    good = adapt(model.eval(), **options)
    torch.testing.assert_close(good(IMAGES), adapted(IMAGES), rtol=0, atol=1e-6)
    beyond = 3 * IMAGES - 1
    torch.testing.assert_close(good(beyond), beyond.clamp(0, 1), rtol=0, atol=1e-6)


def test_without_options_the_model_is_left_as_it_is() -> None:
    model = nn.Identity()
    assert adapt(model) is model
    assert adapt(model, pixel_range=(0, 1), mean=(0, 0, 0), std=1, channels="rgb") is model


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"pixel_range": (1, 0)}, ValueError, "the lower first"),
        ({"pixel_range": (0, 0)}, ValueError, "the lower first"),
        ({"pixel_range": (0, 1, 2)}, ValueError, "two numbers"),
        ({"pixel_range": (0, float("nan"))}, ValueError, "pixel_range .* must be finite"),
        ({"pixel_range": "01"}, TypeError, "pixel_range must be a number"),
        ({"pixel_range": (-1e308, 1e308)}, ValueError, "float32"),
        ({"mean": float("inf")}, ValueError, "mean must be finite"),
        ({"mean": True}, TypeError, "mean must be a number"),
        ({"mean": ()}, ValueError, "one for each channel"),
        ({"std": 0}, ValueError, "std must be finite and above 0"),
        ({"std": (0.2, 0.2, -0.2)}, ValueError, "std must be finite and above 0"),
        ({"std": 1e-50}, ValueError, "float32"),
        ({"mean": (1, 2, 3), "std": (1, 2)}, ValueError, "mean has 3 channels, std 2"),
        ({"channels": "grb"}, ValueError, "channels must be one of 'rgb', 'bgr'"),
        ({"output": 1.5}, TypeError, "output must be a name or a position"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        adapt(nn.Identity(), **options)


def test_another_number_of_channels_is_refused_where_it_is_known() -> None:
    grey = FullyConnected((1, 4, 4), 4, 2)
    for options in ({"channels": "bgr"}, {"mean": MEAN}):
        with pytest.raises(ValueError, match=r"channels"):
            adapt(grey, **options)
        with pytest.raises(ValueError, match=r"channels"):
            adapt(nn.Identity(), **options)(torch.rand(2, 1, 4, 4))
    assert adapt(grey, mean=0.5)(torch.rand(2, 1, 4, 4)).shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"returned \(2, 1, 4, 4\) for images \(2, 3, 4, 4\)"):
        adapt(lambda x: x[:, :1], mean=MEAN)(torch.rand(2, 3, 4, 4))
    with pytest.raises(TypeError, match="callable"):
        adapt(3)  # type: ignore[arg-type]


def test_what_looks_at_a_model_sees_through() -> None:
    model = UNet(SHAPE, (4, 5), seed=1).eval()
    adapted = adapt(model, mean=MEAN, std=STD)
    assert isinstance(adapted, nn.Module)
    assert adapted.model is model
    assert not adapted.training
    assert stated_shape(adapted) == SHAPE
    assert stated_shape(adapt(lambda x: x, mean=MEAN)) is None
    assert device_of(adapted, torch.device("meta")) == CPU
    assert make_prox(adapted, SHAPE, CPU)._channels_last
    assert list(adapted.state_dict()) == [f"model.{name}" for name in model.state_dict()]
    for copied in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        assert torch.equal(copied(IMAGES), adapted(IMAGES))
    model.train()
    with pytest.raises(ValueError, match="in training mode"):
        make_prox(adapt(model, mean=MEAN), SHAPE, CPU)
    assert adapt(nn.Linear(4, 4, device="meta"), mean=MEAN).offset.is_meta  # type: ignore[attr-defined]


def test_another_adaptation_is_another_model() -> None:
    model = FullyConnected(SHAPE, 4, 2).eval()
    options: list[dict[str, Any]] = [
        {}, {"pixel_range": (-1, 1)}, {"pixel_range": (0, 255)}, {"std": 0.5}, {"channels": "bgr"},
        {"output": "sample"}, {"output": 0},
    ]  # fmt: skip
    assert len({model_digest(adapt(model, **one)) for one in options}) == len(options)
    assert model_digest(adapt(model, std=0.5)) == model_digest(adapt(model, std=(0.5,)))
    functions = {model_digest(adapt(one, std=0.5)) for one in (torch.sin, torch.cos)}
    assert len(functions) == 2


def test_what_a_program_computes_is_part_of_what_it_is() -> None:
    shapes = ({0: torch.export.Dim("batch")},)

    def exported(factor: float) -> Any:
        class Scaled(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * factor

        return torch.export.export(Scaled().eval(), (IMAGES,), dynamic_shapes=shapes).module()

    assert len({model_digest(adapt(exported(factor), pixel_range=(-1, 1))) for factor in (1.5, 2.5)}) == 2


def test_the_bits_of_an_image_depend_on_no_other() -> None:
    adapted = adapt(nn.Identity(), mean=MEAN, std=STD, channels="bgr")
    alone = torch.cat([adapted(image) for image in IMAGES.split(1)])
    assert torch.equal(adapted(IMAGES), alone)


def test_an_exported_program_can_be_adapted() -> None:
    model = FullyConnected(SHAPE, 4, 2).eval()
    exported = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    adapted = adapt(exported, pixel_range=(-1, 1))
    assert isinstance(adapted, nn.Module)
    make_prox(adapted.eval(), SHAPE, CPU)
    torch.testing.assert_close(adapted(IMAGES), adapt(model, pixel_range=(-1, 1))(IMAGES))


@dataclasses.dataclass
class Decoded:
    sample: Tensor
    kl: Tensor


Named = collections.namedtuple("Named", ["out", "code"])
IMAGES_AND_CODE = (IMAGES * 0.5, torch.zeros(5, 2))


@pytest.mark.parametrize(
    "returned",
    [
        Decoded(*IMAGES_AND_CODE),
        {"loss": torch.tensor(1.0), "recon": IMAGES * 0.5, "target": IMAGES * 3},
        collections.OrderedDict(reconstruction=IMAGES * 0.5, hidden_states=(IMAGES, IMAGES)),
        {"decoder": {"recon": IMAGES * 0.5}, "losses": [IMAGES * 2]},
        {"x_hat": IMAGES * 0.5, "likelihoods": {"y": torch.ones(5, *SHAPE)}},
    ],
)
def test_a_documented_output_is_taken(returned: Any) -> None:
    def model(images: Tensor) -> Any:
        return returned

    assert torch.equal(adapt(model, channels="bgr")(IMAGES.flip(1)), IMAGES.flip(1) * 0.5)
    prox = make_prox(lambda images: {"sample": images * 0.5, "loss": images.sum()}, SHAPE, CPU)  # type: ignore[arg-type, return-value]
    assert torch.equal(prox.apply(IMAGES), IMAGES * 0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: (x * 0.5, x.flatten(1).mean(1), x.flatten(1).std(1)),  # a VAE's reconstruction, mu, logvar
        lambda x: [x * 0.5, x, x.mean()],  # with its input
        lambda x: Named(x * 0.5, x.sum()),
        lambda x: {"out": x * 0.5, "ids": torch.zeros(x.shape, dtype=torch.int64)},
        lambda x: types.SimpleNamespace(y=x * 0.5, name="y"),
        lambda x: ((x * 0.5, None), {"code": x.sum()}),
    ],
)
def test_the_only_output_of_the_shape_of_the_images_is_taken_and_said(make: Any) -> None:
    with pytest.warns(RuntimeWarning, match="the only one of the shape of the images( that can be)?, is taken"):
        prox = make_prox(make, SHAPE, CPU)
    assert torch.equal(prox.apply(IMAGES), IMAGES * 0.5)
    with pytest.warns(RuntimeWarning, match="the only one of the shape of the images( that can be)?, is taken"):
        recovery = mf.recover(make, IMAGES, settings=mf.Settings(max_outer_iterations=2))
    expected = mf.recover(lambda x: x * 0.5, IMAGES, settings=mf.Settings(max_outer_iterations=2))
    assert torch.equal(recovery.images, expected.images)


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda x: (x * 0.5, x * 2), r"a tuple of 0 \(16, 3, 4, 4\), 1 \(16, 3, 4, 4\).*images\)\[0\]"),
        (lambda x: {"logits": x * 0.5, "loss": x.sum()}, r"a dict of logits \(16, 3, 4, 4\), loss.*\['logits'\]"),
        (lambda x: {"recon": x.flatten(1), "out": x * 2}, r"a dict of recon \(16, 48\), out .*'out'"),
        (lambda x: {"noise": x * 0.5}, "a dict of noise"),
        (lambda x: {"sample": x * 0.5, "recon": x * 2}, "a dict of sample"),
        (lambda x: {"mask": x > 0}, "a dict of mask"),
        (lambda x: {"out": x}, "a dict of out"),  # its very input
        (lambda x: ((x * 2, [x * 3]), None), r"a tuple of 0.0 \(16, 3, 4, 4\), 0.1.0 .*, 1 None.*images\)\[0\]\[0\]"),
        (lambda x: types.SimpleNamespace(a=x * 2, b=x * 3), r"images\)\.a\.view"),
        (lambda x: {f"n{i}": x * i for i in range(2, 20)}, "and 10 more"),
    ],
)  # fmt: skip
def test_other_outputs_are_listed_with_what_to_do(make: Any, shown: str) -> None:
    with pytest.raises(TypeError, match=f"(?s)must return a floating-point tensor, not .*{shown}") as caught:
        make_prox(make, SHAPE, CPU)
    assert "--output NAME" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 4  # the message, and three lines that wrap it


@pytest.mark.parametrize("returned", [(), None, "text", np.zeros(3), {"name": None}, [[[[[IMAGES]]]]]])
def test_what_holds_no_tensor_is_named_in_a_line(returned: Any) -> None:
    with pytest.raises(TypeError, match=r"must return a floating-point tensor, not \w+$"):
        make_prox(lambda x: returned, SHAPE, CPU)


@pytest.mark.parametrize("output", [1, "1", "logits", "deep.0"])
def test_an_output_is_chosen_by_name_or_position(output: str | int) -> None:
    adapted = adapt(lambda x: {"x": x, "logits": x * 0.5, "deep": (x * 0.5,)}, output=output)  # type: ignore[arg-type, return-value]
    assert torch.equal(adapted(IMAGES), IMAGES * 0.5)


def test_rows_of_pixels_that_are_chosen_become_images() -> None:
    adapted = adapt(lambda x: (0.5 * x.flatten(1), x.mean(), x.mean()), output=0)  # type: ignore[arg-type, return-value]
    assert torch.equal(adapted(IMAGES), IMAGES * 0.5)
    fewer = adapt(lambda x: (x.flatten(1)[:, 1:], x.mean()), output=0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="the model returned"):
        fewer(IMAGES)


def test_a_named_tuple_has_positions_too() -> None:
    adapted = adapt(lambda x: Named(x * 2, x * 0.5), output=1)  # type: ignore[arg-type, return-value]
    assert torch.equal(adapted(IMAGES), IMAGES * 0.5)


@pytest.mark.parametrize("returned", [IMAGES, {"sample": IMAGES}, (IMAGES,), {"recon": 3}])
def test_an_output_that_is_not_there_is_named(returned: Any) -> None:
    with pytest.raises(TypeError, match="no tensor 'recon' in what the autoencoder returns, "):
        make_prox(adapt(lambda x: returned, output="recon"), SHAPE, CPU)
