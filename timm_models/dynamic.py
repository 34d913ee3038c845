"""What every family of models here shares: sorting the arguments, making a timm network dynamic, registering names."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import register_model
from torch import nn

import dynconv_plugins as dc
from dynconv_plugins.errors import UnknownName, UserError

STATIC = "static"
STATIC_TWIN = dc.registry.Operator(STATIC, {}, "no operator: the static twin")
OPERATORS = (*dc.registry.names(), STATIC)
ANNEAL_FROM = 30.0  # ODConv, section 4.1: the temperature starts at 30 and falls linearly to 1
_logger = logging.getLogger("timm_models")


def default_cfg(first_conv: str, classifier: str) -> dict[str, Any]:
    """Returns timm's description of an ImageNet classifier that has no published weights.

    Args:
        first_conv: Name of the stem convolution; timm adapts it to other ``in_chans``.
        classifier: Name of the classifier; timm drops its weights when ``num_classes`` differs.
    """
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": first_conv,
        "classifier": classifier,
        "license": "apache-2.0",
    }


def register_family(
    module: ModuleType,
    bases: Iterable[str],
    create: Callable[..., nn.Module],
    describe: Callable[[str, dc.registry.Operator], str],
) -> list[str]:
    """Registers ``<base>_<operator>`` in timm for each base and each registered operator, and ``<base>_static``.

    The static one is timm's network with the stems and strides that its dynamic versions offer: their static twin.

    The functions become attributes of `module`, which timm reads ``__all__`` and ``default_cfgs`` from.

    Args:
        module: The family's own module.
        bases: Names of the static networks, e.g. ``'resnet18'``.
        create: Called as ``create(base, operator_name, pretrained=..., **kwargs)``.
        describe: Gives the docstring of one model.

    Returns:
        The registered names.
    """

    def entrypoint(base: str, operator: str) -> Callable[..., nn.Module]:
        def build(pretrained: bool = False, **kwargs: Any) -> nn.Module:
            return create(base, operator, pretrained=pretrained, **kwargs)

        build.__name__ = build.__qualname__ = f"{base}_{operator}"
        build.__module__ = module.__name__
        build.__doc__ = describe(base, STATIC_TWIN if operator == STATIC else dc.registry.get(operator))
        return build

    functions = [entrypoint(base, operator) for base in bases for operator in OPERATORS]
    for function in functions:
        setattr(module, function.__name__, register_model(function))
    return [function.__name__ for function in functions]


def operator_arguments(
    model: nn.Module, operator: str, host: type[nn.Module], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Takes the operator's own arguments, such as ``num_kernels``, out of `kwargs`; the rest is the host's.

    Args:
        model: The network under construction; it has taken its own arguments already.
        operator: Name in the registry.
        host: timm's class, whose constructor gets what is left.
        kwargs: What the user passed; changed in place.

    Returns:
        The arguments of the operator.

    Raises:
        UnknownName: If an argument belongs to neither.
    """
    own = set() if operator == STATIC else set(dc.registry.get(operator).options)
    theirs = set(inspect.signature(host).parameters)
    for name in kwargs:
        if name not in own | theirs:
            known = own | theirs | set(inspect.signature(type(model)).parameters)
            raise UnknownName("model argument", name, known - {"kwargs", "operator", "block", "layers", "block_args"})
    return {name: kwargs.pop(name) for name in own & set(kwargs)}


def without_annealing(kwargs: dict[str, Any], pretrained: bool) -> dict[str, Any]:
    """Returns `kwargs` of a model built with ``features_only=True``, whose forward timm takes apart.

    The network then cannot count its steps: weights that are loaded keep their own temperature, and a fresh network
    is the business of whoever trains it.

    Raises:
        UserError: If a fresh network is asked to anneal itself.
    """
    if kwargs.get("features_only") and kwargs.get("anneal_steps") and not pretrained:
        raise UserError(
            "anneal_steps= does not go with features_only=True: call dynconv_plugins.anneal() on the model you train"
        )
    return {k: v for k, v in kwargs.items() if k != "anneal_steps" or not kwargs.get("features_only")}


def make_dynamic(
    model: nn.Module,
    operator: str,
    where: str | None = None,
    anneal_steps: int = 0,
    arguments: dict[str, Any] | None = None,
) -> None:
    """Replaces convolutions of a freshly built timm network by `operator`, in place, freshly initialised.

    Args:
        model: The network.
        operator: Name in the registry, or ``static``: then nothing is replaced.
        where: Placement name or regular expression; ``None`` is the operator's own placement.
        anneal_steps: Training steps over which the network itself lowers its temperature to 1; 0: it does not. An
            operator without a temperature ignores it, so that one command line serves every operator.
        arguments: The operator's arguments.

    Raises:
        UserError: If `where` is not a string, or nothing was replaced, or an argument is out of range.
    """
    if operator == STATIC:
        return
    if where is not None and not isinstance(where, str):
        # timm saves the arguments as JSON: a callable could be used once and never be loaded again.
        raise UserError("where= takes a placement name or a regular expression here; for a callable use dynamize()")
    if isinstance(anneal_steps, bool) or not isinstance(anneal_steps, int) or anneal_steps < 0:
        raise UserError(f"anneal_steps={anneal_steps!r} must be a whole number of training steps, 0 or more")
    arguments = dict(arguments or {})
    if anneal_steps and "temperature" not in dc.registry.get(operator).options:
        _logger.info(f"{operator} has no temperature: anneal_steps={anneal_steps} changes nothing")
        anneal_steps = 0
    if anneal_steps:
        arguments.setdefault("temperature", ANNEAL_FROM)
    try:
        if not float(arguments.get("temperature", 1.0)) > 0:
            raise ValueError(f"temperature must be positive, got {arguments['temperature']}")
        dc.dynamize(model, operator, where=where, keep_weights=False, **arguments)
    except UserError:
        raise
    except (TypeError, ValueError) as e:  # what torch's own constructors raise for a bad argument
        raise UserError(f"{operator}: {e}") from e
    if anneal_steps:
        dc.anneal(model, start=arguments["temperature"], end=1.0, steps=anneal_steps)
