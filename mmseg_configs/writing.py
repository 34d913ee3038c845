"""The text of every config file, from (head, operator, data): ``python -m mmseg_configs write`` puts them on disk."""

from __future__ import annotations

from pathlib import Path

import dynconv_plugins as dc

HEADS = ("deeplabv3plus", "fpn")

# The part of a config's name that says what it is trained on: which files of `_base_` that is.
DATA = {
    "diatoms-64x64": ("diatoms_64x64", "schedule_300"),
    "voc12-128x128": ("voc12_128x128", "schedule_1k"),
    "voc12-512x512": ("voc12_512x512", "schedule_20k"),
    "voc12aug-512x512": ("voc12_aug_512x512", "schedule_20k"),
}
EVERY_OPERATOR = ("voc12-128x128", "voc12-512x512")
EVERY_DATA = ("odconv", "odconv4x")

_STATIC = """\
_base_ = [
    "_base_/models/{head}_resnet18.py",
    "_base_/datasets/{dataset}.py",
    "_base_/schedules/{schedule}.py",
    "_base_/default_runtime.py",
]
model = dict(data_preprocessor=dict(size=_base_.crop_size))
"""
_DYNAMIC = """\
_base_ = "./{head}_resnet18_{data}.py"
model = dict(backbone=dict(model_name="resnet18_{operator}"))
"""
_TEMPERATURE = """\
# temperature 30 -> 1 over the first tenth of the schedule, as the paper's 10 of 100 epochs
default_hooks = dict(temperature=dict(type="TemperatureHook", part=0.1))
"""
_BUDGET = """\
# logs how much of the masks is on, and the loss that holds it to the budget
default_hooks = dict(budget=dict(type="BudgetHook"))
"""


def text(head: str, operator: str | None, data: str) -> str:
    """Returns the config of a ResNet-18 with `head`, trained on `data`; of the static network without an operator."""
    if operator is None:
        dataset, schedule = DATA[data]
        return _STATIC.format(head=head, dataset=dataset, schedule=schedule)
    conv = dc.registry.build(operator, 2, 8, 8, 3)
    hook = _TEMPERATURE if hasattr(conv.attention, "temperature") else _BUDGET if dc.budget(conv) else ""
    return _DYNAMIC.format(head=head, operator=operator, data=data) + hook


def texts() -> dict[str, str]:
    """Returns all configs by file name: for each registered operator, and for the static network."""
    return {
        f"{head}_resnet18{f'-{operator}' if operator else ''}_{data}.py": text(head, operator, data)
        for head in HEADS
        for operator in (None, *dc.registry.names())
        for data in (DATA if operator in (None, *EVERY_DATA) else EVERY_OPERATOR)
    }


def write(folder: Path) -> list[Path]:
    """Writes all configs into `folder` and returns those that were missing or different."""
    changed = []
    for name, content in texts().items():
        path = folder / name
        if not path.is_file() or path.read_text() != content:
            path.write_text(content)
            changed.append(path)
    return changed
