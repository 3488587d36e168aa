"""A row with nothing in it, and the check that every reader makes on a row's text."""

from typing import Final

from models.rules.lab import Fault, LabRow
from models.rules.vocabulary import Quarantine

BLANK_ROW: Final = LabRow(
    position=0,
    row_key="0",
    test_codes=(),
    sub_id="",
    value_type="",
    value_raw=(),
    value_codes=(),
    units="",
    flags_raw=(),
    row_status_raw="",
    tested_raw="",
    sampled_raw="",
    notes=(),
    fault=None,
    order_no=0,
    accession="",
    panel_codes=(),
    kit_refs=(),
    tube_refs=(),
    sites_raw=(),
    report_status_raw="",
    collected_raw="",
    received_raw="",
    authorised_raw="",
    order_notes=(),
    parent_ref="",
    reject_raw=(),
    revision_raw="",
    has_person=False,
    family_name="",
    dob="",
    nhs_number="",
    person_notes=(),
)


def held_if_damaged(row: LabRow) -> LabRow:
    """The row, held if a replacement character stands in an id, name, code or value (lab-messages.md 2.5)."""
    told = (
        row.test_codes,
        row.value_raw,
        row.value_codes,
        row.sites_raw,
        row.kit_refs,
        row.tube_refs,
        row.family_name,
        row.dob,
        row.accession,
    )
    if "\ufffd" not in repr(told):
        return row
    return row._replace(fault=Fault(Quarantine.ENCODING, "An id, name, code or value holds replacement characters."))
