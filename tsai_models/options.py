"""Telling an operator's own arguments from those of the network it stands in, and from tsai's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container
from typing import Any

import dynconv_plugins as dc
from dynconv_plugins.errors import UserError


def split(operator: str, host: Callable, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts `given` into the operator's arguments and the host's; a name that both have is the host's."""
    own = set(dc.registry.get(operator).options) - set(inspect.signature(host).parameters)
    return {k: v for k, v in given.items() if k in own}, {k: v for k, v in given.items() if k not in own}


def refuse_head(network: str, given: Container[str]) -> None:
    """Refuses the ``custom_head`` that tsai passes along for targets of two dimensions, whatever the network.

    Raises:
        UserError: If `given` has it.
    """
    if "custom_head" in given:
        raise UserError(
            f"{network} takes no custom_head, which tsai passes for a y of two dimensions or more: use "
            "DynamicArch('FCNPlus', 'odconv'), or with ts_learner and a y of two give d=0 and c_out, its columns"
        )
