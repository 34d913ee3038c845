"""The models as timm's users meet them: names, parameters, every way timm builds and takes apart a network."""

import copy
import json
import pickle

import pytest
import torch

pytest.importorskip("timm", reason="needs timm: pip install 'dynconv-plugins[timm]'")

import timm
from timm.models import load_checkpoint, load_state_dict, save_for_hf
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import Bottleneck, ResNet

import dynconv_plugins as dc
import timm_models
from dynconv_plugins.errors import UnknownName, UserError

BASES = [f"resnet{d}" for d in (18, 34, 50, 101)] + [f"mobilenetv2_{w}" for w in ("050", "075", "100")]
SMALL = ("resnet18_odconv", "resnet18_odconv4x", "mobilenetv2_050_odconv", "mobilenetv2_050_odconv4x")

# Millions, to the printed digit: ODConv (ICLR 2022), tables 1, 2 and 4.
PUBLISHED = [
    ("resnet18_odconv", {}, "11.94"),
    ("resnet18_odconv4x", {}, "44.90"),
    ("resnet50_odconv", {}, "28.64"),
    ("resnet50_odconv4x", {}, "90.67"),
    ("resnet101_odconv", {}, "50.82"),
    ("resnet101_odconv", {"num_kernels": 2}, "90.44"),
    ("mobilenetv2_100_odconv", {}, "4.94"),
    ("mobilenetv2_100_odconv4x", {}, "11.51"),
    ("mobilenetv2_075_odconv", {}, "3.51"),
    ("mobilenetv2_075_odconv4x", {}, "7.50"),
    ("mobilenetv2_050_odconv", {}, "2.43"),
    ("mobilenetv2_050_odconv4x", {}, "4.44"),
]


def build(name, **kwargs):
    torch.manual_seed(0)
    # Under timm's zero_init_last an untrained block computes nothing at all.
    timms = {"num_classes": 5, **({"zero_init_last": False} if name.startswith("resnet") else {})}
    return timm.create_model(name, **{**timms, **kwargs}).eval()


def images(batch=2, size=64, channels=3):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


def millions(model):
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}"


@pytest.mark.parametrize("base", ["resnet18", "mobilenetv2_050"])
def test_the_static_twin_is_timms_own_network(base):
    x = images()
    twin, timms = build(f"{base}_static"), build(base)
    timms.load_state_dict(twin.state_dict())
    assert not dc.operators_in(twin) and torch.equal(twin(x), timms(x))
    assert build(f"{base}_static", small_stem=True)(x).shape == (2, 5)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("operator", dc.registry.names())
def test_every_operator_is_registered_for_every_network(base, operator):
    name = f"{base}_{operator}"
    assert name in timm.list_models("*" + operator)
    assert name in timm_models.list_models(base + "*")
    entrypoint = timm.model_entrypoint(name)
    assert entrypoint.__name__ == name and entrypoint.__doc__
    assert pickle.loads(pickle.dumps(entrypoint)) is entrypoint
    cfg = timm.get_pretrained_cfg(name)
    assert cfg.architecture == name and cfg.num_classes == 1000 and not cfg.has_weights


@pytest.mark.parametrize(("name", "kwargs", "published"), PUBLISHED, ids=lambda v: v if isinstance(v, str) else None)
def test_published_parameters(name, kwargs, published):
    assert millions(timm.create_model(name, device="meta", **kwargs)) == published


@pytest.mark.parametrize("name", SMALL)
def test_is_timms_own_class_and_says_nothing(name, recwarn, caplog):
    model = build(name)
    assert isinstance(model, ResNet if name.startswith("resnet") else EfficientNet)
    assert not recwarn.list and not caplog.records
    assert model(images()).shape == (2, 5)
    assert model.num_classes == 5 and model.pretrained_cfg["architecture"] == name


@pytest.mark.parametrize("name", SMALL[::2])
def test_static_parts_stay_static(name):
    model = build(name)
    plain = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert plain == ({"conv1"} | {f"layer{i}.0.downsample.0" for i in (2, 3, 4)} if "resnet" in name else {"conv_stem"})


@pytest.mark.parametrize("name", SMALL)
def test_trains_and_reaches_every_parameter(name):
    model = build(name, in_chans=1, drop_rate=0.1).train()
    model(images(4, 64, 1)).square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize("name", ["resnet18_odconv", "mobilenetv2_050_odconv4x"])
def test_trains_on_one_image(name):
    assert torch.isfinite(build(name).train()(images(1, 64))).all()


@pytest.mark.parametrize("name", SMALL[::2])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_features_and_output_stride(name, stride):
    model = build(name, features_only=True, output_stride=stride)
    features = model(images())
    assert [f.shape[1] for f in features] == model.feature_info.channels()
    assert [64 // f.shape[2] for f in features] == model.feature_info.reduction()
    assert model.feature_info.reduction()[-1] == stride


@pytest.mark.parametrize("name", SMALL[::2])
def test_features_equal_forward_intermediates(name):
    whole = build(name)
    features = build(name, features_only=True, out_indices=(1, 3))
    features.load_state_dict(whole.state_dict(), strict=False)
    _, intermediates = whole.forward_intermediates(images(), indices=[1, 3])
    for got, expected in zip(features(images()), intermediates, strict=True):
        torch.testing.assert_close(got, expected)


# Not MobileNetV2 as "dict": timm cannot wrap its own one so either, its features lie inside `blocks`.
@pytest.mark.parametrize(
    ("name", "cls"),
    [(SMALL[0], "hook"), (SMALL[0], "dict"), (SMALL[0], "getter"), (SMALL[2], "hook"), (SMALL[2], "getter")],
)
def test_timms_other_feature_wrappers(name, cls):
    features = build(name, features_only=True, feature_cls=cls, out_indices=(2, 3))(images())
    features = list(features.values()) if isinstance(features, dict) else features
    assert [f.shape[2] for f in features] == [8, 4]


def test_expansion_features_hook_the_dynamic_convolutions():
    name = "mobilenetv2_050"
    static = build(name, features_only=True, feature_location="expansion")(images())
    dynamic = build(name + "_odconv", features_only=True, feature_location="expansion")(images())
    assert [f.shape for f in dynamic] == [f.shape for f in static]


@pytest.mark.parametrize(("name", "first", "last"), [("resnet18_odconv", 64, 8), ("mobilenetv2_050_odconv", 64, 4)])
def test_small_stem(name, first, last):
    whole, model = build(name, small_stem=True), build(name, small_stem=True, features_only=True)
    sizes = [f.shape[2] for f in model(images())]
    assert sizes[0] == first and sizes[-1] == last
    assert [64 // s for s in sizes] == model.feature_info.reduction()
    stem = whole.get_submodule(whole.pretrained_cfg["first_conv"])
    assert stem.kernel_size == (3, 3) and stem.stride == (1, 1)
    assert whole(images()).shape == (2, 5)


def test_small_stem_counts_output_stride_in_pixels():
    model = build("resnet18_odconv", small_stem=True, output_stride=4, features_only=True)
    assert model.feature_info.reduction() == [1, 1, 2, 4, 4]
    assert model(images())[-1].shape[2] == 16


def test_strides_in_the_first_1x1():
    v15, v1 = (timm.create_model("resnet50_odconv", stride_in_1x1=on, device="meta") for on in (False, True))
    assert millions(v1) == millions(v15)
    strides = {(m.conv1.stride, m.conv2.stride) for m in v1.modules() if isinstance(m, Bottleneck)}
    assert strides == {((1, 1), (1, 1)), ((2, 2), (1, 1))}
    assert build("resnet50_odconv", stride_in_1x1=True)(images(1)).shape == (1, 5)


@pytest.mark.parametrize("name", SMALL[::2])
def test_reset_classifier_and_checkpointing(name):
    model = build(name).train()
    x = images()
    plain, sizes = model.forward_features(x), []
    plain.mean().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model.set_grad_checkpointing()
    model.forward_features(x).mean().backward()
    for p, e in zip((p for p in model.parameters() if p.grad is not None), expected, strict=True):
        torch.testing.assert_close(p.grad, e)
    for classes in (3, 0):
        model.reset_classifier(classes)
        sizes.append(model(x).shape[1])
    assert sizes == [3, model.num_features]


@pytest.mark.parametrize("name", SMALL)
def test_saves_and_loads_from_a_folder(name, tmp_path):
    arguments = {"num_kernels": 2, "reduction": 0.125, "temperature": 3.0, "small_stem": True, "drop_rate": 0.2}
    model = build(name, **arguments)
    save_for_hf(model, tmp_path, safe_serialization=True)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architecture"] == name and saved["model_args"]["num_kernels"] == 2
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    torch.testing.assert_close(loaded(images()), model(images()))
    adapted = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=1, num_classes=7).eval()
    assert adapted(images(channels=1)).shape == (2, 7)
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True).eval()
    torch.testing.assert_close(
        features(images())[-1], model.forward_intermediates(images(), intermediates_only=True)[-1]
    )


def test_loads_a_checkpoint_and_refuses_another_networks(tmp_path):
    model, path = build("resnet18_odconv"), tmp_path / "model.pth.tar"
    torch.save({"state_dict": model.state_dict()}, path)
    same = build("resnet18_odconv", checkpoint_path=path)
    torch.testing.assert_close(same(images()), model(images()))
    with pytest.raises(RuntimeError, match="size mismatch|Missing key"):
        build("resnet18_odconv4x", checkpoint_path=path)


@pytest.mark.parametrize("name", SMALL[::2])
def test_copies_and_pickles(name):
    model = build(name, anneal_steps=5)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(images()), model(images()))
        twin.train()(images())
        assert twin.annealing_step == 1 and model.annealing_step == 0


def test_where_and_temperature():
    model = build("resnet18_odconv", where=r"layer4\..*conv2", temperature=7.0)
    assert list(dc.operators_in(model)) == ["layer4.0.conv2", "layer4.1.conv2"]
    assert {m.attention.temperature.item() for m in dc.operators_in(model).values()} == {7.0}
    assert len(dc.operators_in(build("resnet18_odconv", where="all"))) == 20


def temperature_of(model):
    (value,) = {m.attention.temperature.item() for m in dc.operators_in(model).values()}
    return value


def test_anneals_itself_and_continues_from_a_checkpoint(tmp_path):
    model = build("resnet18_odconv", anneal_steps=4).train()
    assert temperature_of(model) == 30.0
    for _ in range(3):
        model(images(2, 32))
    assert temperature_of(model) == pytest.approx(30 - 29 / 2)
    torch.save(model.state_dict(), tmp_path / "last.pth")
    resumed = build("resnet18_odconv", anneal_steps=4, checkpoint_path=tmp_path / "last.pth")
    resumed(images(2, 32))
    assert temperature_of(resumed) == temperature_of(model), "evaluation must not lower it"
    for _ in range(3):
        resumed.train()(images(2, 32))
    assert temperature_of(resumed) == 1.0
    assert temperature_of(build("resnet18_odconv", anneal_steps=4, temperature=8.0)) == 8.0


def test_annealed_weights_load_without_the_schedule_and_back(tmp_path):
    annealed, plain = build("resnet18_odconv", anneal_steps=4), build("resnet18_odconv")
    annealed.train()(images())
    torch.save(annealed.state_dict(), tmp_path / "annealed.pth")
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    load_checkpoint(plain, str(tmp_path / "annealed.pth"))
    assert temperature_of(plain) == 30.0
    load_checkpoint(annealed, str(tmp_path / "plain.pth"))
    assert annealed.annealing_step == 1 and temperature_of(annealed) == 1.0
    with pytest.raises(RuntimeError, match="fc.weight"):
        plain.load_state_dict(
            {k: v for k, v in load_state_dict(str(tmp_path / "annealed.pth")).items() if k != "fc.weight"}
        )


@pytest.mark.parametrize(
    ("name", "kwargs", "says"),
    [
        ("resnet18_odconv", {"where": "blokcs"}, "unknown placement 'blokcs'; did you mean blocks"),
        ("resnet18_odconv", {"where": lambda n, m: True}, "dynamize"),
        ("resnet18_odconv", {"num_kernel": 2}, "unknown model argument 'num_kernel'; did you mean num_kernels"),
        ("mobilenetv2_050_odconv", {"smal_stem": True}, "did you mean small_stem"),
        ("resnet18_odconv", {"num_kernels": 0}, "num_kernels must be at least 1"),
        ("resnet18_odconv", {"stride_in_1x1": True}, "use resnet50 or resnet101"),
        ("mobilenetv2_050_odconv", {"stride_in_1x1": True}, "unknown model argument 'stride_in_1x1'"),
        ("resnet18_odconv", {"output_stride": 7}, "output_stride=7 must be one of [8, 16, 32]"),
        ("mobilenetv2_050_odconv", {"output_stride": 7}, "output_stride=7 must be one of [8, 16, 32]"),
        ("resnet18_odconv", {"small_stem": True, "stem_type": "deep"}, "drop stem_type"),
        ("resnet18_odconv", {"anneal_steps": -1}, "anneal_steps=-1 must be a whole number"),
        ("resnet18_odconv", {"anneal_steps": 9, "features_only": True}, "dynconv_plugins.anneal()"),
        ("resnet18_odconv", {"temperature": 0}, "temperature must be positive, got 0"),
        ("resnet18_odconv", {"temperature": "hot"}, "odconv"),
    ],
)
def test_bad_arguments_are_one_line(name, kwargs, says):
    with pytest.raises(UserError) as caught:
        build(name, **kwargs)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_names_are_value_errors_too():
    with pytest.raises(UnknownName) as caught:
        build("resnet50_odconv", where="blokcs")
    assert isinstance(caught.value, ValueError)
