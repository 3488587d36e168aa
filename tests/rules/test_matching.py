"""Never the wrong person: any single thing that disagrees is a reason, and a name proves nothing (law 1)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.matching import KitFacts, Reported, Tube, check_match
from models.rules.service import LabContract
from models.rules.vocabulary import Quarantine, Site, Test

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SENT = NOW - timedelta(days=10)
TUBE, OTHER_TUBE = "T4JWW75K3Y1", "T4JWW75K3Y2"
CONTRACT = LabContract("NORTHLAB", carries_tube=True)
TUBELESS = LabContract("NORTHLAB", carries_tube=False, tubeless_signed_by="a clinical lead")
KIT = KitFacts(
    lab="NORTHLAB",
    dispatched_at=SENT,
    tubes={TUBE: Tube(Site.VAGINAL), OTHER_TUBE: Tube(Site.BLOOD)},
    requested={(Test.CHLAMYDIA, Site.VAGINAL): TUBE, (Test.HIV, Site.BLOOD): OTHER_TUBE},
)
GOOD = Reported(
    tube_code=TUBE,
    test=Test.CHLAMYDIA,
    site=Site.VAGINAL,
    collected_at=SENT + timedelta(days=2),
    received_at=SENT + timedelta(days=4),
    born_known=True,
    born_agrees=True,
    family_known=True,
    family_agrees=True,
)


def reason(row: Reported, kit: KitFacts | None = KIT, contract: LabContract | None = CONTRACT) -> Quarantine | None:
    found = check_match(row, kit, contract, now=NOW)
    return found.reason if found else None


def test_a_row_that_agrees_in_everything_is_this_kits() -> None:
    assert reason(GOOD) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tube_code": None}, Quarantine.TUBE_MISMATCH),
        ({"tube_code": "W8JPVM8V7R1"}, Quarantine.TUBE_MISMATCH),
        ({"tube_code": OTHER_TUBE}, Quarantine.SPECIMEN_CONFLICT),
        ({"site": Site.RECTAL}, Quarantine.SPECIMEN_CONFLICT),
        ({"born_known": False}, Quarantine.IDENTITY_MISSING),
        ({"born_agrees": False}, Quarantine.IDENTITY_MISMATCH),
        ({"family_agrees": False}, Quarantine.IDENTITY_CONFLICT),
        ({"test": Test.GONORRHOEA}, Quarantine.NOT_REQUESTED),
        ({"test": Test.HIV}, Quarantine.NOT_REQUESTED),
        ({"collected_at": NOW + timedelta(days=1)}, Quarantine.DATED_IN_FUTURE),
        ({"received_at": NOW + timedelta(days=1)}, Quarantine.DATED_IN_FUTURE),
        ({"collected_at": SENT - timedelta(days=1)}, Quarantine.DATED_BEFORE_DISPATCH),
        ({"received_at": SENT - timedelta(days=1)}, Quarantine.DATED_BEFORE_DISPATCH),
        ({"received_at": SENT + timedelta(days=1)}, Quarantine.DATE_IMPLAUSIBLE),
        ({"collected_at": SENT, "received_at": None}, None),
        ({"family_known": False, "family_agrees": False}, None),
    ],
)
def test_each_single_disagreement_is_its_own_reason(change: dict[str, object], why: Quarantine | None) -> None:
    assert reason(GOOD._replace(**change)) is why


def test_a_name_never_makes_up_for_a_date_of_birth() -> None:
    assert reason(GOOD._replace(born_agrees=False, family_agrees=True)) is Quarantine.IDENTITY_MISMATCH


def test_a_kit_of_another_lab_or_nobodys_is_unknown() -> None:
    assert reason(GOOD, kit=None) is Quarantine.UNKNOWN_KIT
    assert reason(GOOD, contract=None) is Quarantine.UNKNOWN_KIT
    assert reason(GOOD, kit=replace(KIT, lab="SOUTHVALE")) is Quarantine.UNKNOWN_KIT


def test_a_kit_that_never_left_us_can_have_no_result() -> None:
    assert reason(GOOD, kit=replace(KIT, dispatched_at=None)) is Quarantine.NEVER_DISPATCHED


def test_without_tubes_by_contract_a_sent_tube_must_still_agree() -> None:
    assert reason(GOOD._replace(tube_code=None), contract=TUBELESS) is None
    assert reason(GOOD._replace(tube_code="W8JPVM8V7R1"), contract=TUBELESS) is Quarantine.TUBE_MISMATCH


@given(
    st.builds(
        Reported,
        st.sampled_from([None, TUBE, OTHER_TUBE, "W8JPVM8V7R1"]),
        st.sampled_from(Test),
        st.sampled_from(Site),
        st.sampled_from([None, SENT, NOW, NOW + timedelta(days=3)]),
        st.sampled_from([None, SENT, NOW, NOW + timedelta(days=3)]),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    )
)
def test_whatever_passes_has_the_right_tube_birth_date_test_and_site(row: Reported) -> None:
    if reason(row) is None:
        assert row.tube_code is not None
        assert KIT.requested[(row.test, row.site)] == row.tube_code
        assert row.born_known
        assert row.born_agrees
        assert row.family_agrees or not row.family_known
