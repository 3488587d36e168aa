"""Thousands of dispatched kits in a second: each person's order accepted, each kit on its way to a lab."""

import secrets
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Final, NamedTuple

from sqlmodel import Session

from app.database import Begin
from models.actions.service import keep_service_version
from models.rules.kit import new_kit_code
from models.rules.order import write_address
from models.rules.person import fold_name
from models.rules.secrets import KIT_BORN, KIT_FAMILY, MOBILE, kit_born, kit_family
from models.tables.bulk import as_json, copy, next_ids
from models.tables.kit import BatchState, PrintBatch
from tests.support import build
from tests.support.lab_files import HL7, Row, Spelling, negative_rows

SERVICE: Final = "larkfield"
SENT: Final = datetime(2026, 10, 26, 15, tzinfo=UTC)
"""Before anything was collected."""


class Sent(NamedTuple):
    """One dispatched kit: urine for chlamydia and gonorrhoea (tube 1), blood for HIV and syphilis (tube 2)."""

    id: int
    code: str
    family: str
    born: str
    lab: str

    def rows(self, spelling: Spelling = HL7, **changes: Any) -> list[Row]:
        """Its four results, all negative and final, with any field of every row changed."""
        return [row._replace(**changes) for row in negative_rows(self.code, self.family, self.born, spelling=spelling)]


def send_kits(session: Session, count: int, *, lab: str = "NORTHLAB", seed: int = 1, **person: Any) -> list[Sent]:
    """Dispatches this many kits to new people. `person` may fix `born` or `family` for all of them."""
    return list(_send(session, count, lab, Random(f"{lab}{seed}"), person))


def _send(session: Session, count: int, lab: str, chance: Random, fixed: dict[str, Any]) -> Iterator[Sent]:
    ids = {
        table: next_ids(session, table, count)
        for table in ("person", "contact", "inbox", "kit_order", "order_decision", "kit")
    }
    version_id = keep_service_version(session, SERVICE, {"seeded": "for tests"})
    batch = PrintBatch(
        ref=secrets.token_hex(16),
        service_id=SERVICE,
        kits=count,
        claimed_until=SENT,
        created_at=SENT,
        state=BatchState.RELEASED,
    )
    session.add(batch)
    session.flush()
    lock, indexes = build.cipher(), build.indexes()
    index_version = indexes.current_version
    kits = [
        Sent(
            kit_id,
            new_kit_code(chance.choice),
            fixed.get("family") or "Kit" + "".join(chance.choices("abcdefghij", k=5)),
            fixed.get("born") or f"{date(1970, 1, 1) + timedelta(days=chance.randrange(12_000))}",
            lab,
        )
        for kit_id in ids["kit"]
    ]
    rows: dict[str, list[tuple[object, ...]]] = {}

    def put(table: str, *values: object) -> None:
        rows.setdefault(table, []).append(values)

    home = write_address(build.HOME)
    for person_id, contact_id, inbox_id, order_id, decision_id, kit in zip(
        ids["person"], ids["contact"], ids["inbox"], ids["kit_order"], ids["order_decision"], kits, strict=True
    ):
        ref = secrets.token_hex(16)
        mobile = f"+447{kit.id:09d}"
        plain = {"given_name": "Testina", "family_name": kit.family, "date_of_birth": kit.born, "residence": home}
        put("person", person_id, SERVICE, ref, *(lock.encrypt("person", name, ref, it) for name, it in plain.items()))
        put("mobile_holder", SERVICE, index_version, indexes.index(MOBILE, SERVICE, mobile), person_id)
        put(
            "contact", contact_id, SERVICE, person_id, ref, lock.encrypt("contact", "mobile", ref, mobile), SENT,
            "one_time_code", lock.encrypt("contact", "delivery_address", ref, home), *_CONSENTS, "", "en", "named",
        )  # fmt: skip
        body = lock.encrypt("inbox", "body", ref, "{}")
        put("inbox", inbox_id, ref, "order", SERVICE, f"web|{ref}", secrets.token_bytes(32), body, "done", "", SENT)
        put(
            "kit_order", order_id, SERVICE, ref, "web", ref, inbox_id, person_id, contact_id, "E09000001", as_json({}),
            decision_id, SENT,
        )  # fmt: skip
        put(
            "order_decision", decision_id, order_id, SERVICE, "accepted", ["accepted"], "accepted", "order-1",
            version_id, build.ACTOR, "", SENT,
        )  # fmt: skip
        put(
            "kit", kit.id, SERVICE, kit.code, order_id, person_id, contact_id, kit.lab, "dispatched", batch.id,
            date(2027, 10, 26), date(2026, 12, 25), SENT, "", SENT,
        )  # fmt: skip
        put(
            "kit_identity", kit.id, index_version, indexes.index(KIT_BORN, SERVICE, kit_born(kit.code, kit.born)),
            indexes.index(KIT_FAMILY, SERVICE, kit_family(kit.code, fold_name(kit.family))),
        )  # fmt: skip
        for digit, specimen, site, tests in (
            ("1", "first_catch_urine", "urine", ("chlamydia", "gonorrhoea")),
            ("2", "capillary_blood", "blood", ("hiv", "syphilis")),
        ):
            put("kit_sample", kit.id, kit.code + digit, specimen)
            for test in tests:
                put("kit_test", kit.id, test, site, kit.code + digit)
    for table, columns in _COLUMNS.items():
        copy(session, table, columns.split(), rows[table])
    yield from kits


def share_an_address(begin: Begin, *kits: Sent) -> None:
    """Makes one household of these kits' people."""
    digest = secrets.token_bytes(32)
    with begin() as session:
        for kit in kits:
            session.connection().exec_driver_sql(
                "INSERT INTO person_index (person_id, service_id, domain, key_version, digest)"
                " SELECT person_id, service_id, 'address', 1, %(digest)s FROM kit WHERE id = %(id)s",
                {"digest": digest, "id": kit.id},
            )


_CONSENTS: Final = (True, True, True)
"""To texts, voicemail and letters."""

_COLUMNS: Final = {
    "person": "id service_id ref given_name family_name date_of_birth residence",
    "mobile_holder": "service_id key_version digest person_id",
    "contact": "id service_id person_id ref mobile mobile_proved_at mobile_proved_how delivery_address text_consent "
    "voicemail_consent letter_consent safe_times language wording",
    "inbox": "id ref kind service_id key content_hmac body state reason received_at",
    "kit_order": "id service_id ref channel channel_ref inbox_id person_id contact_id authority answers "
    "current_decision_id received_at",
    "order_decision": "id order_id service_id outcome reasons told rule_version service_version_id actor because "
    "decided_at",
    "kit": "id service_id code order_id person_id contact_id lab state batch_id expires_on due_back_on dispatched_at "
    "closed_reason created_at",
    "kit_identity": "kit_id key_version date_of_birth family_name",
    "kit_sample": "kit_id tube_code specimen",
    "kit_test": "kit_id test site tube_code",
}
"""In an order that foreign keys allow."""
