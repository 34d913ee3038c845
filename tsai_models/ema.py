"""An exponential moving average of a learner's weights."""

from __future__ import annotations

import math

import torch
from fastai.callback.core import Callback
from fastai.torch_core import no_random
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

import dynconv_plugins as dc

LARGEST = 1024  # series in a batch that statistics are taken of


def _averaged(model: nn.Module) -> list[Tensor]:
    """Parameters and batch-norm statistics; a temperature or a counter is the schedule's and no matter of averages."""
    statistics = [b for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return [p.detach() for p in model.parameters()] + statistics


class EMACallback(Callback):
    """Validates and keeps an average of the weights over the steps (Polyak averaging, with forgetting).

    In the model's place from each validation to the next training epoch, and after the fit. The first steps weigh
    more, ``min(decay, (1 + n) / (10 + n))`` at step n, as the initial weights are worth nothing. Batch norms get the
    statistics of the training series under the averaged weights, see :func:`dynconv_plugins.update_bn`; an average of
    other weights' statistics makes dynamic networks useless while the rate is high.

    Args:
        decay: What the average keeps of itself each step; 0.99 averages over about 100 steps.
    """

    order = 55  # what saves the best model runs later

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def before_fit(self) -> None:
        self.run = not hasattr(self.learn, "lr_finder") and not hasattr(self.learn, "gather_preds")
        self.average = [v.clone() for v in _averaged(self.learn.model)]
        self.trained: list[Tensor] | None = None  # the weights that training goes on with, while the average is in
        self.steps = 0

    @torch.no_grad()
    def after_step(self) -> None:
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        get_ema_multi_avg_fn(decay)(self.average, _averaged(self.learn.model), self.steps)

    def before_validate(self) -> None:
        self._put_average()

    def before_train(self) -> None:
        if self.trained is not None:
            self._put(self.trained)
            self.trained = None

    def after_fit(self) -> None:
        self._put_average()
        # learn.export would store them.
        del self.average, self.trained

    def _put_average(self) -> None:
        if self.trained is None:
            self.trained = [v.clone() for v in _averaged(self.learn.model)]
            self._put(self.average)
            if self.steps:  # fastai announces learn.validate() as a fit too
                self._update_bn()

    def _update_bn(self) -> None:
        data = self.dls.train.dataset
        # Batches of one size, since all count alike, and of mixed classes, since a file may be sorted by them. The
        # loader of validation transforms nothing at random.
        parts = math.ceil(len(data) / LARGEST)
        options = {"shuffle": parts > 1, "drop_last": False, "bs": math.ceil(len(data) / parts)}
        # Nothing of the order in which training goes on is drawn.
        with no_random(reproducible=False):
            loader = self.dls.valid.new(data, **options)
            dc.update_bn(self.learn.model, (batch[0].as_subclass(Tensor) for batch in loader))

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for ours, value in zip(_averaged(self.learn.model), values, strict=True):
            ours.copy_(value)
