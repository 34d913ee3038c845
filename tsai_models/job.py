"""What one training command is to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from dynconv_plugins.errors import UserError

from .archs import ARCHS, DynamicArch, find, twin_of
from .recipes import Recipe


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
        fold: Train only this one of them, with the seed it has among all; None is all.
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
    fold: int | None = None
    seed: int = 0
    temperature_epochs: float | None = None

    def __post_init__(self) -> None:
        if self.fold is not None and self.folds is None:
            raise UserError("--fold is one of --folds: give both")
        if self.fold is not None and not 0 <= self.fold < self.folds:
            raise UserError(f"--fold counts from 0 to {self.folds - 1} with --folds {self.folds}, not {self.fold}")

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
