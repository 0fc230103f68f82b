"""What a comparison found, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bnnmcu.errors import MismatchFoundError

__all__ = ["Diff", "LayerDiff", "Parting", "Stage"]


@dataclass(frozen=True)
class Parting:
    """One value on which two executions differ.

    Attributes:
        image: index of the image; ``seed``: of its drawn weights.
        layer: by its name on the left side, ``node`` on the right.
        channel, row, column: where; the channel is the left side's.
        left, right: the two values.
        text: what they mean.
    """

    image: int
    seed: int
    layer: str
    node: str
    channel: int
    row: int
    column: int
    left: float
    right: float
    text: str

    def __str__(self) -> str:
        place = f"channel {self.channel}, row {self.row}, column {self.column}"
        return f"{self.layer}, {place} (image {self.image}): {self.text}"


@dataclass(frozen=True)
class Stage:
    """Two executions of one network, held against each other.

    Attributes:
        left, right: what they are.
        compared: values compared.
        differing: of these, how many differ; of floats, signs alone are counted,
            since rounding changes nearly every other value.
        unexplained: those that differ by more than rounding or a tie explains;
            between integers that is all of them.
        first: the first difference; ``first_unexplained``: the first of those.
        note: what else there is to say.
    """

    left: str
    right: str
    compared: int
    differing: int
    unexplained: int
    first: Parting | None = None
    first_unexplained: Parting | None = None
    note: str = ""


@dataclass(frozen=True)
class LayerDiff:
    """One value that the float network and the integer graph both have.

    Attributes:
        layer, node: its names there.
        kind: ``signs`` or ``values``.
        compared: numbers compared.
        differing: signs that differ when both networks run on their own.
        largest: the largest difference of values then, in units of the integers;
            ``relative``: over the layer's largest value.
        unexplained: numbers that differ by more than rounding can explain when
            the layer is given the integer network's own input.
    """

    layer: str
    node: str
    kind: str
    compared: int
    differing: int
    largest: float
    relative: float
    unexplained: int


@dataclass(frozen=True)
class Diff:
    """All stages of a comparison.

    Attributes:
        labels: what each execution answers, one label an image.
        logit_change: the largest difference of a logit between float network
            and integer graph, over the spread of the float logits; None
            without a float network.
        stages: in the order from the trained network to the board.
        layers: of the float network against the graph, in the network's order.
    """

    model: str
    data: str
    images: int
    seeds: tuple[int, ...]
    labels: dict[str, tuple[int, ...]]
    logit_change: float | None
    stages: tuple[Stage, ...]
    layers: tuple[LayerDiff, ...]

    @property
    def exact(self) -> bool:
        """Nothing differs that rounding or a tie does not explain."""
        return all(stage.unexplained == 0 for stage in self.stages)

    @property
    def culprit(self) -> Stage | None:
        """The first stage with an unexplained difference."""
        return next((stage for stage in self.stages if stage.unexplained), None)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"exact": self.exact}

    def raise_if_different(self) -> None:
        """Raises MismatchFoundError for a difference that is not explained."""
        stage = self.culprit
        if stage is None:
            return
        at = stage.first_unexplained
        where = f"{stage.left} and {stage.right} part first at {at}" if at else stage.note
        raise MismatchFoundError(
            f"{stage.unexplained:,} of {stage.compared:,} values differ: {where}",
            where=self.model,
            hint=stage.note if at and stage.note else None,
        )
