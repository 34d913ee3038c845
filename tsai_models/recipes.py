"""How a learner is trained: a named set of numbers, all of which can be overridden."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import distrib_barrier, rank_distrib

from dynconv_plugins.errors import UnknownName, UserError

from .callbacks import TrackFrom, annealing_epochs
from .ema import EMACallback

SCHEDULES = ("one-cycle", "constant", "plateau")


@dataclass(frozen=True)
class Recipe:
    """Adam with decoupled weight decay, a schedule, and what guards against learning a small data set by heart.

    What counts is the model after the last epoch, or the best by the loss on a held-out part of the training series:
    nothing is ever chosen by the test set.

    Attributes:
        epochs: Passes over the training series; those of a twin's pre-training come on top.
        lr: Learning rate, the highest one for ``one-cycle``.
        batch_size: Series a step.
        schedule: ``one-cycle`` (fastai's), ``constant`` or ``plateau``: a tenth of the rate, down to 1e-6, whenever the
            validation loss has not fallen for `plateau` epochs.
        weight_decay: Decoupled, as fastai's Adam has it.
        differences: How often the series are differenced; each time gives the network further variables, see
            :func:`tsai_models.data.with_differences`.
        label_smoothing: Share of the target spread over all classes.
        augment: Strength of the random changes of the training series, see :func:`tsai_models.augment.transforms`.
        mixup: Parameter of mixup's Beta distribution; 0 is none.
        ema: Decay a step of an average over the weights, which is then validated and kept; 0 is none.
        holdout: Part of the training series that is held out for validation; 0 is none.
        plateau: Epochs without progress before the ``plateau`` schedule lowers the rate.
        patience: Epochs without progress of the validation loss before training stops; 0 is never.
        best: Keep the weights of the epoch with the lowest validation loss, not those of the last one.

    While a temperature falls, the network is changed from outside, and its validation loss with it: `plateau`,
    `patience` and `best` count from the first epoch after that.
    """

    epochs: int = 60
    lr: float = 5e-3
    batch_size: int = 32
    schedule: str = "one-cycle"
    weight_decay: float = 0.01
    differences: int = 0
    label_smoothing: float = 0.0
    augment: float = 0.0
    mixup: float = 0.0
    ema: float = 0.0
    holdout: float = 0.0
    plateau: int = 5
    patience: int = 0
    best: bool = False

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", self.schedule, SCHEDULES)
        if not 0 <= self.holdout < 1:
            raise UserError(f"a holdout is a part of the training series, 0 <= holdout < 1, not {self.holdout:g}")
        if not self.holdout and (self.best or self.patience or self.schedule == "plateau"):
            raise UserError("this recipe decides by a validation part: give it a --holdout above 0")
        for name in ("label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')} is at least 0 and below 1, not {getattr(self, name):g}")
        if self.mixup and self.batch_size < 2:
            raise UserError("mixup mixes the series of a batch: --batch-size is at least 2")
        if min(self.augment, self.mixup, self.differences) < 0:
            raise UserError("augment, mixup and differences are not negative")

    def callbacks(self, first: int = 0) -> list[Callback]:
        """Those of one fit; trackers pay no attention to the epochs before `first`."""
        cbs: list[Callback] = []
        if self.mixup:
            cbs.append(MixUp(self.mixup))
        if self.ema:
            cbs.append(EMACallback(self.ema))
        if self.best:
            cbs.append(SaveModelCallback(fname="best"))
        if self.schedule == "plateau":
            cbs.append(ReduceLROnPlateau(patience=self.plateau, factor=10, min_lr=1e-6))
        if self.patience:
            cbs.append(EarlyStoppingCallback(patience=self.patience))
        return [*cbs, TrackFrom(first)] if first else cbs

    def fit(self, learn: Learner, epochs: int | None = None) -> None:
        """Trains `learn` for `epochs`, by default the recipe's; leaves it with the weights that count.

        The best weights so far are kept in a file ``best.pth`` in the learner's model folder during the fit.

        Raises:
            UserError: If there was no best epoch, because no validation loss was a number.
        """
        epochs = self.epochs if epochs is None else epochs
        first = annealing_epochs(learn, epochs)
        if self.label_smoothing:
            learn.loss_func = CrossEntropyLossFlat(label_smoothing=self.label_smoothing)
        best = Path(learn.path) / learn.model_dir / "best.pth"
        fit = learn.fit_one_cycle if self.schedule == "one-cycle" else learn.fit
        try:
            # fastai's trackers print what the history says as well; standard output is for the table.
            with contextlib.redirect_stdout(io.StringIO()):
                fit(epochs, self.lr, wd=self.weight_decay, cbs=self.callbacks(first))
            # Each process has read the file. Of one that has failed the others would wait for ever.
            distrib_barrier()
        except FileNotFoundError as e:
            if self.best and Path(e.filename or "") == best:
                raise UserError("the validation loss was never a number; lower --lr") from None
            raise
        finally:
            if self.best and not rank_distrib():
                best.unlink(missing_ok=True)

    def kept(self, valid_losses: list[float], first: int = 0) -> int:
        """Which epoch's weights count, from 1, by the validation losses of a fit's epochs, those from `first` on."""
        if not self.best:
            return len(valid_losses)
        # The first of equals, as fastai's tracker has it; what is not a number is never the best.
        watched = range(min(first, len(valid_losses) - 1), len(valid_losses))
        return 1 + min(watched, key=lambda i: (valid_losses[i] != valid_losses[i], valid_losses[i]))


RECIPES = {
    "one-cycle": Recipe(),
    # The study's Table 1 and its callbacks: Adam, 1e-3, batches of 32, 30 epochs. Its dropout of 0.2 is in Net1 and
    # Net2; tsai's FCN, ResNet and InceptionTime have none and get none. It keeps the best validation accuracy: here,
    # with a few dozen held-out series, the loss is kept, which has no ties. Adam is fastai's: the decay of its second
    # moment is 0.99 and not 0.999.
    "study": Recipe(
        epochs=30, lr=1e-3, batch_size=32, schedule="plateau", weight_decay=0.0, holdout=0.1, patience=10, best=True
    ),
    # For every architecture and variant. Of the five that the plan `tuning` compares in four folds of Adiac's official
    # training series, with FCN, static and ODConv, the one with the highest mean (docs/report/tuning). Without the
    # differences both are 7 points lower; the others are within 5, and none is so significantly.
    "strong": Recipe(
        epochs=100,
        lr=5e-3,
        batch_size=32,
        schedule="constant",
        differences=1,
        label_smoothing=0.1,
        mixup=0.2,
        ema=0.99,
    ),
}
