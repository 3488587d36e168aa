"""Why something waits: in words for whoever must do something, and when the file is wrong and not its rows."""

import re

import pytest

from models.rules.quarantine import SENTENCES, is_too_many
from models.rules.vocabulary import Quarantine


def test_every_quarantine_word_has_its_two_sentences():
    assert set(SENTENCES) == set(Quarantine)


@pytest.mark.parametrize("reason", Quarantine)
def test_each_sentence_is_whole_and_tells_the_lab_what_to_do(reason):
    for sentence in SENTENCES[reason]:
        assert re.fullmatch(r"[A-Z].{10,}\.", sentence)
    assert ":" in SENTENCES[reason].lab or ". " in SENTENCES[reason].lab


@pytest.mark.parametrize(
    ("quarantined", "results", "stopped"),
    [(20, 100, False), (21, 100, True), (99, 99, False), (0, 100, False), (200_001, 1_000_000, True)],
)
def test_a_file_is_wrong_where_more_than_a_fifth_of_a_hundred_results_or_more_can_not_be_used(
    quarantined, results, stopped
):
    assert is_too_many(quarantined, results, 20) is stopped
