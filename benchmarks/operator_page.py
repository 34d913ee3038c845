"""Writes the page of operators: texts, counts, and pictures from the networks that `benchmarks.hosts` has trained.

python -m benchmarks.hosts --data data --out runs/hosts --tasks images
python -m benchmarks.operator_page --runs runs/hosts --page docs/operators.md
"""

from __future__ import annotations

import argparse
import inspect
import warnings
from pathlib import Path

import timm
import torch

import dynconv_plugins as dc
import timm_models  # noqa: F401 - registers the models
from dynconv_plugins.demo import attention
from dynconv_plugins.demo.images import Images
from dynconv_plugins.demo.records import Cell, Data
from dynconv_plugins.errors import UserError, run_cli

from .operator_pictures import DRAW, save
from .operator_texts import ENTRIES

HEAD = """# The operators

Every operator is an `nn.Module` with `nn.ConvNd`'s own constructor, in one, two and three dimensions, and has one short
name: `dyconv` is `dynconv_plugins.DyConv2d` in Python, `resnet18_dyconv` in timm, `conv_cfg=dict(type='DyConv2d')` or
`DynConvBackbone(model_name='resnet18_dyconv')` in mmsegmentation, `DynamicArch(FCN, 'dyconv')` in tsai, and
`dynamize(model, 'dyconv')` for any model.

One equation holds for all of them but dcd; in orconv the sum over kernels is a maximum:

    y_b = f_b * conv( c_b * x_b ,  sum_k  a_bk * ( s_b * W_k ) ) + bias

`a` weighs K kernels (per sample, or per position), `s` the taps, `c` the input channels, `f` the filters. T is a
temperature, GAP the average over all positions.

Parameters and multiply-adds are those of ResNet-18 with an ImageNet head at 224 px (static: {static}), counted by
`dc.complexity`; [counts.md](counts.md) compares them with the published ones. Each operator replaces the convolutions
that its paper's table says ("where"); `where=` takes others. The pictures are drawn from networks trained shortly on
ten classes of Tiny ImageNet, see [results.md](results.md): they show what can be seen, not what a long training would
give. This page is written by `python -m benchmarks.operator_page`.
"""

ITEM = """## {name}: {title}

{source}.

    {equation}

| where | arguments | parameters | MAdds |
| --- | --- | --- | --- |
| `{where}` | {arguments} | {params:.2f}M ({params_ratio:.2f}x) | {macs:.3f}G ({macs_ratio:.2f}x) |

![What {name} sees](img/operators/{name}.png)

{sees}

**When to use it.** {when}

**What differs from the paper.** {differs}
"""


def arguments(operator: dc.registry.Operator) -> str:
    """The operator's own arguments with the values that its name stands for."""
    cls = operator.classes[2]
    own = {
        p.name: p.default
        for p in inspect.signature(cls.__init__).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    shown = (f"`{name}={value!r}`" for name, value in {**own, **operator.defaults}.items())
    return ", ".join(shown) or "none of its own"


def counted(name: str) -> dc.Complexity:
    """ResNet-18 with the operator."""
    return dc.complexity(timm.create_model(name), (1, 3, 224, 224))


def pictures(runs: Path, folder: Path) -> None:
    """Draws one picture an operator.

    Raises:
        UserError: If an operator has not been trained under `runs`.
    """
    host, path = Images(list(ENTRIES)), runs / "data" / "images"
    classes = len([p for p in (path / "val").iterdir() if p.is_dir()]) if path.is_dir() else 0
    data = Data("images", path, 0, 0, classes)
    files = host._files(path / "val")
    chosen, labels = attention.by_class([p.parent.name for p in files])
    words = host._words(data)
    images = [host._pixels(files[i]) for i in chosen]
    for name in ENTRIES:
        cell = Cell("images", name, f"resnet18_{name}", runs / "images" / name, (), 0, "epoch")
        try:
            model, _ = host.load(cell, data)
        except OSError as e:
            raise UserError(f"no trained {name} under {runs}: run `python -m benchmarks.hosts` first ({e})") from e
        mean, std = (torch.tensor(model.default_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        x = torch.stack([(torch.from_numpy(image).permute(2, 0, 1) - mean) / std for image in images])
        save(DRAW[name](model, x, images, [words.get(label, label) for label in labels]), folder / f"{name}.png")


def page() -> str:
    """The text, with what is counted now."""
    static = counted("resnet18")
    text = HEAD.format(static=f"{static.params / 1e6:.2f}M parameters, {static.macs / 1e9:.3f}G multiply-adds")
    for name, entry in ENTRIES.items():
        operator, ours = dc.registry.get(name), counted(f"resnet18_{name}")
        text += "\n" + ITEM.format(
            name=name,
            **entry._asdict(),
            where=operator.where,
            arguments=arguments(operator),
            params=ours.params / 1e6,
            params_ratio=ours.params / static.params,
            macs=ours.macs / 1e9,
            macs_ratio=ours.macs / static.macs,
        )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.operator_page", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/hosts"))
    parser.add_argument("--page", type=Path, default=Path("docs/operators.md"))
    args = parser.parse_args()
    folder = args.page.parent / "img" / "operators"
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pictures(args.runs, folder)
    args.page.write_text(page())
    print(f"written: {args.page}")


if __name__ == "__main__":
    run_cli(main)
