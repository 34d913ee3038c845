"""Dynamic networks made static: the training gain at no cost of inference."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .compiled import bare
from .convert import operators_in
from .errors import UserError
from .functional import Attention
from .surgery import Cost, cost_lines, costs, replaced

_IGNORED = 255  # the label that segmentation leaves out
_RESIZE = {1: "linear", 2: "bilinear", 3: "trilinear"}


class FoldReport(NamedTuple):
    """What folding did.

    Attributes:
        folded: Names of the operators that became static.
        left: Names of those that stayed as they are, with the reason.
        samples: Samples that the attentions were averaged over.
        before, after: What the network costs per sample, as far as it can be counted.
        accuracy_before, accuracy_after: Parts of the validation samples (or pixels) that are right, if there are any.
    """

    folded: tuple[str, ...]
    left: dict[str, str]
    samples: int
    before: Cost
    after: Cost
    accuracy_before: float | None = None
    accuracy_after: float | None = None

    @property
    def lost(self) -> float | None:
        """Points of accuracy (per cent of the validation samples) that folding cost."""
        return None if self.accuracy_before is None else 100 * (self.accuracy_before - self.accuracy_after)

    def __str__(self) -> str:
        count = f"{len(self.folded)} of {len(self.folded) + len(self.left)} operators"
        lines = [f"folded     {count}, attention averaged over {self.samples} samples"]
        lines += [f"left       {name}: {reason}" for name, reason in self.left.items()]
        lines += cost_lines(self.before, self.after)
        if self.lost is not None:
            accuracies = f"{100 * self.accuracy_before:.2f}% -> {100 * self.accuracy_after:.2f}%"
            lines.append(f"accuracy   {accuracies}  ({self.lost:.2f} points lost)")
        return "\n".join(lines)


class _Mean:
    """The running mean of an operator's attentions, one weight per sample, in float64; a forward hook."""

    def __init__(self) -> None:
        self.samples = 0
        self.sums: Attention | None = None

    def __call__(self, _module: nn.Module, _inputs: tuple, attention: Attention) -> None:
        present = [factor for factor in attention if factor is not None]
        self.samples += len(present[0]) if present else 1
        sums = (None if factor is None else self._sum(name, factor) for name, factor in attention._asdict().items())
        new = type(attention)(*sums)
        old = new if self.sums is None else self.sums
        self.sums = new if old is new else type(attention)(*map(_added, old, new))

    @staticmethod
    def _sum(name: str, factor: Tensor) -> Tensor:
        """The sum over samples; a kernel attention per position is averaged over the positions."""
        factor = factor.detach().cpu().double()
        factor = factor.flatten(2).mean(2) if name == "kernel" and factor.dim() > 2 else factor
        return factor.sum(0, keepdim=True)

    @property
    def attention(self) -> Attention:
        """The mean, with a batch of one."""
        return type(self.sums)(*(None if total is None else total / self.samples for total in self.sums))


def _added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None else a + b


def fold(
    model: nn.Module, loader: Iterable, validation: Iterable | None = None, device: torch.device | str | None = None
) -> tuple[nn.Module, FoldReport]:
    """Turns a dynamic network into a static one, by freezing every attention at its mean over a loader.

    Each operator becomes the ``nn.ConvNd`` that computes what it does under the mean of its factors: kernels mixed and
    scaled by them (per position: averaged over positions too; the switches of `Hard2d`, on in a part of the samples,
    scale by that part; its task mask is applied). `DCD2d` takes its low-rank part into the kernel, or with groups keeps
    it as two narrow convolutions beside. An operator that depends on nothing but fixed weights and is no single
    convolution stays (`ORConv2d` with ``pool='max'``), and so does one that never ran.

    Nothing is lost where attention does not vary from sample to sample; how much is lost elsewhere only a validation
    set tells, and it can be nearly everything: ``python -m benchmarks.folding`` measures it for one network an
    operator, and docs/results.md shows what it printed. The result can be fine-tuned.

    The mean is that of each factor; the mean of their product, which is the mean kernel of ODConv, would take a kernel
    for each sample. Batch norms are not estimated anew.

    Args:
        model: Left as it is.
        loader: Batches for calibration, ``x`` or ``(x, ...)``; some hundred training samples, not augmented, will do.
        validation: Batches ``(x, y)`` to measure accuracy on: labels ``[B]`` for outputs ``[B, C]``, or ``[B, *S]`` for
            ``[B, C, *S]`` (resized to the labels, 255 left out). Read twice: a loader or a list, no generator.
        device: Where to run; by default where the model is. The result is where `model` is.

    Returns:
        A new model in eval mode, and the report.

    Raises:
        UserError: If the model has no dynamic operator, or a loader is empty or yields something else, or
            `validation` can be read only once.
    """
    model = bare(model)
    operators = operators_in(model)
    if not operators:
        raise UserError(f"no dynamic convolution in this {type(model).__name__}: there is nothing to fold")
    if isinstance(validation, Iterator):
        raise UserError(f"validation is read twice, a {type(validation).__name__} only once: pass a loader or a list")
    home = next(model.parameters()).device
    device = home if device is None else torch.device(device)
    dynamic = copy.deepcopy(model).to(device).eval()
    means, samples, size = _calibrate(dynamic, loader, device)
    new: dict[nn.Module, nn.Module] = {}
    left: dict[str, str] = {}
    for name, operator in operators_in(dynamic).items():
        static = operator.frozen(means[name].attention) if means[name].samples else None
        if static is not None:
            new[operator] = static
        else:
            left[name] = "no single convolution computes the same" if means[name].samples else "did not run"
    before = None if validation is None else accuracy(dynamic, validation, device)
    [cost_before] = costs([dynamic], size)
    static = replaced(dynamic, new)
    if not operators_in(static):
        _unhook(static)
    after = None if validation is None else accuracy(static, validation, device)
    [cost_after] = costs([static], size)
    folded = tuple(name for name in operators if name not in left)
    return static.to(home), FoldReport(folded, left, samples, cost_before, cost_after, before, after)


def _calibrate(model: nn.Module, loader: Iterable, device: torch.device) -> tuple[dict[str, _Mean], int, torch.Size]:
    """The mean attention of each operator, the number of samples, and the shape of the first batch."""
    means = {name: _Mean() for name in operators_in(model)}
    handles = [op.attention.register_forward_hook(means[name]) for name, op in operators_in(model).items()]
    samples, size = 0, None
    try:
        with torch.no_grad():
            for x, *_ in batches(loader, device):
                model(x)
                samples, size = samples + len(x), size or x.shape
    finally:
        for handle in handles:
            handle.remove()
    return means, samples, size


def batches(loader: Iterable, device: torch.device) -> Iterator[tuple[Any, ...]]:
    """The batches of `loader` as tuples on `device`.

    Raises:
        UserError: If there is none, or one does not begin with a tensor.
    """
    empty = True
    for batch in loader:
        empty = False
        batch = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        if not batch or not isinstance(batch[0], Tensor):
            raise UserError(f"a batch must be x or (x, ...) with a tensor x, got {type(batch[0] if batch else batch)}")
        yield tuple(item.to(device) if isinstance(item, Tensor) else item for item in batch)
    if empty:
        raise UserError("the loader is empty: it must yield at least one batch")


@torch.no_grad()
def accuracy(model: nn.Module, loader: Iterable, device: torch.device) -> float:
    """The part of samples, or of pixels not labelled 255, whose class has the highest output.

    Raises:
        UserError: If batches are not (x, y) with labels that fit the outputs.
    """
    right = total = 0
    for x, *rest in batches(loader, device):
        output = model(x)
        if not rest or not isinstance(rest[0], Tensor) or not isinstance(output, Tensor) or output.dim() < 2:
            raise UserError("accuracy needs batches (x, y) of tensors, and a model whose output is one [B, C, ...]")
        labels = rest[0].long()
        if labels.dim() != output.dim() - 1 or len(labels) != len(output):
            raise UserError(f"labels {list(labels.shape)} do not fit outputs {list(output.shape)}")
        if labels.shape[1:] != output.shape[2:]:
            output = F.interpolate(output, labels.shape[1:], mode=_RESIZE[labels.dim() - 1])
        counted = labels != _IGNORED if labels.dim() > 1 else torch.ones_like(labels, dtype=torch.bool)
        right += int((output.argmax(1) == labels)[counted].sum())
        total += int(counted.sum())
    return right / max(total, 1)


def _unhook(model: nn.Module) -> None:
    """Takes away the hooks of this package, which have nothing left to do (temperature, carried representations)."""
    for module in model.modules():
        module._buffers.pop("annealing_step", None)
        module.__dict__.pop("annealing", None)
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if getattr(hook, "__module__", "").startswith(f"{__package__}."):
                    del hooks[key]
