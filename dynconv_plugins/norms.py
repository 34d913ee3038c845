"""Running statistics of batch norms that fit the weights they stand beside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def update_bn(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]]) -> None:
    """Recomputes the running statistics of every batch norm in `model`: their plain average over `batches`.

    An average of weights (EMA, SWA) needs it, and one of dynamic convolutions more than others: the batch norm in an
    attention head sees pooled features, which differ less between samples than they drift from step to step of the
    training, so statistics that lag behind put attentions far off. All else is as in evaluation, unlike in
    ``torch.optim.swa_utils.update_bn``: no dropout, and the hard masks that will be used.

    Args:
        model: Left in the mode it was in; and as it was, if a batch fails.
        batches: Inputs of the model, ``x`` or ``(x, ...)`` of which x is taken, on its device and as large as memory
            allows; all count alike. Of a batch of one, an attention head's norm takes nothing and normalises by what it
            had; one that nothing reached keeps its statistics.

    Source: Wu and Johnson, Rethinking "Batch" in BatchNorm (2021), section 3 ("precise" batch norm).
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm, norm.momentum, [b.clone() for b in norm.buffers(recurse=False)]) for norm in norms]
    modes = {module: module.training for module in model.modules()}
    finished = False
    model.eval()
    try:
        for norm in norms:
            norm.train()
            norm.momentum = None  # torch's cumulative average
            # The first batch replaces all that was there; until then a batch of one is normalised by it.
            norm.num_batches_tracked.zero_()
            for buffer, first in ((norm.running_mean, 0.0), (norm.running_var, 1.0)):
                buffer.nan_to_num_(first, first, first)  # the factor of zero would not replace these
        for batch in batches:
            model(batch[0] if isinstance(batch, (tuple, list)) else batch)
        finished = True
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, momentum, values in before:
            norm.momentum = momentum
            if not (finished and norm.num_batches_tracked):
                for buffer, value in zip(norm.buffers(recurse=False), values, strict=True):
                    buffer.copy_(value)
