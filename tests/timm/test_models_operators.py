"""What test_models.py shows for ODConv, for every operator by name: on narrow networks, where it costs little."""

import json
import logging
import sys

import pytest
import torch

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")

import timm
from timm.models import save_for_hf

import dynconv_plugins as dc
import timm_models  # noqa: F401 - registers the models
from dynconv_plugins.errors import UserError
from dynconv_plugins.placement import PLACEMENTS

OPERATORS = dc.registry.names()
# Without timm's zero_init_last, under which an untrained block computes nothing at all.
NARROW = {"small_stem": True, "channels": (8, 8, 16, 16), "num_classes": 5, "zero_init_last": False}
CONVS = [f"layer{i}.{j}.conv{k}" for i in (1, 2, 3, 4) for j in (0, 1) for k in (1, 2)]
SHORTCUTS = [f"layer{i}.0.downsample.0" for i in (2, 3, 4)]

every = pytest.mark.parametrize("operator", OPERATORS)


def build(operator, base="resnet18", **kwargs):
    torch.manual_seed(0)
    narrow = NARROW if base == "resnet18" else {"num_classes": 5}
    return timm.create_model(f"{base}_{operator}", **{**narrow, **kwargs}).eval()


def images(batch=2, channels=3):
    return torch.randn(batch, channels, 32, 32, generator=torch.Generator().manual_seed(1))


def settled(model):
    """Gives the norms the statistics of a batch: without, what DCD multiplies by itself grows from layer to layer."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    model.train()(images())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def step(model, x):
    """Outputs and gradients of a training forward that draws the same numbers each time."""
    torch.manual_seed(2)
    model.zero_grad()
    y = model(x)
    y.square().mean().backward()
    return y.detach(), {name: p.grad for name, p in model.named_parameters()}


@every
@pytest.mark.parametrize(
    "base",
    ["resnet50", "mobilenetv2_100"]
    + [pytest.param(base, marks=pytest.mark.slow) for base in ("resnet34", "resnet101", "mobilenetv2_075")],
)
def test_larger_networks_are_built(base, operator):
    model = timm.create_model(f"{base}_{operator}", device="meta", num_classes=7)
    assert dc.operators_in(model) and model.get_classifier().out_features == 7


@every
@pytest.mark.parametrize("base", ["resnet18", "mobilenetv2_050"])
def test_trains_and_reaches_every_parameter(base, operator, recwarn, caplog):
    model = build(operator, base, in_chans=1, drop_rate=0.1).train()
    y, gradients = step(model, images(channels=1))
    assert y.shape == (2, 5) and torch.isfinite(y).all()
    assert not [name for name, g in gradients.items() if g is None]
    assert not recwarn.list and not caplog.records
    first = model.get_submodule(model.pretrained_cfg["first_conv"])
    assert isinstance(first, torch.nn.Conv2d) == (operator != "condconv") and first.in_channels == 1


@every
def test_features(operator):
    whole, features = settled(build(operator)), build(operator, features_only=True, out_indices=(1, 3))
    features.load_state_dict(whole.state_dict(), strict=False)
    _, intermediates = whole.forward_intermediates(images(), indices=[1, 3])
    for got, expected in zip(features(images()), intermediates, strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(whole.forward_head(whole.forward_features(images())), whole(images()))
    wide = build(operator, features_only=True, output_stride=4)
    assert [32 // f.shape[2] for f in wide(images())] == wide.feature_info.reduction() == [1, 1, 2, 4, 4]


# With a ramp, the weight of hard's budget would grow from step to step.
@every
def test_checkpointing_changes_nothing(operator):
    model = build(operator, drop_rate=0.1, **({"ramp": 0} if operator == "hard" else {})).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    plain, expected = step(model, images())
    expected = {name: g.clone() for name, g in expected.items()}
    model.set_grad_checkpointing(True)
    for _ in range(2):
        y, gradients = step(model, images())
        torch.testing.assert_close(y, plain)
        for name, g in gradients.items():
            torch.testing.assert_close(g, expected[name], msg=lambda m, name=name: f"{name}: {m}")


@every
def test_saves_and_loads_from_a_folder(operator, tmp_path, caplog):
    model = settled(build(operator, anneal_steps=3))
    save_for_hf(model, tmp_path, safe_serialization=True)
    folder = f"local-dir:{tmp_path}"
    loaded = timm.create_model(folder, pretrained=True).eval()
    torch.testing.assert_close(loaded(images()), model(images()))
    features = timm.create_model(folder, pretrained=True, features_only=True).eval()
    expected = model.forward_intermediates(images(), intermediates_only=True)
    torch.testing.assert_close(features(images())[-1], expected[-1])
    gray = timm.create_model(folder, pretrained=True, in_chans=1, num_classes=7).eval()
    assert gray(images(channels=1)).shape == (2, 7)
    gray.reset_classifier(0)
    seen = model.forward_head(model.forward_features(images(channels=1).expand(-1, 3, -1, -1)), pre_logits=True)
    # The summed weights are rounded, and untrained attention makes ten thousand times as much of it.
    torch.testing.assert_close(gray(images(channels=1)), seen, rtol=1e-2, atol=1e-2)


@every
def test_anneal_steps_suits_every_operator(operator, caplog):
    with caplog.at_level(logging.INFO, logger="timm_models"):
        model = build(operator, anneal_steps=2).train()
    cooled = [op for op in dc.operators_in(model).values() if hasattr(op.attention, "temperature")]
    assert len(caplog.messages) == (not cooled) and all("has no temperature" in line for line in caplog.messages)
    for expected in (30.0, 15.5, 1.0):
        model(images())
        assert {op.attention.temperature.item() for op in cooled} <= {expected}
    dc.set_temperature(model, 4.0)
    assert {op.attention.temperature.item() for op in cooled} <= {4.0}


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("initial", ["conv1"]),
        ("median", ["layer3.0.conv1"]),
        ("terminal", ["layer4.1.conv2"]),
        ("block_first", CONVS[::2]),
        ("blocks", CONVS),
        ("dense_blocks", CONVS),
        ("body", CONVS + SHORTCUTS),
        ("all", ["conv1", *CONVS, *SHORTCUTS]),
        (r"layer4\..*conv2", ["layer4.0.conv2", "layer4.1.conv2"]),
    ],
)
def test_placements(where, chosen):
    model = timm.create_model("resnet18_odconv", where=where, device="meta")
    assert sorted(dc.operators_in(model)) == sorted(chosen)


def test_every_placement_is_tested():
    (parameters,) = (mark.args[1] for mark in test_placements.pytestmark)
    assert set(PLACEMENTS) <= {where for where, _ in parameters}


@every
def test_placements_suit_every_operator(operator):
    for where in ("initial", "median", "block_first", "all"):
        model = build(operator, where=where).train()
        model(images()).sum().backward()
        assert all(p.grad is not None for p in model.parameters()), where


@pytest.mark.parametrize("base", ["resnet18", "mobilenetv2_050"])
@pytest.mark.parametrize(
    ("operator", "adapts"),
    [("condconv", True), ("dyconv", True), ("hard", True), ("odconv", False), ("globalsoft", False)],
)
def test_a_dynamic_stem_adapts_to_other_channels(base, operator, adapts, tmp_path, caplog):
    model = settled(build(operator, base, where="initial"))
    save_for_hf(model, tmp_path, safe_serialization=True)
    gray = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=1).eval()
    x, stem = images(channels=1), model.pretrained_cfg["first_conv"]
    got, expected = gray.get_submodule(stem)(x), model.get_submodule(stem)(x.expand(-1, 3, -1, -1))
    assert torch.allclose(got, expected, rtol=1e-3, atol=1e-4) == adapts and ("random init" in caplog.text) != adapts
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=4)(images(channels=4)).shape == (2, 5)
    with pytest.raises(RuntimeError, match=r"size mismatch for \w+\.weight"):
        gray.load_state_dict(model.state_dict())


OPTIONS = [
    ("condconv", {"num_kernels": 3}),
    ("dyconv", {"num_kernels": 2, "reduction": 0.5, "temperature": 3.0}),
    ("dcd", {"latent": 3, "grid": 1}),
    ("odconv", {"num_kernels": 2, "reduction": 0.125}),
    ("a2d2c", {"sampling": "fixed", "points": 9, "sets": 3}),
    ("a2d2cplus", {"sampling": "none"}),
    ("localsoft", {"width": 8, "num_kernels": 2}),
    ("hard", {"mask": "task", "granularity": "filter", "budget": 0.25, "ramp": 7}),
    ("orconv", {"rotations": 8, "pool": "mean"}),
]


@pytest.mark.parametrize(("operator", "options"), OPTIONS, ids=[name for name, _ in OPTIONS])
def test_options_are_saved(operator, options, tmp_path):
    model = settled(build(operator, **options))
    save_for_hf(model, tmp_path, safe_serialization=True)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architecture"] == f"resnet18_{operator}" and options.items() <= saved["model_args"].items()
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    torch.testing.assert_close(loaded(images()), model(images()))
    other = build(operator)
    if all(a.shape == b.shape for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=False)):
        other.load_state_dict(model.state_dict(), strict=False)
    assert not torch.allclose(other(images()), model(images()))


@pytest.mark.parametrize(
    ("operator", "kwargs", "says"),
    [
        ("condconv", {"temperature": 2.0}, "unknown model argument 'temperature'"),
        ("dcd", {"num_kernels": 2}, "unknown model argument 'num_kernels'"),
        ("a2d2c", {"sampling": "randm"}, "a2d2c: sampling must be one of random, fixed, none, got 'randm'"),
        ("hard", {"mask": "tsk"}, "hard: mask is 'input' or 'task'"),
        ("hard", {"budget": 2}, "hard: budget lies in 0..1"),
        ("orconv", {"rotations": 3}, "orconv: rotations"),
        ("localsoft", {"width": 0}, "localsoft: width must be at least 1"),
        ("globalsoft", {"reduction": 0.5}, "unknown model argument 'reduction'"),
    ],
)
def test_bad_options_are_one_line(operator, kwargs, says):
    with pytest.raises(UserError) as caught:
        build(operator, **kwargs)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("wrap", [lambda m: m, torch.nn.Sequential, torch.compile], ids=["bare", "inside", "compiled"])
@pytest.mark.parametrize("mask", ["input", "task"])
def test_the_budget_is_logged_once_a_switch(mask, wrap, caplog):
    caplog.set_level(logging.INFO, "timm_models")
    bare = build("hard", mask=mask)
    model = wrap(bare)
    model.train().eval()
    build("odconv").train().eval()
    assert not caplog.messages, "nothing has been trained"
    for switches in (1, 2):
        model.train()
        bare(images()).mean().backward()
        model.eval()
        model.eval()
        bare(images())
        assert len(caplog.messages) == switches
    numbers = dc.budget(model)
    assert caplog.messages[-1] == (
        f"hard: mask rate {numbers['mask_rate']:.3f}, budget loss {numbers['budget_loss']:.3g}"
    )


def test_budget_is_logged_by_the_first_process_only(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # a process group leaves one that names the rank
    caplog.set_level(logging.INFO, "timm_models")
    model = build("hard").train()
    model(images()).mean().backward()
    store = torch.distributed.FileStore(str(tmp_path / "store"), 2)
    torch.distributed.init_process_group("fake", store=store, rank=1, world_size=2)
    try:
        model.eval()
    finally:
        torch.distributed.destroy_process_group()
    assert not caplog.messages
    model.train().eval()
    assert len(caplog.messages) == 1
