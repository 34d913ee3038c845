"""fastai callbacks: temperature annealing, the budget of hard attention, and a progress bar over epochs."""

from __future__ import annotations

import math
from functools import partial

from fastai.callback.core import Callback
from fastai.callback.tracker import TrackerCallback
from fastai.callback.training import GradientAccumulation
from fastai.learner import Learner, ValueMetric
from fastai.torch_core import find_bs
from tqdm.auto import tqdm

import dynconv_plugins as dc


class TemperatureCallback(Callback):
    """Sets the temperature of every dynamic operator of the learner's model, before each training batch.

    The position is counted in epochs since this callback first trained: a second ``fit`` of the same learner (as in
    ``fine_tune``) goes on where the first ended, and ``fit(..., start_epoch=n)``, which resumes, starts at n. None of
    ``lr_find``, ``validate`` and prediction counts.

    It cannot tell attention that was trained and loaded from what ``lr_find`` has loaded again, and anneals both: to
    fine-tune a trained network, whose attention is used to its temperature, leave this callback out.

    Args:
        schedule: Gives the temperature at a position in epochs; ODConv's is 30 to 1 over the first 10 epochs.
    """

    run_valid = False

    def __init__(self, schedule: dc.LinearTemperature | None = None) -> None:
        super().__init__()
        self.schedule = schedule if schedule is not None else dc.LinearTemperature()
        self.trained_epochs = 0

    def before_fit(self) -> None:
        self.run = not hasattr(self.learn, "lr_finder") and not hasattr(self.learn, "gather_preds")
        skip = [cb._skip_to for cb in self.learn.cbs if type(cb).__name__ == "SkipToEpoch"]
        # A resumed fit counts the epochs before its start itself.
        self.base = 0 if skip else self.trained_epochs
        # fastai announces learn.validate() as a fit too, but one that trains nothing.
        self.counts = bool(skip)

    def before_train(self) -> None:
        self.counts = True

    def before_batch(self) -> None:
        if self.training:
            dc.set_temperature(self.learn.model, self.schedule(self.base + self.epoch + self.iter / self.n_iter))

    def after_epoch(self) -> None:
        if self.counts:
            self.trained_epochs = self.base + self.epoch + 1


def annealing_epochs(learn: Learner, epochs: int) -> int:
    """For how many of the next `epochs`, all but one at most, the temperature of the learner's model falls."""
    cools = any(hasattr(op.attention, "temperature") for op in dc.operators_in(learn.model).values())
    callbacks = [cb for cb in learn.cbs if isinstance(cb, TemperatureCallback)]
    # A schedule of somebody's own need not have an end.
    left = [math.ceil(getattr(cb.schedule, "falling", 0.0)) - cb.trained_epochs for cb in callbacks]
    return min(max([0, *left]) if cools else 0, epochs - 1)


class TrackFrom(Callback):
    """Rests fastai's trackers (best weights, plateau, early stopping) before epoch `first`, counted from 0."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def before_epoch(self) -> None:
        for cb in self.learn.cbs:
            if isinstance(cb, TrackerCallback):
                cb.run = self.epoch >= self.first


class _EpochMean(ValueMetric):
    """What :class:`BudgetCallback` adds to the learner's metrics, and by which it finds them again."""


class BudgetCallback(Callback):
    """Logs ``mask_rate`` and ``budget_loss`` beside the learner's metrics: means over an epoch and the hard operators.

    The budget's gradient needs no callback, see :class:`dynconv_plugins.budget.Budget`, but for ``to_fp16`` and
    ``GradientAccumulation``: this one scales it as fastai does the loss. It does nothing in a model without hard
    operators.
    """

    order = 20  # after MixedPrecision, whose scaler is used, and before the recorder, which reads names
    run_valid = False

    def before_fit(self) -> None:
        self._hide()  # what a fit has left that an exception ended: fastai announces no end of it
        self.sums = dict.fromkeys(dc.budget(self.learn.model), 0.0)
        self.batches = 0
        shown = [_EpochMean(partial(self._mean, name), name) for name in self.sums]
        self.learn.metrics = [*self.learn.metrics, *shown]

    def before_train(self) -> None:
        self.sums, self.batches = dict.fromkeys(self.sums, 0.0), 0

    def before_batch(self) -> None:
        if self.training and self.sums:
            scaler = getattr(self.learn, "scaler", None)
            scale = 1.0 if scaler is None else scaler.get_scale()
            for cb in self.learn.cbs:
                if isinstance(cb, GradientAccumulation):
                    scale *= find_bs(self.learn.yb) / cb.n_acc
            dc.set_loss_scale(self.learn.model, scale)

    def after_batch(self) -> None:
        if self.training and self.sums:
            self.batches += 1
            for name, value in dc.budget(self.learn.model).items():
                self.sums[name] += value

    def before_validate(self) -> None:
        if not self.batches:  # learn.validate() and predictions, which fastai announces as a fit as well
            self._hide()

    def after_fit(self) -> None:
        self._hide()

    def _hide(self) -> None:
        self.learn.metrics = [metric for metric in self.learn.metrics if not isinstance(metric, _EpochMean)]

    def _mean(self, name: str) -> float:
        return self.sums[name] / self.batches


class EpochBar(Callback):
    """One tqdm bar over the epochs of a fit, for scripts: fastai's own prints a table row per epoch.

    Args:
        label: Stands left of the bar.
        disable: No bar at all; None (default) shows it on a terminal only.
    """

    order = 60  # after the recorder, whose numbers are shown

    def __init__(self, label: str, disable: bool | None = None) -> None:
        super().__init__()
        self.label, self.disable, self.bar = label, disable, None

    def before_fit(self) -> None:
        self.run = not hasattr(self.learn, "lr_finder") and not hasattr(self.learn, "gather_preds")
        self.after_fit()  # what a fit has left that an exception ended: fastai announces no end of it

    def before_train(self) -> None:
        # Not before: fastai announces validation and prediction as fits too. Epochs are few: each is drawn, however
        # soon after the last (mininterval would drop some).
        if self.bar is None:
            total, label = self.n_epoch, self.label
            self.bar = tqdm(total=total, desc=label, unit="epoch", leave=False, disable=self.disable, mininterval=0)

    def after_epoch(self) -> None:
        if self.bar is None:
            return
        # The recorder's log ends in values for the metrics' names; its own last name is the time, added later.
        shown = zip(self.recorder.metric_names[1:-1], self.recorder.log[1:], strict=False)
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in shown if value is not None}, refresh=False)
        self.bar.update()

    def after_fit(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None  # it holds a lock and a stream: neither can be pickled by learn.export
