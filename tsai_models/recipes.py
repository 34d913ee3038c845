"""How a learner is trained: a named set of numbers, all of which can be overridden."""

from __future__ import annotations

from dataclasses import dataclass

from fastai.learner import Learner


@dataclass(frozen=True)
class Recipe:
    """Adam with a schedule; what counts is the model after the last epoch, so nothing is chosen by the test set.

    Attributes:
        epochs: Passes over the training series; those of a twin's pre-training come on top.
        lr: Learning rate, the highest one for ``one-cycle``.
        batch_size: Series a step.
        schedule: ``one-cycle`` (fastai's) or ``constant``.
        weight_decay: Decoupled, as fastai's Adam has it.
    """

    epochs: int = 60
    lr: float = 5e-3
    batch_size: int = 32
    schedule: str = "one-cycle"
    weight_decay: float = 0.01

    def fit(self, learn: Learner, epochs: int | None = None) -> None:
        """Trains `learn` for `epochs`, by default the recipe's."""
        epochs = self.epochs if epochs is None else epochs
        if self.schedule == "one-cycle":
            learn.fit_one_cycle(epochs, self.lr, wd=self.weight_decay)
        else:
            learn.fit(epochs, self.lr, wd=self.weight_decay)


RECIPES = {
    "one-cycle": Recipe(),
    # The study's Table 1: Adam, 1e-3, batches of 32, 30 epochs; the dropout of 0.2 is in Net1 and Net2.
    "study": Recipe(epochs=30, lr=1e-3, batch_size=32, schedule="constant", weight_decay=0.0),
}
