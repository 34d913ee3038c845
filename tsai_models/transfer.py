"""Dynamic networks whose kernels come from a trained static twin: copying, freezing, and both with the training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fastai.learner import Learner
from fastai.torch_core import get_random_states, set_random_states
from torch import Tensor, nn
from tsai.learner import ts_learner
from tsai.models.utils import build_ts_model

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError

from .archs import DynamicArch, twin_of, without_weight_norm
from .options import split


def from_static(dynamic: nn.Module, static: nn.Module, freeze: bool | None = None) -> nn.Module:
    """Copies a trained static twin into a dynamic network, which then starts out computing what the twin computes.

    Each of the K kernels becomes the twin's kernel, corrected for what the attentions multiply it by at the start; all
    other parameters and buffers are copied under their names. `orconv` takes the maximum over rotations of the twin's
    kernel from the first step on, and so does not start out as the twin (``preserves_static`` of an operator says so).

    Args:
        dynamic: The network to fill, in place; its dynamic operators stand where the twin has convolutions.
        static: The trained twin.
        freeze: Also :func:`freeze_kernels`, so that only attention and the static layers go on learning. By default
            unless nothing of an operator would learn then: `orconv` has nothing but its kernel, and those that only mix
            kernels by weights that sum to one would make a static convolution of K frozen copies for ever.

    Returns:
        `dynamic`.

    Raises:
        UserError: If the two do not match: nothing has been copied then.
    """
    ours, theirs = check_twin(dynamic, static)
    twins, operators = dict(static.named_modules()), dc.operators_in(dynamic)
    with torch.no_grad():
        for name, op in operators.items():
            op.load_static(twins[name])
        for key, value in ours.items():
            value.copy_(theirs[key])
    if freeze is None:
        freeze = not any(only_mixes(op) or _is_kernel(op) for op in operators.values())
    return freeze_kernels(dynamic) if freeze else dynamic


def check_twin(dynamic: nn.Module, static: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Makes sure that one network is the static twin of the other; what both hold beside the operators, by name.

    Raises:
        UserError: If it is not.
    """
    operators = dc.operators_in(dynamic)
    if not operators:
        raise UserError(f"{type(dynamic).__name__} has no dynamic convolution to copy kernels into")
    twins = dict(static.named_modules())
    unmatched = []
    for name, op in operators.items():
        twin = twins.get(name)
        shape = (op.out_channels, *op.weight.shape[1:])
        if tuple(getattr(getattr(twin, "weight", None), "shape", ())) != shape:
            unmatched.append(name)
        elif (twin.bias is None) != (op.bias is None):
            unmatched.append(f"{name}.bias")
    # A layer may have several names (TCN's).
    inside = tuple(f"{name}." for name, m in dynamic.named_modules(remove_duplicate=False) if m in operators.values())
    ours = {k: v for k, v in dynamic.state_dict().items() if not k.startswith(inside)}
    theirs = {k: v for k, v in static.state_dict().items() if not k.startswith(inside)}
    unmatched += sorted(ours.keys() ^ theirs.keys())
    unmatched += [k for k in ours.keys() & theirs.keys() if ours[k].shape != theirs[k].shape]
    if unmatched:
        raise UserError(
            f"{type(static).__name__} is not the static twin of {type(dynamic).__name__}: "
            f"{unmatched[0]} differs" + (f", and {len(unmatched) - 1} more" if unmatched[1:] else "")
        )
    return ours, theirs


@torch.no_grad()
def only_mixes(op: nn.Module) -> bool:
    """Whether an operator's attention does nothing but weigh several kernels by parts of one."""
    modes = [(module, module.training) for module in op.modules()]  # a norm may be frozen on its own
    attention = op.eval().attend(op.weight.new_zeros(1, op.in_channels, *(max(op.kernel_size),) * op.dims))
    for module, training in modes:
        module.training = training
    mixture = getattr(attention, "kernel", None)
    if mixture is None or mixture.shape[1] == 1 or sum(factor is not None for factor in attention) > 1:
        return False
    total = mixture.sum(1)
    return torch.allclose(total, torch.ones_like(total), atol=1e-3)


def _is_kernel(op: nn.Module) -> bool:
    """Whether an operator has no parameters beyond those of a static convolution."""
    return len(list(op.parameters())) == len(_kernels(op))


def _kernels(op: nn.Module) -> list[nn.Parameter]:
    """What a static convolution has as well; the parameters of a mask are attention."""
    return [op.weight] if op.bias is None else [op.weight, op.bias]


def _keep_frozen(op: nn.Module, _) -> None:
    for p in _kernels(op):
        if p.requires_grad:
            p.requires_grad_(False)


def freeze_kernels(model: nn.Module) -> nn.Module:
    """Freezes kernels and biases of all dynamic convolutions; their attention goes on learning.

    The freeze outlasts fastai's ``unfreeze``, ``fine_tune`` included: it is renewed in every forward pass.
    :func:`thaw_kernels` ends it.
    """
    thaw_kernels(model)
    for op in dc.operators_in(model).values():
        op.freezing = op.register_forward_pre_hook(_keep_frozen)
        _keep_frozen(op, None)
    return model


def thaw_kernels(model: nn.Module) -> nn.Module:
    """Undoes :func:`freeze_kernels`."""
    for op in dc.operators_in(model).values():
        if hasattr(op, "freezing"):
            op.freezing.remove()
            del op.freezing
        for p in _kernels(op):
            p.requires_grad_(True)
    return model


def pretrain(
    arch: Callable[..., nn.Module],
    dls,
    epochs: int,
    lr: float = 1e-3,
    *,
    freeze: bool | None = None,
    fit: Callable[[Learner], object] | None = None,
    cbs=None,
    metrics=None,
    arch_config: dict | None = None,
) -> nn.Module:
    """Trains the static twin of a dynamic architecture, copies it over and freezes the kernels.

    ``learn = ts_learner(dls, pretrain(Net2_DCNN, dls, 50)); learn.fit_one_cycle(50)`` is the whole procedure.

    Args:
        arch: A dynamic architecture of this package that has a static twin, such as ``Net2_DCNN``.
        dls: tsai's data loaders.
        epochs: Of the twin's training, by ``fit_one_cycle``.
        lr: Highest learning rate of that cycle.
        freeze: Freeze the copied kernels; by default as :func:`from_static` does.
        fit: Trains the twin's learner in another way than ``learn.fit_one_cycle(epochs, lr)``.
        cbs: fastai callbacks for the twin's learner.
        metrics: fastai metrics for the twin's learner.
        arch_config: Arguments of the architecture; the operator's own (``num_kernels``, ...) are kept from the twin.

    Returns:
        The dynamic network, on the device of `dls`, ready to be passed as ``arch=``.

    Raises:
        UserError: If `arch` has no static twin.
    """
    config, twin = dict(arch_config or {}), twin_of(arch)
    theirs = {k: v for k, v in config.items() if k not in ("operator", "where", "keep_weights", "operator_args")}
    operator = config.get("operator") or getattr(arch, "operator", None) or "odconv"
    # Aside, in all three generators (torch's, Python's, and NumPy's, by which tsai shuffles): the twin trains as it
    # would without, the same for every operator of a seed.
    states = get_random_states()
    dynamic = build_ts_model(arch, dls=dls, device=dls.device, **config)
    set_random_states(**states)
    learn = ts_learner(dls, twin, metrics=metrics, cbs=cbs, device=dls.device, **split(operator, twin, theirs)[1])
    if isinstance(arch, DynamicArch):
        without_weight_norm(learn.model)
    check_twin(dynamic, learn.model)  # before anything is trained
    if fit is None:
        learn.fit_one_cycle(epochs, lr)
    else:
        fit(learn)
    return from_static(dynamic, learn.model, freeze=freeze)
