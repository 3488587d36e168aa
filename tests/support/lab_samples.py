"""The sixteen people of tests/golden/lab and the kits they were sent, as its README lists them."""

import secrets
from datetime import UTC, date, datetime
from typing import Final

from sqlmodel import Session

from models.actions.service import keep_service_version
from models.rules.kit import KitState, normalise_kit_code
from models.rules.person import fold_name
from models.rules.secrets import KIT_BORN, KIT_FAMILY, kit_born, kit_family
from models.rules.vocabulary import SITE_OF, Specimen, Test
from models.tables.kit import Kit, KitIdentity, KitSample, KitTest, PrintBatch
from models.tables.order import OrderDecision, OrderOutcome
from tests.support import build

SENT: Final = datetime(2026, 10, 26, 15, tzinfo=UTC)

SWAB: Final = (Test.CHLAMYDIA, Test.GONORRHOEA)
HIV_SYPHILIS: Final = (Test.HIV, Test.SYPHILIS)
ALL_BLOOD: Final = (*HIV_SYPHILIS, Test.HEPATITIS_B, Test.HEPATITIS_C)

Tubes = tuple[tuple[str, Specimen, tuple[Test, ...]], ...]

VAGINAL: Final = ("1", Specimen.VULVOVAGINAL_SWAB, SWAB)
URINE: Final = ("1", Specimen.FIRST_CATCH_URINE, SWAB)
BLOOD: Final = ("2", Specimen.CAPILLARY_BLOOD, HIV_SYPHILIS)

PEOPLE: Final[tuple[tuple[str, str, str, str, str, str, Tubes], ...]] = (
    ("T4J-WW7-5K3Y", "Oriel", "Fernsby", "1999-02-14", "101", "NORTHLAB", (VAGINAL, BLOOD)),
    ("W8J-PVM-8V7R", "Tobin", "Quillmere", "1988-06-30", "102", "NORTHLAB", (URINE, ("2", Specimen.RECTAL_SWAB, SWAB))),
    ("YRK-TMT-F8RN", "Wren", "Larkspire", "2001-09-09", "103", "NORTHLAB", (VAGINAL, BLOOD)),
    ("XP3-W45-W4PP", "Ansel", "Pemberwick", "1995-11-22", "104", "NORTHLAB", (URINE,)),
    (
        "XR2-2MH-TR4V", "Maris", "Holloworth", "1979-03-05", "105", "NORTHLAB",
        (VAGINAL, ("2", Specimen.CAPILLARY_BLOOD, (*HIV_SYPHILIS, Test.HEPATITIS_B))),
    ),
    ("KWV-5X9-XPV5", "Piers", "Dunnaway", "1992-05-17", "106", "NORTHLAB", (("1", *BLOOD[1:]),)),
    (
        "5DT-PRK-5DWC", "Tamsin", "Ashgrovel", "1997-08-26", "148", "NORTHLAB",
        (VAGINAL, ("2", Specimen.CAPILLARY_BLOOD, (Test.HIV,))),
    ),
    ("WT7-CF5-NY2C", "Perrin", "Greyfold", "1998-06-12", "108", "NORTHLAB", (VAGINAL,)),
    ("N7X-YHF-PK6Y", "Cass", "O'Dunmere", "1985-04-03", "109", "NORTHLAB", (URINE,)),
    (
        "J49-MKC-C2CM", "Milo", "Sandover", "1994-02-28", "110", "SOUTHVALE",
        (URINE, ("2", Specimen.PHARYNGEAL_SWAB, SWAB), ("3", Specimen.RECTAL_SWAB, SWAB), ("4", *BLOOD[1:])),
    ),
    (
        "D47-CY6-CMNF", "Edda", "Crosswaite", "1981-12-01", "111", "SOUTHVALE",
        (URINE, ("2", Specimen.CAPILLARY_BLOOD, ALL_BLOOD)),
    ),
    ("PN4-45V-697T", "Rafe", "Tallinder", "2000-09-07", "112", "QUAYSIDE", (URINE,)),
    ("7FY-77M-J3H4", "Una", "Wexcombe", "1976-01-19", "113", "QUAYSIDE", (BLOOD,)),
    ("FX6-DRK-PDN8", "Juno", "Brackwell", "1986-04-01", "114", "NORTHLAB", (VAGINAL,)),
    ("VXK-HYK-RNM2", "Corin", "Thistledown", "2003-07-19", "115", "NORTHLAB", (URINE,)),
    ("M3P-3CJ-44TC", "Elspet", "Marrowby", "1990-01-31", "116", "NORTHLAB", (VAGINAL,)),
)  # fmt: skip

FAMILY_OF: Final = {normalise_kit_code(code): family for code, _, family, *_ in PEOPLE}


def seed(session: Session) -> None:
    """Every person and kit of the samples, dispatched before the first sample was taken."""
    version_id = keep_service_version(session, "larkfield", {"seeded": "for tests"})
    batch = PrintBatch(
        ref=secrets.token_hex(16), service_id="larkfield", kits=len(PEOPLE), claimed_until=SENT, created_at=SENT
    )
    session.add(batch)
    session.flush()
    for shown, given, family, born, mobile, lab, tubes in PEOPLE:
        code = normalise_kit_code(shown)
        assert code is not None
        of = build.person(session, given_name=given, family_name=family, date_of_birth=born)
        to = build.contact(session, of, mobile=f"+447700900{mobile}", mobile_proved_at=SENT)
        placed = build.order(session, of=of, to=to, received_at=SENT)
        decision = OrderDecision(
            order_id=placed.id,
            service_id="larkfield",
            outcome=OrderOutcome.ACCEPTED,
            reasons=["accepted"],
            told="accepted",
            rule_version="order-1",
            service_version_id=version_id,
            actor=build.ACTOR,
            decided_at=SENT,
        )
        session.add(decision)
        session.flush()
        placed.current_decision_id = decision.id
        kit = Kit(
            service_id="larkfield",
            code=code,
            order_id=placed.id,
            person_id=of.id,
            contact_id=to.id,
            lab=lab,
            state=KitState.DISPATCHED,
            batch_id=batch.id,
            expires_on=date(2027, 10, 26),
            due_back_on=date(2026, 12, 25),
            dispatched_at=SENT,
            created_at=SENT,
        )
        session.add(kit)
        session.flush()
        assert kit.id is not None
        indexes = build.indexes()
        session.add(
            KitIdentity(
                kit_id=kit.id,
                key_version=indexes.current_version,
                date_of_birth=indexes.index(KIT_BORN, "larkfield", kit_born(code, born)),
                family_name=indexes.index(KIT_FAMILY, "larkfield", kit_family(code, fold_name(family))),
            )
        )
        for digit, specimen, tests in tubes:
            session.add(KitSample(kit_id=kit.id, tube_code=code + digit, specimen=specimen))
            session.add_all(
                KitTest(kit_id=kit.id, test=test, site=SITE_OF[specimen], tube_code=code + digit) for test in tests
            )
