"""Dynamic convolutions in tsai: architectures, the static-twin procedure, callbacks, and a trainer.

Built on the classes of tsai, https://github.com/timeseriesAI/tsai (Apache-2.0).

A network that ``python -m tsai_models train`` has left, on series ``X [N, variables, steps]`` as they are::

    import json
    from pathlib import Path

    import numpy as np
    import torch

    from tsai_models import ODConvFCN
    from tsai_models.archs import build
    from tsai_models.data import standardised, with_differences

    folder = Path("runs/tsai/ODConvFCN-Diatoms-official")
    config = json.loads((folder / "results.json").read_text())["config"]
    # The architecture as it was trained: operator="odconv4x", or DynamicArch("FCN", "odconv") in its place.
    model = build(ODConvFCN, config["variables"], config["classes"], X.shape[-1])
    model.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    inputs = standardised(with_differences(X, config["recipe"]["differences"]))
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(inputs))
    labels = np.load(folder / "predictions.npz")["classes"][logits.argmax(1).numpy()]
"""

import importlib
import sys
import warnings

from dynconv_plugins import dynamize, set_temperature
from dynconv_plugins.errors import require

# argv[0] is "-m" while `python -m tsai_models` imports its package; that command reports what is missing in one line.
if sys.argv[:1] != ["-m"]:
    require("tsai", extra="tsai")

_PUBLIC = {
    "ARCHS": "archs",
    "BudgetCallback": "callbacks",
    "DynamicArch": "archs",
    "EpochBar": "callbacks",
    "Net1_CNN": "nets",
    "Net1_DCNN": "nets",
    "Net2_CNN": "nets",
    "Net2_DCNN": "nets",
    "ODConvFCN": "archs",
    "ODConvInception": "archs",
    "ODConvResNet": "archs",
    "TemperatureCallback": "callbacks",
    "freeze_kernels": "transfer",
    "from_static": "transfer",
    "pretrain": "transfer",
    "thaw_kernels": "transfer",
}

__all__ = [*_PUBLIC, "dynamize", "set_temperature"]


def __getattr__(name: str):
    """Imports what is asked for, and tsai's many modules with it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    with warnings.catch_warnings(record=True):
        # tsai's own imports warn of things that its users cannot act on.
        module = importlib.import_module(f".{_PUBLIC[name]}", __name__)
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
