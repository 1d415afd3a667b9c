"""Weights that keep their values in training: of a linear probe, or of the first layers."""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Tuple

from mindspore import Parameter, nn

from ..errors import UserError

NOTHING, BACKBONE = "none", "backbone"


class Frozen(NamedTuple):
    """What of a network does not change in training.

    Attributes:
        parameters: running statistics of frozen norms among them.
        cells: stay in evaluation mode, so that frozen norms normalise by their running statistics
            and nothing is dropped between frozen layers.
    """

    parameters: Tuple[Parameter, ...] = ()
    cells: Tuple[nn.Cell, ...] = ()

    def set_evaluation(self) -> None:
        """To be called after `set_train`, which reaches all cells."""
        for cell in self.cells:
            cell.set_train(False)

    def left_of(self, parameters: List[Parameter]) -> List[Parameter]:
        """Those that are not frozen."""
        frozen = {id(parameter) for parameter in self.parameters}
        return [parameter for parameter in parameters if id(parameter) not in frozen]


def freeze(network: nn.Cell, what: str) -> Frozen:
    """Takes the gradient from a part of a classifier.

    As timm's `freeze`, but dropout and stochastic depth between frozen layers are off too.

    Args:
        what: `none`, `backbone` (all but the classifier), or the number of layer groups, counted
            from the stem as for `layer_decay`.

    Raises:
        UserError: as many groups as there are, or more.
    """
    if what == NOTHING:
        return Frozen()
    names = set(_frozen_names(network, what))
    chosen = [p for p in network.trainable_params() if p.name in names]
    for parameter in chosen:
        parameter.requires_grad = False
    network.frozen_features = "some" if any(network.layer_groups()[:-1]) else "all"
    cells = tuple(_frozen_cells(network, {id(parameter) for parameter in chosen}))
    statistics = [p for cell in cells for p in cell.get_parameters()]
    return Frozen(tuple({id(p): p for p in [*chosen, *statistics]}.values()), cells)


def _frozen_names(network: nn.Cell, what: str) -> List[str]:
    if what == BACKBONE:
        heads = tuple(f"{layer}." for layer in network.classifier_layers)
        return [p.name for p in network.trainable_params() if not p.name.startswith(heads)]
    groups = network.layer_groups()
    if int(what) >= len(groups):
        raise UserError(
            f"freeze {what}: the network has {len(groups)} layer groups, the last with the "
            f"classifier; give a number up to {len(groups) - 1}, or backbone"
        )
    return [name for group in groups[: int(what)] for name in group]


def _frozen_cells(cell: nn.Cell, frozen: set) -> Iterator[nn.Cell]:
    """The outermost cells below `cell` in which nothing trains.

    In a cell of which a part is frozen, that is also a child without parameters: a dropout between
    frozen layers, as behind CCT's position embedding.
    """
    for child in cell.cells():
        if not child.trainable_params():
            yield child
        elif any(id(parameter) in frozen for parameter in child.get_parameters()):
            yield from _frozen_cells(child, frozen)
