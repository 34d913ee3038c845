"""Training an architecture over folds or seeds with tsai's learner."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
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

from .archs import ARCHS, DynamicArch, build, find, parameters, twin_of
from .callbacks import BudgetCallback, EpochBar, TemperatureCallback
from .data import Series, load, splits
from .recipes import Recipe
from .results import Results, table
from .transfer import pretrain


@dataclass(frozen=True)
class Job:
    """What one command trains.

    Attributes:
        arch: Name of the architecture, ours or tsai's.
        dataset: Name of the data set.
        recipe: How to train.
        pretrain_epochs: Epochs of the twin before (the static twin trained in its stead gets them on top).
        static: Train the static twin of `arch` instead.
        operator: Make a static architecture dynamic, or use this operator in one of ours.
        operator_args: The operator's own arguments, and ``where``.
        folds: Number of stratified folds; None is the official split.
        seed: Of the first run; the others count up from it.
        temperature_epochs: How long the temperature falls; None is 10 epochs, or half of fewer than 20.
    """

    arch: str
    dataset: str
    recipe: Recipe
    pretrain_epochs: int | None = None
    static: bool = False
    operator: str | None = None
    operator_args: dict = field(default_factory=dict)
    folds: int | None = None
    seed: int = 0
    temperature_epochs: float | None = None

    def resolve(self) -> tuple[object, dict, int, int]:
        """The architecture to build, its arguments, and the epochs of pre-training and of the training proper.

        Raises:
            UserError: If the choices contradict each other.
        """
        arch, entry = find(self.arch), ARCHS.get(self.arch)
        dynamic = entry is not None and entry.twin is not None
        pretrained = dynamic and entry.pretrained
        before = self.recipe.epochs if self.pretrain_epochs is None else self.pretrain_epochs
        if self.pretrain_epochs is not None and not pretrained:
            raise UserError(f"--pretrain-epochs is for the Net*_DCNN, not for {self.arch}")
        if self.static:
            if not dynamic:
                raise UserError(f"{self.arch} has no dynamic convolution: leave --static out")
            if self.operator or self.operator_args:
                raise UserError("--static has no operator: leave out --operator and its options")
            # The dynamic network sees the data in both stages; its twin must see them as often to be comparable.
            return twin_of(arch), {}, 0, self.recipe.epochs + (before if pretrained else 0)
        options = dict(self.operator_args)
        where = {"where": options.pop("where")} if "where" in options else {}
        if dynamic:
            chosen = {"operator": self.operator} if self.operator else {}
            config = {**chosen, **where, "operator_args": options}
            return arch, config, before if pretrained else 0, self.recipe.epochs
        if self.operator:
            return DynamicArch(arch, self.operator, **where, **options), {}, 0, self.recipe.epochs
        if self.operator_args:
            raise UserError(f"{self.arch} is static: add --operator to make it dynamic")
        return arch, {}, 0, self.recipe.epochs


@contextlib.contextmanager
def _building(arch) -> Iterator[None]:
    """Turns what a host or the engine says about arguments that do not fit into one line."""
    try:
        yield
    except (TypeError, ValueError, AssertionError) as e:
        if isinstance(e, UserError):
            raise
        raise UserError(f"{arch.__name__} cannot be built that way: {str(e).splitlines()[0] if str(e) else e!r}") from e


def loaders(series: Series, split: tuple[list[int], list[int]], batch_size: int, device: torch.device):
    """tsai's data loaders, each series standardised by itself; the second one is the test set."""
    # tsai drops an incomplete last batch, which must not be the only one.
    bs = min(batch_size, len(split[0]))
    # tsai 1.0 counts test series in the smallest integer type, where "position + batch size" overflows for up to 255
    # of them and leaves an empty last batch, whose loss is not a number. One batch is safe.
    test_bs = len(split[1]) if len(split[1]) <= 1024 else 2 * bs
    return get_ts_dls(
        series.X,
        series.y,
        splits=split,
        tfms=[None, TSClassification()],
        batch_tfms=TSStandardize(by_sample=True),
        bs=[bs, test_bs],
        device=device,
    )


def train_once(
    job: Job, series: Series, split: tuple[list[int], list[int]], seed: int, label: str, device: torch.device
) -> tuple[dict, list[dict], nn.Module]:
    """One run: the row of the table, the history by epochs, and the model after the last epoch."""
    arch, config, before, epochs = job.resolve()
    set_seed(seed, reproducible=True)
    dls = loaders(series, split, job.recipe.batch_size, device)
    history: list[dict] = []
    started = time.perf_counter()

    def fit(learn, n: int, stage: str) -> None:
        with learn.no_bar(), learn.no_logging(), learn.added_cbs(EpochBar(f"{label}{stage}")):
            job.recipe.fit(learn, n)
        for values in learn.recorder.values:
            # The names begin with the epoch and end with the time, which are no values.
            row = dict(zip(learn.recorder.metric_names[1:-1], values, strict=True))
            history.append({"epoch": len(history) + 1, **row, "stage": "twin" if stage else "main"})

    with _building(arch):
        if before:
            model = pretrain(
                arch, dls, before, metrics=accuracy, arch_config=config, fit=lambda learn: fit(learn, before, " (twin)")
            )
        else:
            model = build_ts_model(arch, dls=dls, device=device, **config)
        falling = min(10.0, epochs / 2) if job.temperature_epochs is None else job.temperature_epochs
        schedule = dc.LinearTemperature(epochs=falling)
        learn = ts_learner(dls, model, metrics=accuracy, cbs=[TemperatureCallback(schedule), BudgetCallback()])
    fit(learn, epochs, "")
    with learn.no_bar(), learn.no_logging():
        loss, acc = learn.validate()
    if not math.isfinite(loss):
        raise UserError(f"{label}: the loss is no longer a number; lower --lr")
    return {"loss": loss, "accuracy": acc, "seconds": time.perf_counter() - started}, history, learn.model


def run(job: Job, runs: int, data: str | None, out: Path, device: torch.device, overwrite: bool = False) -> int:
    """Trains all folds or seeds that are not done yet, and prints the table."""
    arch, config, before, epochs = job.resolve()
    series = load(job.dataset, data, out / "data")
    unit = "seed" if job.folds is None else "fold"
    described = asdict(job) | {"series": len(series.y), "classes": series.classes}
    pairs = splits(series, job.folds, runs)
    with _building(arch):
        # Before anything is written: what cannot be built must not leave a folder behind.
        count = parameters(build(arch, series.X.shape[1], series.classes, series.X.shape[2], **config))
    results = Results(out, {**described, "parameters": count}, overwrite)
    name = arch.__name__ + (f" ({arch.operator})" if isinstance(arch, DynamicArch) else "")
    todo = [i for i in range(len(pairs)) if i not in results.rows]
    stages = f"{before} epochs of the static twin, then {epochs}" if before else f"{epochs} epochs"
    print(f"{name} on {job.dataset}: {count:,} parameters, {stages}, {len(pairs)} {unit}s, {device}", file=sys.stderr)
    if len(todo) < len(pairs):
        print(f"{len(pairs) - len(todo)} of {len(pairs)} {unit}s were finished before and are kept", file=sys.stderr)
    try:
        for i in todo:
            label = f"{unit} {i}"
            row, history, model = train_once(job, series, pairs[i], job.seed + i, label, device)
            results.add(i, row, history, {k: v.cpu() for k, v in model.state_dict().items()})
            done = f"accuracy {row['accuracy']:.3f}, loss {row['loss']:.3f}, {row['seconds']:.1f} s"
            tqdm.write(f"{label}: {done}", file=sys.stderr)
    except KeyboardInterrupt:
        kept = f"{len(results.rows)} of {len(pairs)} {unit}s are kept in {out}; the same command continues"
        print(f"\ninterrupted: {kept}", file=sys.stderr)
        return 130
    split = "official split" if job.folds is None else f"{job.folds} stratified folds"
    Console().print(table([results.rows[i] for i in range(len(pairs))], f"{name}, {job.dataset}, {split}", unit))
    print(f"written to {out}", file=sys.stderr)
    return 0
