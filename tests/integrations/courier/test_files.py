"""Parcels for a courier's import, and numbers from its export."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.courier.files import NumberRow, read_numbers, write_parcels
from models.rules.errors import ServiceError
from models.rules.postage import PostPolicy, recipient, roman

POLICY = PostPolicy(weight_grams=240, service_code="TPN24")
LINE = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=40).filter(str.strip)


def cells(content):
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_a_parcel_is_one_line_that_says_where_and_nothing_else():
    to = recipient("Siân Ŵyn", ("Flat 2", "17 Llŷn Road", "Larkfield"), "E8 1AA")
    assert cells(write_parcels([("2VXK7M3HDNQP", to)], POLICY)) == [
        {
            "Order reference": "2VXK7M3HDNQP",
            "Full name": "Sian Wyn",
            "Address line 1": "Flat 2",
            "Address line 2": "17 Llyn Road",
            "Address line 3": "",
            "City": "Larkfield",
            "Postcode": "E8 1AA",
            "Country": "United Kingdom",
            "Weight (kg)": "0.240",
            "Package size": "Large Letter",
            "Service code": "TPN24",
        }
    ]


def test_a_name_that_a_spreadsheet_would_reckon_with_is_only_a_name():
    to = recipient("=HYPERLINK(1)", ("+1 Road", "Larkfield"), "E8 1AA")
    [row] = cells(write_parcels([("2VXK7M3HDNQP", to)], POLICY))
    assert (row["Full name"], row["Address line 1"]) == ("HYPERLINK(1)", "1 Road")


@given(LINE, st.lists(LINE, min_size=2, max_size=5))
def test_no_word_of_an_address_is_lost_in_any_number_of_lines(name, lines):
    to = recipient(name, lines, "E8 1AA")
    assert len(to.lines) <= 3
    assert ", ".join((*to.lines, to.town)) == ", ".join(map(roman, lines))


def test_an_address_of_one_line_has_no_town():
    assert recipient("A Name", ("1 High Street",), "E8 1AA") is None


def test_numbers_are_read_by_the_names_of_their_columns():
    content = b"Tracking number,Order Reference,Channel\nOT 0000 1001 7GB,2vxk-7m3h-dnqp,shop\n,,\n"
    assert list(read_numbers(content)) == [NumberRow(2, "2VXK7M3HDNQP", "OT000010017GB")]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b",OT000010017GB", "Order reference: is empty"),
        (b"2VXK7M3HDNQP,", "Tracking number: must be 8 to 40 letters and digits"),
        (b"2VXK7M3HDNQP,AB-12", "Tracking number: must be 8 to 40 letters and digits"),
        (b"2VXK7M3HDNQP", "the line is shorter than the header"),
    ],
)
def test_a_line_that_cannot_be_used_names_its_field_and_the_next_is_read(line, fault):
    content = b"Order reference,Tracking number\n" + line + b"\n2VXK7M3HDNQR,OT000010027GB\n"
    assert list(read_numbers(content)) == [NumberRow(2, fault=fault), NumberRow(3, "2VXK7M3HDNQR", "OT000010027GB")]


@pytest.mark.parametrize("content", [b"", b"Order reference\nx\n", "Größe\n".encode("latin-1")])
def test_a_file_that_is_no_export_is_refused_with_what_to_do(content):
    with pytest.raises(ServiceError, match="export it"):
        list(read_numbers(content))


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_one_clear_refusal(content):
    try:
        rows = list(read_numbers(b"Order reference,Tracking number\n" + content))
    except ServiceError:
        return
    assert all(bool(row.fault) != bool(row.number) for row in rows)
