"""`convert_checkpoint`: a state dict from elsewhere becomes one that a model here loads."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from ..convert import operators_in
from ..errors import UserError
from .differences import compare, with_own_counter
from .layouts import Weights, published_odconv, static, timm_condconv
from .names import rename
from .reading import unwrap

_CLASSIFIER = re.compile(r"(^|\.)(fc|head|classifier(\.\d+)?)\.weight$")
_COUNTER = re.compile(r"(^|\.)num_batches_tracked$")


def convert_checkpoint(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Maps weights from elsewhere onto a model with dynamic convolutions.

    What it reads:

    - the published ODConv, ResNet and MobileNetV2, into the same networks with ``odconv`` and the same number of
      kernels: the same outputs. The temperature, which those files do not hold, becomes 1, its value once trained.
      The bottlenecks' stride is no part of any weights: build the model with the strides of the source.
    - timm's CondConv networks (``efficientnet_cc_b0_4e`` and the like), into ``timm_models.adopt_condconv`` of the
      same network: the same outputs. Not into a network made dynamic by ``dynamize(..., 'condconv')``: timm computes
      one routing a block from the block's input, that operator one a convolution from the convolution's own, as its
      paper has it; the two differ for every convolution of a block but the first.
    - static networks of timm or torchvision (or any other whose names are the model's), into the same network with
      any operator: every operator takes the static kernel over as `dynamize` has it do, so that the network starts
      out with the static one's outputs, except where the operator's ``preserves_static`` is false.

    The names of torchvision's MobileNetV2 and timm's are turned into each other. The weights of this package's own
    models pass as they are.

    Args:
        state_dict: The weights, or what a trainer saved them in (``{'state_dict': ...}``, ``{'model': ...}``;
            averaged weights first), with or without the prefixes of DDP and ``torch.compile``; left as it is.
        model: The model they are for, left as it is. What a source has no say in, such as the freshly initialised
            attention of a static source, is taken from it.

    Returns:
        A state dict for ``model.load_state_dict(..., strict=True)``, on the model's device and in its dtype.

    Raises:
        UserError: If it is no state dict, or if keys or shapes remain unmatched on either side: one line that lists
            them.
    """
    own = model.state_dict()
    source = unwrap(state_dict, own)
    names = rename(source, own)
    weights: Weights = {new: source[old] for new, old in names.items()}
    filled = copy.deepcopy(model)
    operators = operators_in(filled)
    stacked = published_odconv(weights, operators) | timm_condconv(weights, operators)
    misfits = stacked | static(weights, operators)
    weights = _settled(weights, own)
    _check(weights, own, misfits, names, _kernels_advice(stacked))
    filled.load_state_dict(weights)
    return filled.state_dict()


def _settled(weights: Weights, own: Mapping[str, Tensor]) -> Weights:
    """Counters are no weights: files of before torch 0.4.1 have none of batches, and most sources none of annealing."""
    counters = {key: value for key, value in own.items() if _COUNTER.search(key)}
    return {**counters, **with_own_counter(own, weights)}


def _check(
    weights: Weights, own: Mapping[str, Tensor], misfits: dict[str, str], names: Mapping[str, str], advice: str
) -> None:
    """Raises if the weights are not exactly the model's.

    Args:
        weights: The converted weights.
        own: The model's state dict.
        misfits: Entries that a layout has found not to fit, and how.
        names: The source's name of an entry, where it is another.
        advice: What to do about it, as far as known.
    """
    missing, unknown, differing = compare(own, weights)
    shapes = {key: misfits.get(key) or differing[key] for key in own if key in misfits or key in differing}
    kinds = {
        "of the source unknown to the model": [names.get(key, key) for key in unknown],
        "of the model not in the source": missing,
        "of another shape": [f"{names.get(key, key)} {text}" for key, text in shapes.items()],
    }
    parts = [f"{len(entries)} {kind} ({_first(entries)})" for kind, entries in kinds.items() if entries]
    if parts:
        advice = advice or _classes_advice(weights, own, shapes)
        raise UserError("the checkpoint does not fit the model: " + ", ".join(parts) + advice)


def _classes_advice(weights: Weights, own: Mapping[str, Tensor], shapes: Collection[str]) -> str:
    for key in shapes:
        if _CLASSIFIER.search(key) and weights[key].shape[1:] == own[key].shape[1:]:
            there, here = len(weights[key]), len(own[key])
            return (
                f"; the source has {there} classes, the model {here}: build the model with num_classes={there} and "
                f"give it another classifier after loading (in timm: model.reset_classifier({here}))"
            )
    return ""


def _kernels_advice(stacked: Mapping[str, str]) -> str:
    """About shapes that differ in the number of kernels alone, which is the first axis of both published layouts."""
    pairs = [re.fullmatch(r"\[(\d+), (.*)\] instead of \[(\d+), (.*)\]", text) for text in stacked.values()]
    counts = {(m[1], m[3]) for m in pairs if m and m[2] == m[4]}
    if len(counts) != 1:
        return ""
    there, here = counts.pop()
    return f"; the source has {there} kernels a convolution, the model {here}: build it with num_kernels={there}"


def _first(entries: list[str], most: int = 3) -> str:
    return ", ".join(entries[:most]) + (f" and {len(entries) - most} more" if len(entries) > most else "")
