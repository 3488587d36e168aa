"""What a kit is made of, and which lots may go into it (FEATURES 18; H17).

A recipe says which components a sample takes at one laboratory. Packing takes the lot that expires first
among those that outlive the promised return window, and never one that is recalled.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from models.rules.vocabulary import Specimen


@dataclass(frozen=True, slots=True)
class Recipe:
    """Components of one sample for one laboratory; without a specimen: what every kit for it holds."""

    lab: str
    components: Mapping[str, int]
    """Pieces by component: small letters, digits and underscores."""
    specimen: Specimen | None = None
    assay: str = ""
    """What the laboratory tests it with. How old a sample may be by that assay stands in the lab's own map."""


@dataclass(frozen=True, slots=True)
class StockPolicy:
    """How a council keeps its stock."""

    controlled: bool = False
    """True: no kit is printed without a lot for each of its components."""
    days_to_dispatch: int = 7
    """From printing to dispatch at the latest: parts must outlive this and the return window."""
    low_below: Mapping[str, int] = field(default_factory=dict)
    """Usable pieces of a component under which somebody is told."""


@dataclass(frozen=True, slots=True)
class Lot:
    """One lot as packing sees it."""

    lot_id: int
    component: str
    expires_on: date
    on_hand: int
    recalled: bool = False


def parts_of(recipes: Iterable[Recipe], lab: str, specimens: Collection[Specimen]) -> dict[str, int]:
    """Pieces by component for one kit of these samples."""
    wanted: Counter[str] = Counter()
    for recipe in recipes:
        if recipe.lab == lab and (recipe.specimen is None or recipe.specimen in specimens):
            wanted.update(recipe.components)
    return dict(wanted)


def must_outlive(packed_on: date, *, return_within_days: int, days_to_dispatch: int) -> date:
    """The London date up to which every part of a kit packed today must be good."""
    return packed_on + timedelta(days=return_within_days + days_to_dispatch)


def usable(lot: Lot, outlives: date) -> bool:
    """Whether packing may take from a lot."""
    return not lot.recalled and lot.on_hand > 0 and lot.expires_on >= outlives


def pick(lots: Iterable[Lot], wanted: Mapping[str, int], outlives: date) -> Mapping[int, int] | None:
    """Pieces by lot for one kit, the earliest expiry first; None when a component is short: a kit is whole or not."""
    picked: dict[int, int] = {}
    short = dict(wanted)
    for lot in sorted(lots, key=lambda each: (each.expires_on, each.lot_id)):
        need = short.get(lot.component, 0)
        if need and usable(lot, outlives):
            taken = min(need, lot.on_hand)
            picked[lot.lot_id] = taken
            short[lot.component] = need - taken
    return picked if not any(short.values()) else None


@dataclass(frozen=True, slots=True)
class Low:
    """A component of which little is left."""

    component: str
    pieces: int
    below: int


def low_stock(lots: Sequence[Lot], policy: StockPolicy, outlives: date) -> list[Low]:
    """The components whose usable pieces are under the council's mark. Lots too old to pack don't count."""
    on_hand: Counter[str] = Counter()
    for lot in lots:
        if usable(lot, outlives):
            on_hand[lot.component] += lot.on_hand
    return [
        Low(component, on_hand[component], below)
        for component, below in sorted(policy.low_below.items())
        if on_hand[component] < below
    ]
