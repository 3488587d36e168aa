import itertools
import tomllib
from dataclasses import replace
from datetime import date, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.texts.catalogue import LONG_VALUES, NAMED_WHEN_NOT_TESTED, load_catalogue
from models.rules.errors import Code, ServiceError
from models.rules.service import ClinicPolicy
from models.rules.text import (
    AllClear,
    ExpectCall,
    FailedSample,
    FailedTest,
    KitPosted,
    ReturnReminder,
    SwabInfection,
    SwabPositive,
    TellableFailure,
    segments,
)
from models.rules.vocabulary import BLOOD_TESTS, Language, Site, Test, Wording

CATALOGUE = Path(__file__).parents[3] / "templates" / "texts" / "catalogue.toml"
EN, CY = Language.ENGLISH, Language.WELSH
NAMED, DISCREET = Wording.NAMED, Wording.DISCREET
DAY = date(2027, 2, 24)
HIV = (Test.HIV, Site.BLOOD)
URINE = ((Test.CHLAMYDIA, Site.URINE), (Test.GONORRHOEA, Site.URINE))
EVERY = [
    pytest.param(values, language, wording, id=f"{n}-{values.purpose}-{language}-{wording}")
    for n, values in enumerate(LONG_VALUES)
    for language in Language
    for wording in Wording
]


@pytest.fixture(scope="module")
def words(catalogue, service):
    def render(values, language=EN, wording=NAMED, ref="7K3F9X"):
        return catalogue.render(values, language=language, wording=wording, service=service, ref=ref)

    return render


@pytest.mark.parametrize(("values", "language", "wording"), EVERY)
def test_every_text_fits_two_segments_in_its_own_wording(words, catalogue, values, language, wording):
    text = words(values, language, wording)
    assert text.template_key == f"{catalogue.entries[values.purpose].bodies[wording]}.{language}"
    assert text.segments == segments(text.body) <= 2
    assert len(text.body) <= 306, "every text, Welsh too, keeps to GSM-7"


@pytest.mark.parametrize(("values", "language", "wording"), EVERY)
def test_every_text_offers_the_phone_and_ends_with_its_reference(words, service, values, language, wording):
    body = words(values, language, wording).body
    assert body.startswith(service.text_name + ": ")
    assert service.phone in body
    assert body.endswith("7K3F9X")


def test_no_text_says_more_in_its_first_forty_characters_than_that_there_is_one(words):
    """A golden list on purpose: whoever changes an opening looks at what a lock screen will show."""
    openings = {words(v, lang, w).body[:40] for v in LONG_VALUES for lang in Language for w in Wording}
    assert openings == {
        "Harbour Post: your order is ready to col",
        "Harbour Post: mae eich archeb yn barod i",
        "Harbour Post: thank you, we have your or",
        "Harbour Post: your order is on its way b",
        "Harbour Post: your order is taking longe",
        "Harbour Post: this is a reminder about y",
        "Harbour Post: this is a reminder that we",
        "Harbour Post: thank you, your parcel has",
        "Harbour Post: this message is about your",
        "Harbour Post: this is the update you ask",
        "Harbour Post: we have an update about yo",
        "Harbour Post: diolch, mae eich archeb we",
        "Harbour Post: mae eich archeb ar ei ffor",
        "Harbour Post: mae eich archeb yn cymryd ",
        "Harbour Post: neges i'ch atgoffa am eich",
        "Harbour Post: dyma'r neges atgoffa y gwn",
        "Harbour Post: diolch, mae eich parsel we",
        "Harbour Post: neges am eich archeb ddiwe",
        "Harbour Post: diweddariad am eich archeb",
        "Harbour Post: mae gennym ddiweddariad am",
    }


@pytest.mark.parametrize("language", sorted(Language))
def test_a_call_has_the_same_words_as_a_discreet_positive(words, language):
    """Ruling 14, H22: whoever reads it can't tell which of the two it is."""
    for wording, found, so_far in itertools.product(Wording, SwabInfection, (True, False)):
        positive = words(SwabPositive(frozenset({found}), so_far), language, DISCREET)
        assert words(ExpectCall(), language, wording) == positive


@pytest.mark.parametrize("language", sorted(Language))
def test_a_positive_names_what_was_found_and_no_blood_infection(words, catalogue, language):
    body = words(SwabPositive(frozenset(SwabInfection), so_far=False), language).body
    assert ("chlamydia, gonorrhoea" if language is EN else "clamydia, gonorea") in body
    for name in (catalogue._words[language].tests[test] for test in BLOOD_TESTS):
        assert name not in body


def test_a_positive_with_other_results_open_says_so_far(words):
    so_far = words(SwabPositive(frozenset({SwabInfection.CHLAMYDIA}), so_far=True)).body
    whole = words(SwabPositive(frozenset({SwabInfection.CHLAMYDIA}), so_far=False)).body
    assert "so far" in so_far
    assert "so far" not in whole
    assert "gonorrhoea" not in so_far + whole
    assert "clear" not in so_far + whole


def test_a_failed_hiv_sample_beside_negatives_names_both(words):
    """H8: a failed sample is never a negative."""
    body = words(FailedSample((FailedTest(*HIV, TellableFailure.INSUFFICIENT),), URINE, None)).body
    assert "Not tested: HIV. Not enough to test. This is not a negative result." in body
    assert "Not found: chlamydia, gonorrhoea (urine)." in body
    assert "clear" not in body


def test_a_failure_without_negatives_claims_none(words):
    failed = tuple(FailedTest(test, site, TellableFailure.LEAKED) for test, site in (*URINE, HIV))
    body = words(FailedSample(failed, (), None)).body
    assert "Not found" not in body
    assert "The tube leaked." in body


def test_different_reasons_for_failing_are_told_as_one_general_one(words):
    failed = (FailedTest(*HIV, TellableFailure.LEAKED), FailedTest(*URINE[0], TellableFailure.TOO_OLD))
    assert "They could not be used." in words(FailedSample(failed, (), None)).body


def test_an_all_clear_says_what_was_tested_what_was_not_and_from_when_a_risk_would_show(words):
    body = words(AllClear((*URINE, HIV), DAY)).body
    assert "All clear. Not found: chlamydia, gonorrhoea (urine); HIV." in body
    assert "Not tested: syphilis, hepatitis B, hepatitis C, anything else." in body
    assert "A recent infection may not show: test again from 24 February 2027." in body


def test_an_all_clear_without_an_open_window_has_no_caveat(words):
    assert "recent" not in words(AllClear(URINE, None)).body
    assert "order again" not in words(AllClear(URINE, None), EN, DISCREET).body


def test_a_discreet_all_clear_still_says_when_to_come_back(words):
    assert "from 24 February 2027" in words(AllClear(URINE, DAY), EN, DISCREET).body
    assert "o 24 Chwefror 2027" in words(AllClear(URINE, DAY), CY, DISCREET).body


def test_sites_are_listed_for_each_test_on_its_own(words):
    tested = ((Test.CHLAMYDIA, Site.URINE), (Test.CHLAMYDIA, Site.PHARYNGEAL), (Test.GONORRHOEA, Site.URINE))
    assert "chlamydia (urine, throat); gonorrhoea (urine)" in words(AllClear(tested, None)).body


swab_sites = st.sets(st.sampled_from([Site.VAGINAL, Site.RECTAL, Site.PHARYNGEAL]))
bloods = st.sets(st.sampled_from(sorted(BLOOD_TESTS)))


@given(swab_sites, bloods, st.sampled_from(Language))
def test_an_all_clear_lists_exactly_the_requested_set(words, catalogue, sites, blood_tests, language):
    """FEATURES idea 18, over every kit that can be ordered."""
    tested = [(t, s) for t in (Test.CHLAMYDIA, Test.GONORRHOEA) for s in sites] + [(t, Site.BLOOD) for t in blood_tests]
    if not tested:
        return
    text = words(AllClear(tuple(tested), DAY), language)
    assert text.template_key.startswith("all_clear_named")
    names = catalogue._words[language]
    found, missed = text.body.split("Not tested:" if language is EN else "Heb eu profi:")
    assert {t for t in Test if names.tests[t] in found} == {t for t, _ in tested}
    assert {t for t in Test if names.tests[t] in missed} == set(NAMED_WHEN_NOT_TESTED) - {t for t, _ in tested}
    assert {s for s in Site if s is not Site.BLOOD and names.sites[s] in found} == {s for _, s in tested} - {Site.BLOOD}


def test_a_list_too_long_for_open_words_is_never_cut_but_asks_for_a_call(words, catalogue):
    sites = (Site.GENITAL, Site.URINE, Site.VAGINAL, Site.RECTAL, Site.PHARYNGEAL)
    everything = tuple(itertools.product((Test.CHLAMYDIA, Test.TRICHOMONAS, Test.MYCOPLASMA_GENITALIUM), sites))
    text = words(AllClear((*everything, *((t, Site.BLOOD) for t in BLOOD_TESTS)), DAY))
    assert text == words(AllClear(URINE, DAY), EN, DISCREET)


def test_the_last_reminder_says_that_it_is_the_last(words):
    for wording in Wording:
        assert "last reminder" in words(ReturnReminder(DAY, last=True), EN, wording).body
        assert "last reminder" not in words(ReturnReminder(DAY, last=False), EN, wording).body
        assert "olaf" in words(ReturnReminder(DAY, last=True), CY, wording).body
        first = ReturnReminder(DAY, last=False, first=True)
        assert "should be with you by now" in words(first, EN, wording).body
        assert "should be with you by now" not in words(ReturnReminder(DAY, last=False), EN, wording).body
        assert "gyda chi erbyn hyn" in words(first, CY, wording).body


def test_dates_are_written_in_full_in_the_language_of_the_text(words):
    assert "24 February 2027" in words(KitPosted(DAY), EN).body
    assert "24 Chwefror 2027" in words(KitPosted(DAY), CY).body


def test_the_phones_hours_are_the_clinics(catalogue, service):
    early = replace(service, clinic=ClinicPolicy(opens=time(8, 30), closes=time(12)))
    body = catalogue.render(ExpectCall(), language=EN, wording=NAMED, service=early, ref="7K3F9X").body
    assert "8.30am to 12pm, Monday to Friday" in body


@pytest.mark.parametrize("language", sorted(Language))
def test_no_body_speaks_of_a_reaction_or_calls_anything_positive(language):
    bodies = tomllib.loads(CATALOGUE.read_text())["bodies"][language]
    for body in bodies.values():
        assert not {"reactive", "positive", "adweithiol", "positif"} & set(body.lower().split())


def test_the_same_inputs_give_the_same_bytes(words):
    again = load_catalogue(CATALOGUE)
    for values in LONG_VALUES:
        assert words(values) == words(values)
    assert again._versions == load_catalogue(CATALOGUE)._versions


def test_another_reference_makes_another_body(words):
    assert words(ExpectCall(), ref="AAAAAA").body != words(ExpectCall(), ref="BBBBBB").body


def test_a_rendered_text_never_shows_its_words_when_printed(words):
    assert "HIV" not in repr(words(AllClear((HIV,), None)))


def test_every_text_says_why_it_exists_and_that_nobody_has_signed_it_yet(catalogue):
    for entry in catalogue.entries.values():
        assert entry.who
        assert entry.because
        assert entry.reviewed_by == "unreviewed: needs the service's clinical lead"


# ── What stops the start ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def broken(tmp_path):
    def load(old, new):
        source = CATALOGUE.read_text(encoding="utf-8")
        assert old in source
        path = tmp_path / "catalogue.toml"
        path.write_text(source.replace(old, new), encoding="utf-8")
        with pytest.raises(ServiceError) as refused:
            load_catalogue(path)
        assert refused.value.code is Code.TEMPLATE
        return refused.value.message

    return load


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[texts.kit_lapsed]", "[texts.kit_lost]", "kit_lapsed lacks"),
        ('discreet = "kit_posted_discreet"\n', "", "kit_posted lacks discreet"),
        ("kit_posted_discreet = ", "kit_posted_secret = ", "kit_posted_discreet (en)"),
        ("We found: {{ found }}.", "We found it.", "lacks the placeholder found"),
        ("There is nothing you need to do now.", "Not found: {{ tested }}.", "may not use the placeholder tested"),
        ("thank you, we have your order", "thank you {{ name }}", "may not use the placeholder name"),
        ("call {{ phone }}, {{ hours }}, or expect", "expect", "lacks the placeholder phone"),
        ("{% if last %} This is", "{% if last This is", "not a template"),
        ('class = "result"', 'class = "routine"', "must be of class result"),
        ('leaked = "Gollyngodd y tiwb."\n', "", "words in cy"),
        ('syphilis = "siffilis"\n', "", "words in cy"),
        ('"Rhagfyr"]', "]", "words in cy"),
        ("[texts.order_received]", "[texts.order_lost]\n[texts.order_received]", "never sends: order_lost"),
        ("[bodies.en]", "[bodies.en", "can't be read"),
    ],
)
def test_a_catalogue_that_lacks_anything_is_refused_at_start_by_name(broken, old, new, says):
    assert says in broken(old, new)


def test_a_missing_catalogue_is_refused_at_start(tmp_path):
    with pytest.raises(ServiceError, match="can't be read"):
        load_catalogue(tmp_path / "catalogue.toml")


def test_the_catalogue_suits_the_service(catalogue, service):
    catalogue.check_service(service)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text_name": "Harbour Sexual Health"}, "first 40 characters"),
        ({"text_name": "The Harbour Borough Council Post Room"}, "longer than 2 segments"),
        ({"text_name": "Harbwr Tŷ"}, "outside its language's set"),
    ],
)
def test_a_service_whose_name_spoils_the_texts_is_refused_at_start(catalogue, service, change, says):
    with pytest.raises(ServiceError, match=says) as refused:
        catalogue.check_service(replace(service, **change))
    assert refused.value.code is Code.TEMPLATE
    assert "harbour" in refused.value.message


def test_a_changed_word_is_a_new_version(tmp_path, words, service):
    path = tmp_path / "catalogue.toml"
    path.write_text(CATALOGUE.read_text(encoding="utf-8").replace("It can be treated.", "It is easily treated."))
    values = SwabPositive(frozenset({SwabInfection.CHLAMYDIA}), so_far=False)
    changed = load_catalogue(path).render(values, language=EN, wording=NAMED, service=service, ref="7K3F9X")
    assert changed.template_version != words(values).template_version
    assert changed.template_key == words(values).template_key


def test_a_signature_needs_a_name_and_a_day(broken):
    line = 'reviewed_by = "unreviewed: needs the service\'s clinical lead"'
    assert "needs reviewed_by and reviewed_on" in broken(line, 'reviewed_by = "A. Lead"')
    assert "needs reviewed_by and reviewed_on" in broken(line, line + "\nreviewed_on = 2027-01-04")
