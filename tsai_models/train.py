"""Training an architecture over folds or seeds with tsai's learner."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fastai.basics import noop
from fastai.callback.progress import CSVLogger
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from rich.console import Console
from torch import nn
from tqdm.auto import tqdm
from tsai.data.core import TSClassification, get_ts_dls
from tsai.data.preprocessing import TSStandardize
from tsai.learner import ts_learner
from tsai.models.utils import build_ts_model

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError
from dynconv_plugins.locking import sole

from . import distributed
from .archs import DynamicArch, build, parameters
from .augment import transforms
from .callbacks import BudgetCallback, EpochBar, TemperatureCallback, annealing_epochs
from .data import Series, hold_out, load, splits, with_differences
from .job import Job
from .recipes import Recipe
from .results import Results, Run, table
from .transfer import pretrain

PROGRESS = "progress.csv"


@contextlib.contextmanager
def _building(arch, *errors: type[Exception]) -> Iterator[None]:
    """Turns what a host or the engine says about arguments that do not fit into one line."""
    try:
        yield
    except (TypeError, ValueError, AssertionError, *errors) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"{arch.__name__} cannot be built that way: {str(e).splitlines()[0] if str(e) else e!r}") from e


@torch.no_grad()
def _checked(model: nn.Module, series: Series) -> int:
    """Makes sure that a network classifies the series and can learn to; how many parameters it has."""
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("it has nothing to train")
    logits = model.eval()(torch.as_tensor(series.X[:2], dtype=torch.float32))
    if not torch.is_tensor(logits) or logits.shape != (len(series.X[:2]), series.classes):
        shape = list(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
        raise ValueError(f"for a batch of series it returns {shape}, and no logits [batch, {series.classes}]")
    return parameters(model)


def loaders(series: Series, split: tuple[list[int], ...], batch_size: int, device: torch.device, augment: float = 0.0):
    """tsai's data loaders of the training series, the held-out part if the split has three, and the test series.

    Each variable of each series is standardised by itself; the training series then change at random as `augment`
    says. The classes are those of the whole data set, sorted.
    """
    # tsai drops an incomplete last batch, which must not be the only one.
    bs = min(batch_size, len(split[0]))
    # tsai 1.0 counts test series in the smallest integer type, where "position + batch size" overflows for up to 255
    # of them and leaves an empty last batch, whose loss is not a number. One batch is safe.
    return get_ts_dls(
        series.X,
        series.y,
        splits=split,
        # By itself it knows the classes of the training series alone, and takes any other for the first of them: a
        # fold's test series may be all there are of a class.
        tfms=[None, TSClassification(vocab=np.unique(series.y))],
        batch_tfms=[TSStandardize(by_sample=True, by_var=True), *transforms(augment)],
        bs=[bs, *(len(part) if len(part) <= 1024 else 2 * bs for part in split[1:])],
        device=device,
    )


def fit(learn: Learner, recipe: Recipe, epochs: int, label: str, folder: Path) -> list[dict]:
    """Trains by the recipe, which leaves the learner with the weights that count; the history by epochs.

    While it lasts, ``progress.csv`` in `folder` has a line for each epoch.
    """
    learn.model_dir = folder.resolve()
    progress = learn.model_dir / PROGRESS
    log = [CSVLogger(progress)] if distributed.primary() else []
    try:
        with learn.no_bar(), learn.no_logging(), learn.added_cbs([EpochBar(label), *log, *distributed.callbacks()]):
            recipe.fit(learn, epochs)
    finally:
        if log:
            progress.unlink(missing_ok=True)
    # The names begin with the epoch and end with the time, which are no values.
    return [dict(zip(learn.recorder.metric_names[1:-1], row, strict=True)) for row in learn.recorder.values]


def train_once(
    job: Job, series: Series, split: tuple[list[int], ...], seed: int, label: str, device: torch.device, out: Path
) -> Run:
    """Trains one fold or seed, then predicts its test series, once."""
    arch, config, before, epochs = job.resolve()
    recipe = job.recipe
    set_seed(seed, reproducible=True)
    dls = distributed.shared(loaders(series, split, recipe.batch_size, device, recipe.augment))
    history: list[dict] = []
    started = time.perf_counter()

    def stage(name: str, learn: Learner, n: int) -> int:
        unwatched = annealing_epochs(learn, n)
        rows = fit(learn, recipe, n, label if name == "main" else f"{label} ({name})", out)
        so_far = len(history)
        history.extend({"epoch": so_far + i, **row, "stage": name} for i, row in enumerate(rows, 1))
        return so_far + recipe.kept([row["valid_loss"] for row in rows], unwatched)

    with _building(arch):
        if before:
            twin = partial(stage, "twin", n=before)
            model = pretrain(arch, dls, before, metrics=accuracy, arch_config=config, fit=twin)
        else:
            model = build_ts_model(arch, dls=dls, device=device, **config)
        falling = min(10.0, epochs / 2) if job.temperature_epochs is None else job.temperature_epochs
        schedule = dc.LinearTemperature(epochs=falling)
        learn = ts_learner(dls, model, metrics=accuracy, cbs=[TemperatureCallback(schedule), BudgetCallback()])
    kept = stage("main", learn, epochs)
    with distributed.alone(), learn.no_bar(), learn.no_logging():
        logits, truth = learn.get_preds(dl=dls.loaders[-1], act=noop)
    loss, predicted = F.cross_entropy(logits, truth).item(), logits.argmax(1)
    if not math.isfinite(loss):
        raise UserError(f"{label}: the loss is no longer a number; lower --lr")
    row = {"loss": loss, "accuracy": (predicted == truth).double().mean().item()}
    row |= {"seconds": time.perf_counter() - started, "epochs": len(history), "kept_epoch": kept}
    state = {k: v.cpu() for k, v in learn.model.state_dict().items()}
    return Run(row, history, state, truth.numpy(), predicted.numpy(), np.array(dls.vocab, dtype=str))


def run(job: Job, runs: int, data: str | None, out: Path, device: torch.device, overwrite: bool = False) -> int:
    """Trains all folds or seeds that are not done yet, and prints the table."""
    arch, config, before, epochs = job.resolve()
    with distributed.primary_first():
        series = load(job.dataset, data, out / "data")
    series = series._replace(X=with_differences(series.X, job.recipe.differences))
    described = asdict(job) | {"series": len(series.y), "classes": series.classes, "variables": series.X.shape[1]}
    parts = splits(series, job.folds, runs)
    if job.recipe.holdout:
        parts = [(*hold_out(series, train, job.recipe.holdout), test) for train, test in parts]
    with _building(arch, Exception):  # whatever an architecture makes of its arguments and of the series
        # Before anything is written: what cannot be built must not leave a folder behind.
        count = _checked(build(arch, series.X.shape[1], series.classes, series.X.shape[2], **config), series)
    stored = partial(Results, out, {**described, "parameters": count}, overwrite)
    stored()  # what does not fit is said before anything is waited for
    with sole(out, "--out") if distributed.primary() else contextlib.nullcontext():
        results = stored()
        return _rest(job, series, parts, arch, before, epochs, results, out, device)


def _rest(
    job: Job, series: Series, parts: list, arch, before: int, epochs: int, results: Results, out: Path, device
) -> int:
    """Trains what `results` lack."""
    unit, count = "seed" if job.folds is None else "fold", results.config["parameters"]
    name = arch.__name__ + (f" ({arch.operator})" if isinstance(arch, DynamicArch) else "")
    numbers = range(len(parts)) if job.fold is None else [job.fold]
    todo = [i for i in numbers if i not in results.rows]
    stages = f"{before} epochs of the static twin, then {epochs}" if before else f"{epochs} epochs"
    total = f"{len(numbers)} {unit}s" if job.fold is None else f"fold {job.fold} of {job.folds}"
    print(f"{name} on {job.dataset}: {count:,} parameters, {stages}, {total}, {device}", file=sys.stderr)
    if len(todo) < len(numbers):
        print(
            f"{len(numbers) - len(todo)} of {len(numbers)} {unit}s were finished before and are kept", file=sys.stderr
        )
    try:
        for i in todo:
            label = f"{unit} {i}"
            finished = train_once(job, series, parts[i], job.seed + i, label, device, out)
            row = finished.row
            if not distributed.primary():
                continue
            results.add(i, finished)
            kept = f", epoch {row['kept_epoch']} of {row['epochs']} kept" if job.recipe.best else ""
            done = f"accuracy {row['accuracy']:.3f}, loss {row['loss']:.3f}{kept}, {row['seconds']:.1f} s"
            tqdm.write(f"{label}: {done}", file=sys.stderr)
    except KeyboardInterrupt:
        kept = f"{len(results.rows)} of {len(numbers)} {unit}s are kept in {out}; the same command continues"
        kept += " without --overwrite" if results.overwrite else ""
        print(f"\ninterrupted: {kept}", file=sys.stderr)
        return 130
    if not distributed.primary():
        return 0
    split = "official split" if job.folds is None else f"{job.folds} stratified folds"
    Console().print(table([results.rows[i] for i in numbers], f"{name}, {job.dataset}, {split}", unit))
    print(f"written to {out}", file=sys.stderr)
    return 0
