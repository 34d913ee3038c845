"""What the same MobileNetV2 is called in torchvision (and in the published ODConv) and in timm.

Their ResNets have the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

# Blocks of each stage: Sandler et al., CVPR 2018, table 2. torchvision counts the blocks through, timm in each stage.
_REPEATS = (1, 2, 3, 4, 3, 3, 1)
_EXPANDED = {
    "conv.0.0": "conv_pw",
    "conv.0.1": "bn1",
    "conv.1.0": "conv_dw",
    "conv.1.1": "bn2",
    "conv.2": "conv_pwl",
    "conv.3": "bn3",
}
_FIRST = {"conv.0.0": "conv_dw", "conv.0.1": "bn1", "conv.1": "conv_pw", "conv.2": "bn2"}


def _modules() -> dict[str, str]:
    """Every module that has weights, by its name in torchvision, and its name in timm."""
    last = sum(_REPEATS) + 1
    names = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    blocks = [f"blocks.{stage}.{i}" for stage, count in enumerate(_REPEATS) for i in range(count)]
    for number, block in enumerate(blocks, start=1):
        inside = _FIRST if number == 1 else _EXPANDED
        names |= {f"features.{number}.{theirs}": f"{block}.{ours}" for theirs, ours in inside.items()}
    return names | {f"features.{last}.0": "conv_head", f"features.{last}.1": "bn2", "classifier.1": "classifier"}


def rename(source: Iterable[str], own: Collection[str]) -> dict[str, str]:
    """The name that the model has for each key of a source.

    Args:
        source: The keys of the checkpoint.
        own: The keys of the model's state dict.

    Returns:
        The source's key by the model's; a key that needs no other name, or that is not known, keeps it.
    """
    source = list(source)
    modules = _modules()
    if "features.0.0.weight" in own and "conv_stem.weight" in source:
        modules = {ours: theirs for theirs, ours in modules.items()}
    elif not ("conv_stem.weight" in own and "features.0.0.weight" in source):
        modules = {}
    return {_renamed(key, modules): key for key in source}


def _renamed(key: str, modules: dict[str, str]) -> str:
    # The longest module name that the key lies in: attention of a published ODConv lies inside its convolution.
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if module in modules:
            return ".".join([modules[module], *parts[length:]])
    return key
