"""The people of Larkfield and what they order. Everybody and everything in it is invented.

Each resident carries what the borough knows and the product must find out: what their order should
come to, and what is in their samples. This is the demo's own truth; it shares no table with the product.
"""

import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

GIVEN: Final = (
    "Ada", "Bram", "Cleo", "Dara", "Edwin", "Fern", "Gwil", "Hana", "Idris", "Juno", "Kit", "Lowri", "Milo", "Nia",
    "Owen", "Perrin", "Quill", "Rhian", "Sol", "Tamsin", "Una", "Vaughan", "Wren", "Xanthe", "Yorath", "Zeb",
    "Arlo", "Briar", "Caron", "Dilys",
)  # fmt: skip
FAMILY: Final = (
    "Alderwick", "Brackenbury", "Crosswell", "Dunmarsh", "Elderfield", "Farrowby", "Greyfold", "Hollowmere",
    "Ivesdale", "Juniperwood", "Kestrelby", "Larkhill", "Marrowdene", "Netherby", "Oxbarrow", "Penhallow",
    "Quarrystone", "Ravensworth", "Sandover", "Thistleton", "Umberleigh", "Vexford", "Wexcombe", "Yarrowby",
    "Zellwick",
)  # fmt: skip
POSTCODES: Final = (
    "EC2V 7HH", "EC2Y 8DS", "EC4M 7LS", "EC1A 4JQ", "EC3V 9AN", "N1 1AA", "N1 2UD", "N7 8GR", "N5 1XE", "EC1R 0JH",
    "N1 8QH", "N7 6AA", "N1 0AA", "N19 3JG", "EC1V 9NR", "EC1M 6EJ", "EC3R 8AH",
)  # fmt: skip
"""Real postcodes of the two real districts that stand in for the borough; nobody invented lives there."""

ELSEWHERE: Final = ("LS1 4AP", "M1 1AE", "SW1A 1AA", "CF10 3NB", "EC2A 4NE")
NEW_BUILD: Final = "N7 9ZZ"
"""Well formed, and not in the postcode data."""

STORIES: Final = {
    "negative": 56,
    "chlamydia": 7,
    "gonorrhoea": 3,
    "chlamydia_so_far": 1,
    "failed_blood": 7,
    "hiv_reactive": 2,
    "syphilis_reactive": 2,
    "positive_and_reactive": 1,
    "equivocal": 1,
    "inhibitory": 1,
    "partial_then_final": 6,
    "never_final": 1,
    "corrected_after_text": 2,
    "comment": 2,
    "unknown_word": 2,
    "wrong_birth_date": 1,
    "late_return": 2,
    "cancelled_late": 1,
    "no_text_wanted": 2,
}
"""What is in a returned kit's samples, or happens to it, of each hundred."""


@dataclass(slots=True)
class Resident:
    """One order and the truth behind it."""

    number: int
    order: dict[str, Any]
    expected: str = "accepted"
    """What the order should come to: accepted, refused, held, or unreadable."""
    story: str = "negative"
    returns: bool = True
    by_file: bool = False
    twice: bool = False
    answer: dict[str, Any] = field(default_factory=dict)
    """What the product said."""

    @property
    def name(self) -> str:
        """As it stands on the parcel."""
        return f"{self.order['given_name']} {self.order['family_name']}"

    @property
    def person(self) -> tuple[str, str]:
        """Name and date of birth, as they stand on the request form; the date may be an impossible one."""
        return self.name, self.order["date_of_birth"]


RETURNED: Final = 0.67
"""Share of kits that come back, beside those whose story needs it."""

VOICEMAIL_AGREED: Final = 0.4
LETTER_AGREED: Final = 0.3
"""Shares of people who agree to a voicemail, and to a letter."""

FILE_EVERY: Final = 7
"""Every seventh order comes from the clinic's spreadsheet, not from the web."""

TWICE_EVERY: Final = 41
"""Every so many-th order is sent twice, as by a double click."""


def people(count: int, *, now: datetime, seed: int) -> list[Resident]:
    """So many orders of one morning, always the same for a seed."""
    chance = random.Random(seed)
    stories = [story for story, share in STORIES.items() for _ in range(share)]
    residents = [_resident(number, now=now, chance=chance) for number in range(count)]
    for resident in residents:
        resident.story = chance.choice(stories)
        resident.returns = chance.random() < RETURNED or resident.story in _MUST_RETURN
        if resident.story == "no_text_wanted":
            resident.order["text_consent"] = False
    _make_special(residents, now=now, chance=chance)
    return residents


_MUST_RETURN: Final = frozenset(STORIES) - {"negative", "chlamydia"}


def _resident(number: int, *, now: datetime, chance: random.Random) -> Resident:
    body = chance.choice(
        (["vagina"], ["vagina"], ["penis"], ["penis"], ["penis", "vagina"] if number % 50 == 0 else ["penis"])
    )
    exposures = [each for each, odds in _exposures(body) if chance.random() < odds]
    born = now.date() - timedelta(days=chance.randint(19 * 365, 58 * 365))
    order = {
        "channel_ref": f"web-{number:06d}",
        "given_name": GIVEN[number % len(GIVEN)],
        "family_name": FAMILY[number // len(GIVEN) % len(FAMILY)],
        "date_of_birth": born.isoformat(),
        "mobile": f"07700 900{number:03d}",
        "mobile_proved_at": (now - timedelta(minutes=chance.randint(1, 90))).isoformat(timespec="seconds"),
        "mobile_proved_how": "one_time_code",
        "residence_line_1": f"{number + 1} Invented Row",
        "residence_line_2": "London",
        "residence_postcode": chance.choice(POSTCODES),
        "body_parts": body,
        "exposures": exposures,
        "last_risk_on": (now.date() - timedelta(days=chance.randint(8, 90))).isoformat(),
        "symptoms": False,
        "pregnancy_risk": False,
        "sexual_assault": False,
        "known_hiv": False,
        "past_syphilis": False,
        "text_consent": True,
        "voicemail_consent": chance.random() < VOICEMAIL_AGREED,
        "letter_consent": chance.random() < LETTER_AGREED,
        "safe_times": chance.choice(([], ["morning"], ["evening"], ["morning", "afternoon"])),
        "wording": chance.choice(("named", "named", "discreet")),
        "language": "cy" if number % 17 == 0 else "en",
    }
    return Resident(number, order, by_file=number % FILE_EVERY == 0, twice=number % TWICE_EVERY == 0)


def _exposures(body: list[str]) -> Iterator[tuple[str, float]]:
    yield "receptive_oral", 0.6
    yield "receptive_anal", 0.25
    if "penis" in body:
        yield "sex_between_men", 0.3
    yield "injected_drugs", 0.02


def _make_special(residents: list[Resident], *, now: datetime, chance: random.Random) -> None:
    """Turns some into the orders that are not simply accepted, each kind several times."""
    young = now.date() - timedelta(days=15 * 365)
    child = now.date() - timedelta(days=11 * 365)
    seventeen = (now.date() - timedelta(days=17 * 365 + 100)).isoformat()
    answers = {
        f"safeguarding_{each}": False for each in ("pressured", "paid", "drink_or_drugs", "low_mood", "partner_age_gap")
    }
    kinds: list[tuple[int, str, dict[str, Any]]] = [
        (4, "refused", {"date_of_birth": young.isoformat()}),
        (1, "refused", {"date_of_birth": child.isoformat()}),
        (8, "accepted", {"date_of_birth": seventeen, **answers}),
        (4, "held", {"date_of_birth": seventeen, **answers, "safeguarding_pressured": True}),
        (2, "held", {"date_of_birth": seventeen}),
        (8, "refused", {"residence_postcode": ELSEWHERE}),
        (2, "held", {"residence_postcode": NEW_BUILD}),
        (3, "refused", {"last_risk_on": (now.date() - timedelta(days=1)).isoformat()}),
        (2, "refused", {"sexual_assault": True}),
        (5, "refused", {"symptoms": True}),
        (2, "unreadable", {"mobile": "020 7946 0112"}),
        (1, "unreadable", {"date_of_birth": "1990-02-30"}),
        (1, "unreadable", {"residence_postcode": "75008 Paris"}),
        (6, "accepted", {"known_hiv": True}),
        (4, "accepted", {"past_syphilis": True}),
    ]
    places = iter(chance.sample(range(len(residents) - 3), sum(times for times, _, _ in kinds)))
    for times, expected, changes in kinds:
        for turn in range(times):
            resident = residents[next(places)]
            for name, value in changes.items():
                resident.order[name] = value[turn % len(value)] if isinstance(value, tuple) else value
            resident.expected = expected
            if expected == "unreadable":
                resident.by_file = True
    # Somebody on another person's mobile; and one person who comes back a third time in half a year.
    last, second, third = residents[-1], residents[-2], residents[-3]
    for resident, expected in ((third, "accepted"), (second, "accepted"), (last, "held")):
        resident.order |= {**third.order, "channel_ref": resident.order["channel_ref"]}
        resident.expected, resident.story, resident.by_file, resident.twice = expected, "negative", False, False
        resident.returns = False
    shared = next(r for r in residents if r.expected == "accepted" and r not in (last, second, third))
    sharer = next(r for r in residents[::-1] if r.expected == "accepted" and r not in (last, second, third, shared))
    sharer.order["mobile"] = shared.order["mobile"]
    sharer.expected = "refused"
    shared.by_file = False  # so that the mobile is theirs before the other one comes
    sharer.by_file = False


def as_csv(residents: list[Resident]) -> str:
    """Orders as the clinic's spreadsheet has them, with one row that is short of everything."""
    columns = sorted({name for resident in residents for name in resident.order})
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    for resident in residents:
        writer.writerow({name: _cell(value) for name, value in resident.order.items()})
    writer.writerow({"channel_ref": "clinic-broken", "given_name": "Testina"})
    return out.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ";".join(map(str, value))
    return str(value)
