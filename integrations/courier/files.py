"""Files for a service without an account at its courier's API: parcels out, numbers back.

The first is what Click & Drop imports (name, address, our reference), the second what it exports. Royal Mail's form
takes Roman letters only, so names come folded; our own label keeps them as they are (sms-and-post.md B1).
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from models.rules.errors import Code, ServiceError
from models.rules.postage import PostPolicy, Recipient

COLUMNS: Final = (
    "Order reference",
    "Full name",
    "Address line 1",
    "Address line 2",
    "Address line 3",
    "City",
    "Postcode",
    "Country",
    "Weight (kg)",
    "Package size",
    "Service code",
)
REFERENCE: Final = "order reference"
NUMBER: Final = "tracking number"

SIZES: Final = {
    "letter": "Letter",
    "largeLetter": "Large Letter",
    "smallParcel": "Small Parcel",
    "mediumParcel": "Medium Parcel",
    "parcel": "Parcel",
    "documents": "Documents",
}
"""The API's words as the form's."""

_LINES: Final = 3
_NUMBER: Final = re.compile(r"[A-Z0-9]{8,40}")
_FORMULA: Final = "=+-@\t\r"
"""A spreadsheet would reckon with a cell that begins so."""


def write_parcels(parcels: Iterable[tuple[str, Recipient]], policy: PostPolicy) -> bytes:
    """One line a parcel, by our reference: UTF-8 with a mark, as spreadsheets want it. Nothing says what is inside."""
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet)
    writer.writerow(COLUMNS)
    for reference, to in parcels:
        lines = [*to.lines, *[""] * (_LINES - len(to.lines))]
        size = SIZES.get(policy.format, policy.format)
        cells = (
            reference,
            to.name,
            *lines,
            to.town,
            to.postcode,
            "United Kingdom",
            f"{policy.weight_grams / 1000:.3f}",
        )
        writer.writerow([cell.lstrip(_FORMULA) for cell in (*cells, size, policy.service_code)])
    return sheet.getvalue().encode("utf-8-sig")


@dataclass(frozen=True, slots=True)
class NumberRow:
    """One parcel's number as the courier's file has it. With a fault neither is to be used."""

    line: int
    reference: str = ""
    number: str = ""
    fault: str = ""
    """Field and what to do; the value is not repeated."""


def read_numbers(content: bytes) -> Iterator[NumberRow]:
    """Every line of a courier's export that says something.

    Raises ServiceError(BAD_INPUT) for a file that is no such export: not UTF-8, or without the two columns.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ServiceError(Code.BAD_INPUT, "The file is not UTF-8: export it as CSV UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in (REFERENCE, NUMBER) if name not in header]:
            raise ServiceError(Code.BAD_INPUT, f"The file has no column '{missing[0]}': export it with that column.")
        reference_at, number_at = header.index(REFERENCE), header.index(NUMBER)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _row(reader.line_num, cells, reference_at, number_at)
    except csv.Error:
        raise ServiceError(Code.BAD_INPUT, "A line of the file is no CSV: export it again.") from None


def _row(line: int, cells: list[str], reference_at: int, number_at: int) -> NumberRow:
    if len(cells) <= max(reference_at, number_at):
        return NumberRow(line, fault="the line is shorter than the header")
    reference = re.sub(r"[\s-]", "", cells[reference_at]).upper()
    number = re.sub(r"\s", "", cells[number_at]).upper()
    if not reference:
        return NumberRow(line, fault="Order reference: is empty")
    if not _NUMBER.fullmatch(number):
        return NumberRow(line, fault="Tracking number: must be 8 to 40 letters and digits")
    return NumberRow(line, reference, number)
