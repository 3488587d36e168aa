"""Keeps every version of a council's choices and of a lab's map, so that each decision can name the one it used."""

import hashlib
import json
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session

from models.tables.service import LabMapVersion, ServiceVersion


def keep_service_version(session: Session, service_id: str, content: Mapping[str, object]) -> int:
    """The id of this very content, stored now if it is new."""
    written = json.dumps(content, sort_keys=True, separators=(",", ":"))
    sha256 = hashlib.sha256(written.encode()).hexdigest()
    values = {"service_id": service_id, "content_sha256": sha256, "content": json.loads(written)}
    return _keep(session, ServiceVersion, values, ("service_id", "content_sha256"))


def keep_lab_map_version(session: Session, lab: str, content_sha256: str) -> int:
    """The id of this version of a lab's map, stored now if it is new."""
    return _keep(session, LabMapVersion, {"lab": lab, "content_sha256": content_sha256}, ("lab", "content_sha256"))


def _keep(
    session: Session,
    table: type[ServiceVersion] | type[LabMapVersion],
    values: dict[str, object],
    key: tuple[str, str],
) -> int:
    session.execute(insert(table).values(values).on_conflict_do_nothing(index_elements=list(key)))
    found = session.execute(
        sa.select(sa.column("id"))
        .select_from(sa.table(table.__tablename__))
        .where(*(sa.column(each) == values[each] for each in key))
    )
    return int(found.scalar_one())
