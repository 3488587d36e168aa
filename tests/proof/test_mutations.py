"""File -> store -> database: no file with one spoilt field tells anybody more than it may (ruling 20; H1-H4)."""

import pytest

from tests.support.mutants import FORMS
from tests.support.mutations import check_mutants, check_senders

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]


FEWEST = {"hl7": 500, "long table": 500, "wide table": 240, "quoted table": 300, "fhir": 300}


@pytest.mark.parametrize(
    ("form", "seed"),
    [
        pytest.param(form, seed, id=f"{form.name} {seed}")
        for form in FORMS
        for seed in range(1 if form.kits_a_file == 1 else 3)
    ],
)
def test_no_file_with_one_spoilt_field_tells_more_than_it_may_and_every_control_is_released(begin, form, seed):
    tried = check_mutants(begin, form, seed=seed)

    assert tried >= FEWEST[form.name]


def test_no_file_of_an_unknown_sender_is_used(begin):
    assert check_senders(begin) >= 20
