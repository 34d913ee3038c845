"""Early stopping that a resumed training goes on with: mmengine's own forgets how long it has waited."""

from __future__ import annotations

from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

_KEY = "early_stopping"


@HOOKS.register_module(force=True)
class PatientStopping(EarlyStoppingHook):
    """``EarlyStoppingHook``, arguments and all, whose count and best score are part of every checkpoint."""

    priority = "LOW"  # before the checkpoint of the same validation is written

    def before_train(self, runner: Runner) -> None:
        """Takes up the count of a resumed training, which may have ended already."""
        # not what an earlier training of the same process left: mmengine names hubs by the second
        if runner.iter and _KEY in runner.message_hub.runtime_info:
            self.wait_count, self.best_score = runner.message_hub.get_info(_KEY)
            runner.train_loop.stop_training = self.wait_count >= self.patience

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Counts, stops if it is time, and notes both numbers."""
        super().after_val_epoch(runner, metrics or {})
        runner.message_hub.update_info(_KEY, [self.wait_count, float(self.best_score)])
