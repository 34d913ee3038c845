"""The command line: timm's flag names and defaults, in timm's groups, and a few flags of our own.

Left out are timm's flags for NaFlex, distillation, AugMix splits, scheduled resolutions and wandb: for those run timm's
own script, ``python -m timm_models run train.py``; and those for TorchScript, which dynamic models do not support.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from timm.utils import ParseKwargs

Add = Callable[..., Any]
_RESIZING = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


class KeyValues(ParseKwargs):
    """timm's ``key=value`` pairs; anything else is a usage error instead of a traceback."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if value and "=" not in value:
                parser.error(f"{option_string} takes key=value pairs, not '{value}'")
        super().__call__(parser, namespace, values, option_string)


def _data(add: Add) -> None:
    add("data", nargs="?", metavar="DIR", help="folder that holds the splits; same as --data-dir")
    add("--data-dir", metavar="DIR", help="folder that holds the splits")
    add("--dataset", default="", metavar="NAME", help="kind of data set; empty for image folders, or torch/<name>")
    add("--train-split", default="train", metavar="NAME", help="training split")
    add("--val-split", default="validation", metavar="NAME", help="validation split; '' trains without validation")
    add("--dataset-download", help="let torch/ data sets download themselves")
    add("--class-map", default="", metavar="FILE", help="text file that maps class folders to indices")
    add("--input-img-mode", default=None, metavar="MODE", help="PIL mode of the images (default: RGB or L)")


def _model(add: Add) -> None:
    add("--model", default="resnet50", metavar="MODEL", help="model name")
    add("--pretrained", help="start from the model's published weights, if it has any")
    add("--pretrained-path", default=None, metavar="PATH", help="start from this file, but for its classifier")
    add("--initial-checkpoint", default="", metavar="PATH", help="start from this checkpoint of the same model")
    add("--resume", default="", metavar="PATH", help="go on from this checkpoint; 'auto': the newest of the experiment")
    add("--no-resume-opt", help="resume weights and epoch, not the optimiser")
    add("--num-classes", type=int, default=None, metavar="N", help="classes (default: as many as the data has)")
    add("--gp", default=None, metavar="POOL", help="global pooling: fast, avg, max, avgmax or catavgmax")
    add("--img-size", type=int, default=None, metavar="N", help="image size in pixels (default: the model's)")
    add("--in-chans", type=int, default=None, metavar="N", help="input channels (default: 3)")
    add("--input-size", type=int, nargs=3, default=None, metavar="N", help="channels, height and width")
    add("--crop-pct", type=float, default=None, metavar="PCT", help="centre crop in validation, as a fraction")
    add("--mean", type=float, nargs="+", default=None, help="pixel mean")
    add("--std", type=float, nargs="+", default=None, help="pixel standard deviation")
    add("--interpolation", default="", choices=("", *_RESIZING), help="resizing in validation (default: the model's)")
    add("-b", "--batch-size", type=int, default=128, metavar="N", help="images a process trains on at a time")
    add("-vb", "--validation-batch-size", type=int, default=None, metavar="N", help="same, in validation")
    add("--channels-last", help="use the channels_last memory format")
    add("--grad-accum-steps", type=int, default=1, metavar="N", help="batches per optimiser step")
    add("--grad-checkpointing", help="recompute activations in the backward pass")
    add("--model-kwargs", nargs="*", default={}, action=KeyValues, metavar="K=V", help="e.g. small_stem=True")
    add("--torchcompile", nargs="?", default=None, const="inductor", metavar="BACKEND", help="compile the model")
    add("--torchcompile-mode", default=None, metavar="MODE", help="torch.compile's mode")


def _device(add: Add) -> None:
    default = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=default, help="device (default: cuda, or cpu where there is none)")
    add("--amp", help="automatic mixed precision")
    add("--amp-dtype", default="float16", choices=("float16", "bfloat16"), help="its lower precision")
    add("--no-ddp-bb", help="do not broadcast buffers in DDP; then a mid-epoch resume is not exact")
    add("--device-modules", nargs="+", default=None, metavar="MODULE", help="modules to import first")


def _optimizer(add: Add) -> None:
    add("--opt", default="sgd", metavar="NAME", help="timm's optimiser name")
    add("--opt-eps", type=float, default=None, metavar="EPS", help="epsilon")
    add("--opt-betas", type=float, nargs="+", default=None, metavar="BETA", help="betas")
    add("--momentum", type=float, default=0.9, metavar="M", help="momentum")
    add("--weight-decay", type=float, default=2e-5, help="weight decay")
    add("--clip-grad", type=float, default=None, metavar="NORM", help="clip gradients to this norm")
    add("--clip-mode", default="norm", choices=("norm", "value", "agc"), help="how to clip")
    add("--layer-decay", type=float, default=None, help="layer-wise learning rate decay")
    add("--layer-decay-min-scale", type=float, default=0, help="its lower bound")
    add("--layer-decay-no-opt-scale", type=float, default=None, help="scale under which layers are frozen")
    add("--opt-kwargs", nargs="*", default={}, action=KeyValues, metavar="K=V", help="more optimiser arguments")


def _schedule(add: Add) -> None:
    add("--sched", default="cosine", metavar="NAME", help="cosine, tanh, step, multistep, poly, wsd, plateau, ...")
    add("--sched-on-updates", help="change the learning rate per update instead of per epoch")
    add("--lr", type=float, default=None, help="learning rate; overrides --lr-base")
    add("--lr-base", type=float, default=0.1, metavar="LR", help="lr = lr_base * global batch size / lr_base_size")
    add("--lr-base-size", type=int, default=256, metavar="N", help="divisor of the above")
    add("--lr-base-scale", default="", choices=("", "linear", "sqrt"), help="scaling (default: by optimiser)")
    add("--lr-noise", type=float, nargs="+", default=None, metavar="PCT", help="noise on/off, in fractions of the run")
    add("--lr-noise-pct", type=float, default=0.67, metavar="PCT", help="noise limit")
    add("--lr-noise-std", type=float, default=1.0, metavar="STD", help="noise standard deviation")
    add("--lr-cycle-mul", type=float, default=1.0, metavar="X", help="cycle length multiplier")
    add("--lr-cycle-decay", type=float, default=0.5, metavar="X", help="decay per cycle")
    add("--lr-cycle-limit", type=int, default=1, metavar="N", help="number of cycles")
    add("--lr-k-decay", type=float, default=1.0, help="k-decay of cosine and poly")
    add("--warmup-lr", type=float, default=1e-5, metavar="LR", help="learning rate at the start of warm-up")
    add("--min-lr", type=float, default=0, metavar="LR", help="lower bound of the learning rate")
    add("--epochs", type=int, default=300, metavar="N", help="epochs to train")
    add("--start-epoch", type=int, default=None, metavar="N", help="override the first epoch, counted from 0")
    add("--decay-milestones", type=int, nargs="+", default=[90, 180, 270], metavar="N", help="epochs, for multistep")
    add("--decay-epochs", type=float, metavar="N", help="epochs between decays, or of wsd's decay (default: timm's)")
    add("--warmup-epochs", type=int, default=5, metavar="N", help="epochs of warm-up")
    add("--warmup-prefix", help="do not count warm-up in the schedule")
    add("--cooldown-epochs", type=int, default=0, metavar="N", help="epochs at --min-lr at the end")
    add("--patience-epochs", type=int, default=10, metavar="N", help="plateau: epochs without improvement")
    add("--decay-rate", "--dr", type=float, default=0.1, metavar="RATE", help="factor of a decay")
    add(
        "--early-stop",
        type=int,
        default=0,
        metavar="PATIENCE",
        help="stop after so many validations without a better --eval-metric (default: 0, never)",
    )


def _augmentation(add: Add) -> None:
    add("--no-aug", help="no training augmentation")
    add("--train-crop-mode", default=None, choices=("rrc", "rkrc", "rkrr"), help="kind of random crop")
    add("--scale", type=float, nargs=2, default=[0.08, 1.0], metavar="PCT", help="area range of the random crop")
    add("--ratio", type=float, nargs=2, default=[3 / 4, 4 / 3], metavar="R", help="aspect range of the random crop")
    add("--hflip", type=float, default=0.5, help="probability of a horizontal flip")
    add("--vflip", type=float, default=0.0, help="probability of a vertical flip")
    add("--rotate", type=float, default=0.0, metavar="DEG", help="rotate by up to so many degrees")
    add("--zoom", type=float, default=0.0, metavar="Z", help="zoom by a factor in 1-Z .. 1+Z")
    add("--brightness", type=float, default=0.0, metavar="B", help="brightness factor in 1-B .. 1+B")
    add("--color-jitter", type=float, default=0.4, metavar="X", help="colour jitter")
    add("--color-jitter-prob", type=float, default=None, metavar="P", help="its probability")
    add("--grayscale-prob", type=float, default=None, metavar="P", help="probability of grey scale")
    add("--gaussian-blur-prob", type=float, default=None, metavar="P", help="probability of blur")
    add("--aa", default=None, metavar="POLICY", help="AutoAugment policy, e.g. rand-m9-mstd0.5-inc1")
    add("--bce-loss", help="binary cross-entropy")
    add("--bce-sum", help="sum it over the classes")
    add("--bce-target-thresh", type=float, default=None, help="threshold of its soft targets")
    add("--bce-pos-weight", type=float, default=None, help="its weight of positives")
    add("--reprob", type=float, default=0.0, metavar="P", help="probability of random erasing")
    add("--remode", default="pixel", choices=("const", "rand", "pixel"), help="its filling")
    add("--recount", type=int, default=1, help="its number of boxes")
    add("--mixup", type=float, default=0.0, help="mixup alpha; on if > 0")
    add("--cutmix", type=float, default=0.0, help="cutmix alpha; on if > 0")
    add("--cutmix-minmax", type=float, nargs=2, default=None, metavar="PCT", help="range of the box; turns cutmix on")
    add("--mixup-prob", type=float, default=1.0, help="probability of mixing a batch")
    add("--mixup-switch-prob", type=float, default=0.5, help="probability of cutmix where both are on")
    add("--mixup-mode", default="batch", choices=("batch", "pair", "elem"), help="what shares a mixing factor")
    add("--mixup-off-epoch", type=int, default=0, metavar="N", help="no mixing from this epoch on (default: 0, never)")
    add("--smoothing", type=float, default=0.1, help="label smoothing")
    add("--train-interpolation", default="random", choices=("", "random", *_RESIZING), help="resizing in training")
    add("--drop", type=float, default=0.0, metavar="P", help="dropout")
    add("--drop-path", type=float, default=None, metavar="P", help="stochastic depth")
    add("--drop-block", type=float, default=None, metavar="P", help="drop block")


def _norms_and_average(add: Add) -> None:
    add("--bn-momentum", type=float, default=None, help="momentum of batch normalisation, where the model takes it")
    add("--bn-eps", type=float, default=None, help="epsilon of batch normalisation, where the model takes it")
    add("--sync-bn", help="synchronised batch normalisation")
    add("--dist-bn", default="reduce", choices=("reduce", "broadcast", ""), help="statistics between ranks, per epoch")
    add("--model-ema", help="keep a moving average of the weights, and validate it")
    add("--model-ema-force-cpu", help="keep it on the CPU, and do not validate it")
    add("--model-ema-decay", type=float, default=0.9998, help="its decay")
    add("--model-ema-warmup", help="warm its decay up")


def _temperature(add: Add) -> None:
    add("--temperature-start", type=float, default=30.0, metavar="T", help="attention temperature at the start")
    add("--temperature-end", type=float, default=1.0, metavar="T", help="and at the end of the annealing")
    length = "its length; default 10, or half of fewer than 20 epochs; 0, as for trained weights, leaves T alone"
    add("--temperature-epochs", type=float, metavar="N", help=length)


def _misc(add: Add) -> None:
    add("--seed", type=int, default=42, metavar="S", help="random seed")
    add("--log-interval", type=int, default=50, metavar="N", help="updates between log lines without a terminal")
    add("--val-interval", type=int, default=1, metavar="N", help="epochs between validations and checkpoints")
    add("--recovery-interval", type=int, default=0, metavar="N", help="updates between recovery checkpoints")
    add("--checkpoint-hist", type=int, default=10, metavar="N", help="checkpoints to keep")
    add("-j", "--workers", type=int, default=4, metavar="N", help="loader processes; does not change the result")
    add("--pin-mem", help="pin memory")
    add("--no-prefetcher", help="no fast prefetcher")
    add("--output", default="", metavar="PATH", help="output folder (default: ./output/train)")
    add("--experiment", default="", metavar="NAME", help="its sub-folder (default: time, model and size)")
    add(
        "--eval-metric",
        default="top1",
        choices=("top1", "top5", "loss"),
        help="what the best checkpoint, the plateau schedule and early stopping look at, once the temperature is down",
    )
    add("--log-tensorboard", help="write TensorBoard logs into the experiment's folder")


GROUPS: dict[str, Callable[[Add], None]] = {
    "data": _data,
    "model": _model,
    "device": _device,
    "optimiser": _optimizer,
    "learning rate schedule": _schedule,
    "augmentation and regularisation": _augmentation,
    "batch normalisation and weight averaging": _norms_and_average,
    "dynamic operators (ignored by static models)": _temperature,
    "miscellaneous": _misc,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds every flag to `parser`; a flag without a default is a switch, with a ``--no-`` form."""
    for title, declare in GROUPS.items():
        group = parser.add_argument_group(title)

        def add(*names: str, group=group, **options: Any) -> None:
            if names[0].startswith("-") and options.keys() == {"help"}:
                if names[0].startswith("--no-"):
                    options["action"] = "store_true"
                else:
                    options |= {"action": argparse.BooleanOptionalAction, "default": False}
            group.add_argument(*names, **options)

        declare(add)
