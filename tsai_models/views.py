"""A part of a network as tsai and fastai expect it: something to split off, and to put other modules into."""

from __future__ import annotations

from torch import nn


class View(nn.Sequential):
    """Some modules of a network, in order; what is put in the place of the n-th is put into the network.

    Hooks belong on the modules themselves: the network runs those and not this.

    Args:
        network: Whose modules.
        names: What they are called there.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(*(getattr(network, name) for name in names))
        # Not as a module: the network is no part of its part.
        self.__dict__.update(network=network, names=names)

    def __setitem__(self, index: int, module: nn.Module) -> None:
        super().__setitem__(index, module)
        setattr(self.network, self.names[index], module)
