"""The audit is sealed, block after block, behind those who write it (law 10)."""

import logging
from typing import Final

from prefect import flow

from app.audit_seals import seal_waiting
from app.wiring import connect
from flows.guard import guarded

log: Final = logging.getLogger("kitpost")


@flow(name="seal-audit", retries=0)
@guarded("seal-audit")
def seal_audit() -> None:
    """Seals the audit, and keeps each seal outside the database."""
    product = connect()
    log.info("seal-audit: %d entries", seal_waiting(product.begin, product.store))
