"""Arguments: defaults, then the YAML of ``-c/--config``, then the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from dynconv_plugins.errors import UnknownName, UserError, suggest

from .flags import KeyValues, add_flags

# Checked before anything is made, for the values that are given: what they must, and whose they are.
_RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "be at least 1",
        lambda value: value >= 1,
        (
            *("batch_size", "validation_batch_size", "grad_accum_steps", "epochs", "val_interval", "checkpoint_hist"),
            *("log_interval", "lr_base_size", "recount", "img_size", "in_chans"),
        ),
    ),
    (
        "not be negative",
        lambda value: value >= 0,
        (
            *("seed", "workers", "start_epoch", "temperature_epochs", "warmup_epochs", "cooldown_epochs"),
            *("patience_epochs", "early_stop", "recovery_interval", "mixup", "cutmix", "mixup_off_epoch"),
        ),
    ),
    (
        "be positive, and finite",
        lambda value: 0 < value < math.inf,
        ("decay_epochs", "decay_rate", "crop_pct", "lr_cycle_mul", "temperature_start", "temperature_end"),
    ),
    (
        "be between 0 and 1",
        lambda value: 0 <= value <= 1,
        (
            *("hflip", "vflip", "color_jitter_prob", "grayscale_prob", "gaussian_blur_prob", "reprob"),
            *("mixup_prob", "mixup_switch_prob", "model_ema_decay"),
        ),
    ),
    (
        "be at least 0 and below 1",
        lambda value: 0 <= value < 1,
        ("smoothing", "drop", "drop_path", "drop_block"),
    ),
)

# Of the flags that have a default, those for which a YAML file's null means something: none of it.
_MAY_BE_NONE = ("color_jitter",)

RECIPES = Path(__file__).resolve().parents[1] / "recipes"

_EPILOG = """-c takes a path or the name of a shipped recipe: {recipes}.
The command line overrides the YAML file, which overrides the defaults. Under torchrun, one process per device."""


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are one line, without the screens of usage."""

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            flag = next((word for word in message.removeprefix(prefix).split() if word.startswith("--")), None)
            if flag:
                raise UnknownName("flag", flag.partition("=")[0], self._option_string_actions)
        raise UserError(f"{message} (--help lists the flags)")


def recipes() -> list[str]:
    """Returns the names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m timm_models train",
        description="Trains an image classifier with timm's parts.",
        epilog=_EPILOG.format(recipes=", ".join(recipes())),
        allow_abbrev=False,
    )
    parser.add_argument("-c", "--config", default="", metavar="YAML", help="file of defaults, or a recipe's name")
    add_flags(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments, with ``data_dir`` set and without ``data`` and ``config``.

    Raises:
        UserError: If a flag, a YAML key or a value is not known, with suggestions.
    """
    parser = make_parser()
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("-c", "--config", default="")
    config = first.parse_known_args(argv)[0].config
    if config:
        parser.set_defaults(**read_config(config, parser))
    args = parser.parse_args(argv)
    args.data_dir = args.data or args.data_dir
    del args.data, args.config
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    if not args.data_dir:
        raise UserError("no data: give the folder that holds the splits, e.g. train data/tiny --model resnet18_odconv")
    if args.resume == "auto" and not args.experiment:
        raise UserError("--resume auto needs the run's name: --experiment NAME, or -c FOLDER/args.yaml")
    for must, good, names in _RANGES:
        for name in names:
            value = getattr(args, name)
            if value is not None and not good(value):
                raise UserError(f"--{name.replace('_', '-')} must {must}, not {value}")
    for name in ("scale", "ratio"):
        low, high = getattr(args, name) or (1, 1)
        if not 0 < low <= high < math.inf:
            raise UserError(f"--{name} takes a smaller and a larger number above 0, not {low:g} {high:g}")
    if args.cutmix_minmax and not 0 <= args.cutmix_minmax[0] < args.cutmix_minmax[1] <= 1:
        raise UserError("--cutmix-minmax takes a smaller and a larger share of the image's side, between 0 and 1")
    if args.input_size and min(args.input_size) < 1:
        raise UserError(f"--input-size must be channels, height and width, not {' '.join(map(str, args.input_size))}")
    if args.seed >= 2**31:
        raise UserError(f"--seed must be below 2**31, not {args.seed}")  # NumPy takes 32 bits; each rank adds its own
    if (args.mixup > 0 or args.cutmix > 0 or args.cutmix_minmax) and args.batch_size % 2:
        raise UserError(f"mixup and cutmix need an even --batch-size, not {args.batch_size}")
    if args.sched == "plateau" and args.sched_on_updates:
        raise UserError("--sched plateau steps once an epoch: leave --sched-on-updates out")


def read_config(name: str, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Reads a YAML file of arguments, given by path or as the name of a shipped recipe."""
    if Path(name).is_file():
        text = Path(name).read_text()
    elif name in recipes():
        text = (RECIPES / f"{name}.yaml").read_text()
    else:
        raise UserError(f"no config file {name}, and no recipe of that name{suggest(name, recipes())}")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as e:
        raise UserError(f"{name} is not YAML: {' '.join(str(e).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{name} must hold 'flag: value' lines, not a {type(values).__name__}")
    actions = {a.dest: a for a in parser._actions if a.dest not in ("help", "config")}
    config = {}
    for key, value in values.items():
        dest = str(key).replace("-", "_")
        if dest not in actions:
            raise UserError(f"{name}: unknown key '{key}'{suggest(dest, actions)}")
        config[dest] = _convert(actions[dest], value, f"{name}: {key}")
    return config


def _convert(action: argparse.Action, value: Any, where: str) -> Any:
    """Checks a YAML value as argparse would check its text: YAML reads ``1e-3`` as a string, and has real booleans."""
    if value is None:
        if action.default is not None and action.dest not in _MAY_BE_NONE:
            raise UserError(f"{where} has no value")
        return None
    if isinstance(action, KeyValues):
        if not isinstance(value, dict):
            raise UserError(f"{where} takes a mapping, not {value!r}")
        return value
    if isinstance(action, (argparse.BooleanOptionalAction, argparse._StoreTrueAction)):
        if not isinstance(value, bool):
            raise UserError(f"{where} must be true or false, not {value!r}")
        return value
    is_list = action.nargs == "+" or isinstance(action.nargs, int)
    if is_list != isinstance(value, list) or isinstance(action.nargs, int) and len(value) != action.nargs:
        count = f"{action.nargs} values" if isinstance(action.nargs, int) else "a list"
        raise UserError(f"{where} takes {count if is_list else 'one value'}, not {value!r}")
    values = [_scalar(action, v, where) for v in value] if is_list else _scalar(action, value, where)
    return values


def _scalar(action: argparse.Action, value: Any, where: str) -> Any:
    kind = action.type or str
    try:
        converted = kind(str(value))
    except ValueError:
        raise UserError(
            f"{where} must be {'a number' if kind is float else f'of type {kind.__name__}'}, not {value!r}"
        ) from None
    if action.choices is not None and converted not in action.choices:
        raise UserError(f"{where} must be one of {', '.join(map(repr, action.choices))}, not {value!r}")
    return converted
