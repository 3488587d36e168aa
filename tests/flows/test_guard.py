"""What leaves a flow that fails: a code and a reference, and never what it was about."""

import logging
import pickle
import re

import cloudpickle
import pytest
import sqlalchemy as sa

from flows.guard import FlowError, guarded
from models.rules.errors import Code, ServiceError

NUMBER = "+447700900123"


@guarded("ingest-results")
def fail_with(error: Exception) -> None:
    raise error


def failure_of(error: Exception) -> FlowError:
    with pytest.raises(FlowError) as failed:
        fail_with(error)
    return failed.value


def test_a_surprise_leaves_as_a_code_and_a_reference():
    assert re.fullmatch(r"unexpected [0-9a-f]{8}", str(failure_of(ValueError(NUMBER))))


def test_an_expected_failure_keeps_its_code():
    assert failure_of(ServiceError(Code.STORE_DOWN, "The file store does not answer.")).code is Code.STORE_DOWN


def test_the_first_error_does_not_ride_along():
    failure = failure_of(ValueError(NUMBER))

    assert failure.__cause__ is None
    assert failure.__context__ is None


def test_a_pickled_failure_holds_no_personal_data_and_opens_again():
    packed = cloudpickle.dumps(failure_of(ValueError(NUMBER)))

    assert NUMBER.encode() not in packed
    assert pickle.loads(packed).code is Code.UNEXPECTED


def test_our_log_says_where_it_failed_under_the_same_reference_and_not_with_what(caplog):
    with caplog.at_level(logging.ERROR, "kitpost"):
        failure = failure_of(ValueError(NUMBER))

    assert failure.ref in caplog.text
    assert "ValueError at test_guard.py" in caplog.text
    assert NUMBER not in caplog.text


def test_a_refused_row_shows_its_sqlstate_and_none_of_its_values(db, caplog):
    @guarded("take-orders")
    def store_twice() -> None:
        with db.engine.begin() as connection:
            connection.execute(sa.text("CREATE TEMPORARY TABLE held (mobile text UNIQUE)"))
            connection.execute(sa.text("INSERT INTO held VALUES (:mobile), (:mobile)"), {"mobile": NUMBER})

    with caplog.at_level(logging.ERROR, "kitpost"), pytest.raises(FlowError) as failed:
        store_twice()

    assert "IntegrityError 23505" in caplog.text
    assert NUMBER not in caplog.text + str(failed.value)


def test_what_a_flow_returns_comes_through():
    assert guarded("reconcile")(lambda limit: limit + 1)(1) == 2
