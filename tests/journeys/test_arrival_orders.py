"""Whatever order a kit's reports come in, it ends the same and tells the same, or it is in a person's hands.

One kit for each order: the n-th file holds every kit's n-th report, so that all orders run side by side.
"""

from itertools import permutations

import pytest

from app.database import Begin
from flows.reconcile import strike
from tests.support.ingesting import READ_AT, ask, take
from tests.support.lab_files import Row, hl7
from tests.support.many_kits import Sent, send_kits

RESULT_TEXTS = ("all_clear", "swab_positive", "failed_sample")

Reports = dict[str, dict[str, str]]
"""What the chlamydia row of each report says; the other three rows are negative and final, or wait with it."""

FIRST, SECOND, THIRD = "2026-11-02T09:00", "2026-11-03T09:00", "2026-11-04T09:00"
PARTIAL = {"at": FIRST, "status": "P"}
FINAL = {"at": SECOND}
FOUND = {"at": SECOND, "value": "DETECTED"}


def rows(kit: Sent, name: str, said: dict[str, str]) -> list[Row]:
    of_all = {"at": said["at"], "message_id": f"{kit.code}-{name}"}
    chlamydia, *others = kit.rows(**of_all)
    return [chlamydia._replace(**said), *others]


def arrive(begin: Begin, reports: Reports) -> dict[tuple[str, ...], dict[str, object]]:
    """Lets every order of these reports arrive, and says how each kit ended."""
    orders = list(permutations(reports))
    with begin() as session:
        kits = dict(zip(orders, send_kits(session, len(orders)), strict=True))
    for place in range(len(reports)):
        take(begin, hl7([row for order, kit in kits.items() for row in rows(kit, order[place], reports[order[place]])]))
    assert strike(begin, lambda: READ_AT).differences == ()
    return {order: ended(begin, kit) for order, kit in kits.items()}


def ended(begin: Begin, kit: Sent) -> dict[str, object]:
    outcomes = ask(begin, "SELECT test, outcome FROM result_series WHERE kit_id = :id ORDER BY 1", id=kit.id)
    texts = ask(begin, "SELECT purpose FROM text WHERE kit_id = :id AND state = 'owed' ORDER BY 1", id=kit.id)
    cases = ask(begin, "SELECT kind FROM clinic_case WHERE kit_id = :id AND closed_at IS NULL", id=kit.id)
    return {
        "outcomes": dict(outcomes),
        "tells": [purpose for (purpose,) in texts if purpose in RESULT_TEXTS],
        "case": [kind for (kind,) in cases],
    }


@pytest.mark.parametrize(
    ("final", "tells", "case"), [(FINAL, ["all_clear"], []), (FOUND, ["swab_positive"], ["positive"])]
)
def test_partial_final_and_the_same_again_end_alike_in_every_order(begin, final, tells, case):
    found = arrive(begin, {"partial": PARTIAL, "final": final, "again": final})

    (one, *others) = found.values()
    assert others == [one] * 5
    assert (one["tells"], one["case"]) == (tells, case)


@pytest.mark.parametrize(
    "corrected",
    [
        {"at": THIRD, "status": "C", "value": "DETECTED"},
        {"at": THIRD, "status": "W"},
        {"at": THIRD, "value": "DETECTED"},
        {"at": THIRD, "status": "C", "value": "Equivocal"},
    ],
    ids=["corrected", "withdrawn", "second final", "equivocal"],
)
def test_a_correction_in_any_order_is_current_is_a_persons_and_tells_nothing(begin, corrected):
    found = arrive(begin, {"partial": PARTIAL, "final": FINAL, "again": FINAL, "corrected": corrected})

    (one, *others) = (each["outcomes"] for each in found.values())
    assert others == [one] * 23
    assert one["chlamydia"] != "negative"
    for order, each in found.items():
        # A second final word that came before the first one is no correction: it is the first thing we heard.
        if order.index("corrected") < order.index("final") and "status" not in corrected:
            continue
        assert (each["tells"], each["case"]) == ([], ["correction"]), order


def test_a_second_final_word_is_never_told_as_an_all_clear_in_any_order(begin):
    found = arrive(begin, {"final": FINAL, "other": {"at": THIRD, "value": "DETECTED"}, "again": FINAL})

    for order, each in found.items():
        assert each["outcomes"]["chlamydia"] == "positive", order
        assert "all_clear" not in each["tells"], order
        assert each["case"], order


def test_a_correction_that_is_corrected_again_ends_alike_and_in_a_persons_hands(begin):
    found = arrive(
        begin,
        {
            "final": FINAL,
            "corrected": {"at": THIRD, "status": "C", "value": "DETECTED"},
            "back": {"at": "2026-11-05T09:00", "status": "C"},
        },
    )

    for order, each in found.items():
        assert each["tells"] == [], order
        assert each["case"] == ["correction"], order


def test_a_correction_that_keeps_the_old_time_freezes_the_kit_in_every_order(begin):
    found = arrive(begin, {"partial": PARTIAL, "final": FINAL, "corrected": {**FOUND, "status": "C"}})

    for order, each in found.items():
        assert each["tells"] == [], order
        assert each["case"] == ["correction"] or each["outcomes"]["chlamydia"] == "positive", order
        assert each["case"], order
