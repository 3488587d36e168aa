"""A slice of the mutation proof for every day: see tests/proof/test_mutations.py."""

import pytest

from tests.support.mutants import FORMS
from tests.support.mutations import check_mutants


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_no_file_with_one_spoilt_field_tells_more_than_it_may(begin, form):
    assert check_mutants(begin, form, seed=7, every=6) >= 12
