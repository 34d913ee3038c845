"""All models that the three hosts register, by name, without building any."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from .. import registry
from ..errors import UnknownName, UserError, require

HOSTS = ("timm", "mmseg", "tsai")
STATIC = "static"
# A series as long as Adiac's, with its classes.
SERIES, CLASSES = 176, 37


@dataclass(frozen=True)
class Entry:
    """A model that can be built.

    Attributes:
        name: As its host knows it.
        host: One of `HOSTS`.
        operator: A name of the registry, or ``static``.
        input_size: ``[channels, ...]``.
        build: Makes it.
    """

    name: str
    host: str
    operator: str
    input_size: tuple[int, ...]
    build: Callable[[], nn.Module]


def entries(
    hosts: Iterable[str],
    say: Callable[[str], None],
    pattern: str | None = None,
    operator: str | None = None,
    pixels: int | None = None,
) -> list[Entry]:
    """The models of some hosts.

    Args:
        hosts: Some of `HOSTS`; one that is not installed is left out.
        say: Gets a line for each host left out.
        pattern: Shell-style, or a part of the name.
        operator: Only those with it; tsai's architectures then take it instead of their own.
        pixels: Side of images, instead of each model's own.

    Raises:
        UnknownName: If no name is like `pattern`, or there is no such operator.
    """
    if operator not in (None, STATIC):
        registry.get(operator)
    found: list[Entry] = []
    for host in hosts:
        try:
            with warnings.catch_warnings():
                # What the hosts' own imports warn of is nothing that a user of this command can act on.
                warnings.simplefilter("ignore")
                found += _OF[host](operator, pixels)
        except UserError as e:
            say(f"{host} is left out: {e}")
    if pattern is not None:
        glob = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
        chosen = [entry for entry in found if fnmatch.fnmatchcase(entry.name, glob)]
        if not chosen and found:
            raise UnknownName("model", pattern, [entry.name for entry in found])
        found = chosen
    return [entry for entry in found if operator in (None, entry.operator)]


def _timm(operator: str | None, pixels: int | None) -> Iterator[Entry]:
    timm = require("timm", "timm")
    models = importlib.import_module("timm_models")
    for name in models.list_models():
        channels, *size = timm.get_pretrained_cfg(name).input_size
        size = size if pixels is None else [pixels, pixels]
        build = lambda name=name: timm.create_model(name)  # noqa: E731 - a name would say no more
        yield Entry(name, "timm", name.rpartition("_")[2], (channels, *size), build)


def _mmseg(operator: str | None, pixels: int | None) -> Iterator[Entry]:
    if importlib.util.find_spec("mmseg") is None:
        require("mmseg", "mmseg")  # says so; importing it takes seconds, which a list of names need not
    configs = importlib.import_module("mmseg_configs")
    for name in configs.names():
        network, data = name.split("_")[1:]
        side = pixels or int(data.rpartition("x")[2])
        build = lambda name=name: _segmentor(name)  # noqa: E731
        yield Entry(name, "mmseg", network.partition("-")[2] or STATIC, (3, side, side), build)


def _segmentor(name: str) -> nn.Module:
    from . import segmentors

    return segmentors.segmentor(segmentors.config(name), name)


def _tsai(operator: str | None, pixels: int | None) -> Iterator[Entry]:
    require("tsai", "tsai")
    archs = importlib.import_module("tsai_models.archs")
    for name, arch in archs.ARCHS.items():
        if arch.twin is None:
            build = lambda cls=arch.cls: archs.build(cls, 1, CLASSES, SERIES)  # noqa: E731
            yield Entry(name, "tsai", STATIC, (1, SERIES), build)
        elif operator != STATIC:
            chosen = operator or "odconv"
            build = lambda cls=arch.cls, own=chosen: archs.build(cls, 1, CLASSES, SERIES, operator=own)  # noqa: E731
            yield Entry(name, "tsai", chosen, (1, SERIES), build)


_OF = {"timm": _timm, "mmseg": _mmseg, "tsai": _tsai}
