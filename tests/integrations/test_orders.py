"""Orders from outside: good ones are read, bad ones get one sentence that names the field. Nobody here exists."""

import csv
import io
import json
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.orders import (
    EXAMPLE,
    FIELDS,
    REQUIRED,
    BadRow,
    Fault,
    GoodRow,
    OrderIn,
    OrderUnreadable,
    parse_order,
    read_csv,
    read_json_lines,
    read_order,
)
from models.rules.errors import ServiceError
from models.rules.order import Address, Order, Safeguarding, SafeTime
from models.rules.panel import BodyPart, Exposure
from models.rules.phone import Mobile
from models.rules.service import CollectionPoint, CollectionPolicy, OrderPolicy

TODAY = date(2026, 11, 24)


def json_order(**changes: object) -> bytes:
    values = {**EXAMPLE, **changes}
    return json.dumps({name: value for name, value in values.items() if value is not ...}).encode()


def csv_file(*rows: dict[str, object], header: list[str] | None = None) -> io.BytesIO:
    out = io.StringIO()
    names = header or list(EXAMPLE)
    writer = csv.writer(out)
    writer.writerow(names)
    for changes in rows:
        values = {**EXAMPLE, **changes}
        writer.writerow([as_cell(values.get(name, "")) for name in names])
    return io.BytesIO(out.getvalue().encode())


def as_cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ";".join(value) if isinstance(value, list) else value


def faults_of(body: bytes) -> dict[str, str]:
    with pytest.raises(OrderUnreadable) as caught:
        parse_order(body)
    return {fault.field: fault.sentence for fault in caught.value.faults}


def understood(order_in: OrderIn, *, allow_test_numbers: bool = True) -> Order:
    return read_order(order_in, today=TODAY, policy=OrderPolicy(), allow_test_numbers=allow_test_numbers)


def faults_in_meaning(*, allow_test_numbers: bool = True, **changes: object) -> dict[str, str]:
    with pytest.raises(OrderUnreadable) as caught:
        understood(parse_order(json_order(**changes)), allow_test_numbers=allow_test_numbers)
    return {fault.field: fault.sentence for fault in caught.value.faults}


def faults_in(body: bytes) -> tuple[Fault, ...]:
    try:
        parse_order(body)
    except OrderUnreadable as unreadable:
        return unreadable.faults
    return ()


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────


def test_the_published_example_is_a_good_order() -> None:
    order = understood(parse_order(json_order()))

    assert order == Order(
        given_name="Testina",
        family_name="Kit",
        date_of_birth=date(1998, 4, 23),
        mobile=Mobile("+447700900123"),
        mobile_proved_at=datetime(2026, 11, 24, 9, 58, tzinfo=UTC),
        mobile_proved_how="one_time_code",
        residence=Address(("1 Invented Row", "Leeds"), "LS1 4AP"),
        delivery=Address(("1 Invented Row", "Leeds"), "LS1 4AP"),
        body=frozenset({BodyPart.VAGINA}),
        exposures=frozenset({Exposure.RECEPTIVE_ORAL}),
        last_risk_on=date(2026, 11, 1),
        text_consent=True,
        safe_times=frozenset({SafeTime.MORNING, SafeTime.EVENING}),
        safeguarding=Safeguarding(),
    )


COUNTERS = CollectionPolicy(points=(CollectionPoint("market", "Pharmacy", ("22 Market Street",), "LS1 4AP", "Market"),))


def at_a_counter(**changes: object) -> Order:
    order_in = parse_order(json_order(collect_from="market", **changes))
    return read_order(order_in, today=TODAY, policy=OrderPolicy(), allow_test_numbers=True, collection=COUNTERS)


def test_a_kit_for_a_counter_goes_to_the_counters_address() -> None:
    order = at_a_counter()

    assert (order.collect_from, order.delivery) == ("market", Address(("22 Market Street",), "LS1 4AP"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"collect_from": "moon"}, "There is no such collection point"),
        ({"delivery_line_1": "1 A Row", "delivery_postcode": "LS1 4AP"}, "not both"),
        ({"text_consent": False}, "Its code goes by text"),
    ],
)
def test_a_counter_that_can_not_be_is_a_fault_of_its_field(changes: dict[str, object], says: str) -> None:
    order_in = parse_order(json_order(**{"collect_from": "market", **changes}))
    with pytest.raises(OrderUnreadable) as caught:
        read_order(order_in, today=TODAY, policy=OrderPolicy(), allow_test_numbers=True, collection=COUNTERS)
    assert [(fault.field, says in fault.sentence) for fault in caught.value.faults] == [("collect_from", True)]


def test_an_order_without_a_counter_is_the_order_that_it_was_before_there_were_any() -> None:
    assert b"collect_from" not in parse_order(json_order()).canonical()
    assert b"collect_from" in parse_order(json_order(collect_from="market")).canonical()


def test_a_delivery_address_of_its_own_is_kept_apart_from_the_residence() -> None:
    order = understood(parse_order(json_order(delivery_line_1="9 Collect Lane", delivery_postcode="sw1a1aa")))

    assert order.delivery == Address(("9 Collect Lane",), "SW1A 1AA")
    assert order.residence.postcode == "LS1 4AP"


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_left_out_is_named(name: str) -> None:
    assert faults_of(json_order(**{name: ...})) == {name: "This field is required."}


def test_an_unknown_field_is_named_and_nothing_is_taken() -> None:
    assert faults_of(json_order(hiv_status="no")) == {
        "hiv_status": "This field is not part of an order: check its spelling, or leave it out."
    }


@pytest.mark.parametrize(
    "written", ["1998-02-30", "23/04/1998", "19980423", "893289600", 893_289_600.0, "1998-04-23T00:00:00"]
)
def test_a_date_of_birth_in_another_form_or_that_never_was_is_never_guessed(written: object) -> None:
    assert faults_of(json_order(date_of_birth=written)) == {"date_of_birth": "Give a date that exists, as YYYY-MM-DD."}


@pytest.mark.parametrize("written", ["2026-11-24T09:58:00", "1700000000", 1_700_000_000.0, "2026-11-24", "yesterday"])
def test_a_moment_without_its_offset_is_never_guessed(written: object) -> None:
    assert list(faults_of(json_order(mobile_proved_at=written))) == ["mobile_proved_at"]


@pytest.mark.parametrize("written", ["yes", 1, None, "false"])
def test_an_answer_in_json_is_true_or_false_and_nothing_else(written: object) -> None:
    assert faults_of(json_order(known_hiv=written)) == {"known_hiv": "Answer true or false (in CSV: yes or no)."}


def test_a_word_outside_the_list_is_answered_with_the_list() -> None:
    assert faults_of(json_order(body_parts=["womb"])) == {"body_parts": "Use only these words: vagina, penis."}


@pytest.mark.parametrize("name", ["given_name", "family_name", "residence_line_1"])
@pytest.mark.parametrize("written", ["", "   ", "a\nb", "a\x00b", "x" * 101, 7])
def test_a_name_or_address_line_is_one_line_of_plain_text(name: str, written: object) -> None:
    assert list(faults_of(json_order(**{name: written}))) == [name]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff\xfe", b'"x"', b"[" * 100_000, b'{"known_hiv": NaN}'])
def test_what_is_no_json_object_is_refused_in_one_sentence(body: bytes) -> None:
    with pytest.raises(OrderUnreadable) as caught:
        parse_order(body)

    assert caught.value.faults


def test_an_answer_given_twice_is_no_answer() -> None:
    twice = json_order()[:-1] + b', "known_hiv": true}'

    assert list(faults_of(twice)) == ["order"]


def test_the_meaning_of_an_order_does_not_depend_on_how_it_is_spelled() -> None:
    one = parse_order(json_order(exposures=["receptive_anal", "receptive_oral"]))
    other = parse_order(
        json.dumps({**dict(reversed(EXAMPLE.items())), "exposures": ["receptive_oral", "receptive_anal"]}).encode()
    )

    assert one.canonical() == other.canonical()


@pytest.mark.parametrize(
    ("name", "value"), [("known_hiv", True), ("family_name", "Other"), ("last_risk_on", "2026-11-02")]
)
def test_another_answer_is_another_meaning(name: str, value: object) -> None:
    assert parse_order(json_order(**{name: value})).canonical() != parse_order(json_order()).canonical()


def test_what_is_kept_of_an_order_reads_back_as_the_same_order() -> None:
    order_in = parse_order(json_order())

    assert parse_order(order_in.canonical()) == order_in


@given(st.dictionaries(st.sampled_from(FIELDS), st.text() | st.integers() | st.booleans() | st.none(), max_size=6))
def test_whatever_stands_in_a_field_is_either_read_or_named_and_never_quoted(changes: dict[str, object]) -> None:
    blamed = {fault.field for fault in faults_in(json_order(**changes))}

    assert blamed <= {*changes, "order"}


# ── Meaning ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("born", ["2026-11-25", "1905-11-24"])
def test_a_date_of_birth_that_nobody_alive_can_have_gets_one_sentence(born: str) -> None:
    faults = faults_in_meaning(date_of_birth=born)

    assert list(faults) == ["date_of_birth"]
    assert "Nobody alive was born then" in faults["date_of_birth"]


def test_a_landline_gets_one_sentence() -> None:
    faults = faults_in_meaning(mobile="0113 496 0000")

    assert list(faults) == ["mobile"]
    assert "landline" in faults["mobile"]


def test_a_drama_number_is_for_tests_only() -> None:
    assert list(faults_in_meaning(allow_test_numbers=False)) == ["mobile"]


@pytest.mark.parametrize("which", ["residence", "delivery"])
@pytest.mark.parametrize("written", ["75008", "D02 AF30", "LS1 4AC"])
def test_a_postcode_that_is_not_british_gets_one_sentence(which: str, written: str) -> None:
    faults = faults_in_meaning(**{f"{which}_line_1": "1 Invented Row", f"{which}_postcode": written})

    assert list(faults) == [f"{which}_postcode"]
    assert "not a UK postcode" in faults[f"{which}_postcode"]


@pytest.mark.parametrize(
    ("given_part", "missing_part"),
    [("delivery_line_1", "delivery_postcode"), ("delivery_postcode", "delivery_line_1")],
)
def test_half_a_delivery_address_is_no_delivery_address(given_part: str, missing_part: str) -> None:
    assert list(faults_in_meaning(**{given_part: "LS1 4AP"})) == [missing_part]


def test_all_faults_of_an_order_are_told_at_once() -> None:
    faults = faults_in_meaning(date_of_birth="2030-01-01", mobile="0113 496 0000", residence_postcode="75008")

    assert list(faults) == ["date_of_birth", "mobile", "residence_postcode"]


def test_a_fault_never_quotes_what_the_person_wrote() -> None:
    with pytest.raises(OrderUnreadable) as caught:
        understood(parse_order(json_order(mobile="0113 496 0000", residence_postcode="75008")))

    assert "496" not in str(caught.value)
    assert "75008" not in str(caught.value)


# ── Files ────────────────────────────────────────────────────────────────────────────────────


def test_csv_and_json_of_one_order_mean_the_same() -> None:
    [row] = read_csv(csv_file({}))

    assert isinstance(row, GoodRow)
    assert row.order == parse_order(json_order())


def test_good_rows_are_read_beside_bad_ones_with_line_and_field() -> None:
    rows = list(
        read_csv(
            csv_file(
                {"channel_ref": "a"},
                {"channel_ref": "b", "date_of_birth": "23/04/1998", "symptoms": "maybe"},
                {"channel_ref": "c", "exposures": []},
            )
        )
    )

    assert [(row.line, type(row)) for row in rows] == [(2, GoodRow), (3, BadRow), (4, GoodRow)]
    assert [fault.field for fault in rows[1].faults] == ["date_of_birth", "symptoms"]


def test_a_bad_row_is_kept_as_it_came() -> None:
    file = csv_file({"date_of_birth": "23/04/1998"})
    wanted = file.getvalue().splitlines(keepends=True)[1]

    [row] = read_csv(file)

    assert isinstance(row, BadRow)
    assert row.raw == wanted


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b"Testina", b"Testina,Extra"),
        lambda line: line.replace(b"Testina", b'"Testina'),
        lambda line: line.replace(b"Testina", b"Test\xefna"),
        lambda line: line.replace(b"Testina", b"Test\x00na"),
        lambda line: line[: len(line) // 2] + b"\r\n",
    ],
    ids=["a cell too many", "lone quotation mark", "not UTF-8", "control character", "cut short"],
)
def test_a_malformed_row_spoils_itself_and_not_its_neighbours(spoil) -> None:
    header, first, second = csv_file({}, {"channel_ref": "next"}).getvalue().splitlines(keepends=True)

    rows = list(read_csv(io.BytesIO(header + spoil(first) + second)))

    assert [type(row) for row in rows] == [BadRow, GoodRow]


def test_an_empty_cell_is_a_field_left_out_and_not_a_no() -> None:
    [row] = read_csv(csv_file({"known_hiv": ""}))

    assert isinstance(row, BadRow)
    assert [fault.field for fault in row.faults] == ["known_hiv"]


def test_a_byte_order_mark_and_empty_lines_are_passed_over() -> None:
    file = csv_file({})
    marked = io.BytesIO(b"\xef\xbb\xbf" + file.getvalue() + b"\r\n,,,\r\n")

    assert [type(row) for row in read_csv(marked)] == [GoodRow]


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ([name for name in EXAMPLE if name != "channel_ref"], "channel_ref"),
        ([*EXAMPLE, "shoe_size"], "Not part of an order: 1"),
        ([*EXAMPLE, "mobile"], "twice"),
        (["x"], "Missing"),
    ],
)
def test_a_file_whose_header_is_not_an_orders_is_not_read_at_all(header: list[str], named: str) -> None:
    with pytest.raises(ServiceError, match=named):
        list(read_csv(csv_file({}, header=header)))


def test_an_empty_file_is_refused_and_not_taken_for_no_orders() -> None:
    with pytest.raises(ServiceError, match="no row was read"):
        list(read_csv(io.BytesIO(b"")))


def test_json_lines_are_read_one_by_one() -> None:
    file = io.BytesIO(b"\xef\xbb\xbf" + json_order() + b"\n\n{}\n" + json_order(channel_ref="next"))

    rows = list(read_json_lines(file))

    assert [(row.line, type(row)) for row in rows] == [(1, GoodRow), (3, BadRow), (4, GoodRow)]


def test_a_rows_repr_says_nothing_of_the_person() -> None:
    rows = list(read_csv(csv_file({}, {"date_of_birth": "x"})))

    assert "Testina" not in repr(rows)
