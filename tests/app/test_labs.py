"""The labs' maps as files: typed, closed, and refused with a sentence that names file and key."""

from pathlib import Path

import pytest

from app.service.labs import FOLDER, load_lab_map, load_lab_maps
from models.rules.errors import Code, ServiceError

SOUTHVALE = (FOLDER / "southvale.toml").read_text()


def load(tmp_path: Path, content: str) -> object:
    path = tmp_path / "lab.toml"
    path.write_text(content)
    return load_lab_map(path)


def test_the_shipped_labs_load_and_carry_a_version_of_their_own() -> None:
    maps = load_lab_maps()

    assert set(maps) >= {"NORTHLAB", "SOUTHVALE", "QUAYSIDE"}
    assert len({lab.version for lab in maps.values()}) == len(maps)


def test_any_change_of_a_map_is_a_new_version(tmp_path: Path) -> None:
    first = load_lab_map(FOLDER / "southvale.toml")
    path = tmp_path / "southvale.toml"
    path.write_text(SOUTHVALE + "\n# a word more\n")

    assert load_lab_map(path).version != first.version


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"R" = "reactive"', '"R" = "positive"', "words.blood.R"),
        ('"POS" = "positive"', '"POS" = "reactive"', "words.naat.POS"),
        ('"NEG" = "negative"', '"NEG" = "fine"', "words.naat.NEG"),
        ('zone = "Europe/London"', 'zone = "London"', "zone"),
        ('encoding = "cp1252"', 'encoding = "windows"', "encoding"),
        ('encoding = "cp1252"', 'encoding = "cp1252"\nguess = true', "guess"),
        ('test = "hiv"', 'test = "aids"', "tests"),
        ('kit = "barcode"', 'kit = "bar"', "csv.kit"),
        ('delimiter = ";"', 'delimiter = "auto"', "csv.delimiter"),
        ('code = "gc_ur"', 'code = "ct_ur"', "two meanings"),
        ('sites = ["urine"]', "sites = []", "sites"),
        ('lab = "SOUTHVALE"', "", "lab"),
        ('reviewed_by = "nobody: this laboratory is invented"', 'reviewed_by = ""', "reviewed_by"),
        (
            'zone = "Europe/London"',
            'zone = "Europe/London"\nmax_sample_age_days = { blood = 0 }',
            "max_sample_age_days",
        ),
        (
            'zone = "Europe/London"',
            'zone = "Europe/London"\ndetails = [{ code = "HIVC", test = "hiv", is_index = true }]',
            "index_bands.hiv",
        ),
        ('lab = "SOUTHVALE"', "lab =", "lab.toml"),
        ('encoding = "cp1252"', 'encoding = "latin-1"', "cp1252"),
        ('encoding = "cp1252"', 'encoding = "rot13"', "encoding"),
        ('forms = ["csv"]', "forms = []", "forms"),
        ('forms = ["csv"]', 'forms = ["csv", "hl7"]', "senders"),
        ('forms = ["csv"]', 'forms = ["csv", "fhir"]', "fhir_systems"),
        ('zone = "Europe/London"', 'zone = "Europe/London"\nreflex_suffixes = [""]', "reflex_suffixes"),
        ('zone = "Europe/London"', 'zone = "Europe/London"\nreflex_suffixes = ["1"]', "reflex_suffixes"),
        ('zone = "Europe/London"', 'zone = "Europe/London"\ntube_required = true', "csv.tube"),
        (
            'zone = "Europe/London"',
            'zone = "Europe/London"\nindex_bands = { hiv = { low_reactive_from = inf, reactive_from = inf } }',
            "index_bands.hiv",
        ),
        (
            'zone = "Europe/London"',
            'zone = "Europe/London"\ndetails = [{ code = "hiv", test = "hiv", is_index = false }]',
            "details",
        ),
        ('"POS" = "positive"', '"POS" = "positive"\n"Detected" = "negative"', "words.naat"),
        ('"R" = "reactive"', '"R" = "negative"\n"Reactive" = "negative"', "words.blood"),
        ('sites = ["blood"]', 'sites = ["blood", "vaginal"]', "tests"),
        ('sites = ["urine"]', 'sites = ["urine", "blood"]', "tests"),
        ('"barcode", "dob"', '"barcode", "barcode", "dob"', "csv.columns"),
        ('"barcode", "dob"', '"barcode", "Spare", "dob"', "csv.ignored"),
        ('comment = "remark"', 'comment = "remark"\nignored = ["remark"]', "csv.ignored"),
        ('comment = "remark"', 'comment = "dob"', "csv.comment"),
        ('comment = "remark"', "", "remark"),
        ('result_columns = ["ct_ur", ', "result_columns = [", "ct_ur"),
        ('result_columns = ["ct_ur", ', 'result_columns = ["remark", "ct_ur", ', "csv.comment"),
        ('comment = "remark"', 'ignored = []\nresult = "remark"', "csv.result_columns"),
        ('dob_format = "%Y-%m-%d"', 'dob_format = "%Y-%m"', "csv.dob_format"),
        ('dob_format = "%Y-%m-%d"', 'dob_format = "YYYY-MM-DD"', "csv.dob_format"),
        ('dob_format = "%Y-%m-%d"', 'dob_format = "iso8601"', "csv.dob_format"),
        ('time_format = "%Y-%m-%d"', 'time_format = "%Y.%Y.%Y"', "csv.time_format"),
        ('time_format = "%Y-%m-%d"', 'time_format = "%Y-%m-%d %I:%M"', "csv.time_format"),
        ('time_format = "%Y-%m-%d"', 'time_format = "%d.%m %H:%M"', "csv.time_format"),
        ('time_format = "%Y-%m-%d"', 'time_format = "%Y-%m-%d %H:%S"', "csv.time_format"),
        ('date_format = "%Y-%m-%d"', 'date_format = "%Y-%m-%d %I:%M"', "csv.date_format"),
        ('time_format = "%Y-%m-%d"', 'time_format = "%Y-%m-%d"\nreceived_format = "%Y"', "csv.received_format"),
        ('tail_record = "T"', "", "csv.tail_record"),
        ("[words.naat]", '[combined_words]\nDetected = { chlamydia = "negative" }\n[words.naat]', "combined_words"),
        (
            'zone = "Europe/London"',
            'zone = "Europe/London"\ncancel_reasons = { "DETECTED" = "insufficient" }',
            "cancel_reasons",
        ),
        ('"POS" = "positive"', '"POS" = "insufficient"', "words.naat"),
        ('"POS" = "positive"', '"POS" = "positive"\n"Weak positive" = "negative"', "words.naat"),
        ('"POS" = "positive"', '"POS" = "positive"\n"Equivocal" = "negative"', "words.naat"),
        ('result_columns = ["ct_ur", ', 'result_columns = ["ct_ur", "ct_ur", ', "csv.result_columns"),
    ],
)
def test_a_wrong_map_is_refused_by_file_and_key(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in SOUTHVALE

    with pytest.raises(ServiceError) as refused:
        load(tmp_path, SOUTHVALE.replace(old, new, 1))

    assert refused.value.code is Code.SETTINGS
    assert "lab.toml" in refused.value.message
    assert named in refused.value.message


QUAYSIDE = (FOLDER / "quayside.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("[csv.statuses]", '[csv.statuses]\n"" = "final"', "csv.statuses"),
        ("[csv.statuses]", '[csv.statuses]\n"final " = "pending"', "two meanings"),
        (
            '[[codes]]\nsystem = "local"\ncode = "1"',
            (
                '[[codes]]\nsystem = "snomed"\ncode = "260373001"\nwords = ["Detected"]\nnaat = "negative"\n\n'
                '[[codes]]\nsystem = "local"\ncode = "1"'
            ),
            "260373001",
        ),
        (
            '[[codes]]\nsystem = "local"\ncode = "1"',
            (
                '[[codes]]\nsystem = "snomed"\ncode = "42425007"\nwords = ["Equivocal"]\nnaat = "negative"\n\n'
                '[[codes]]\nsystem = "local"\ncode = "1"'
            ),
            "42425007",
        ),
        ('local = [""]', 'local = [""]\nsnomed = [""]', "two meanings"),
        ('words = ["NON REACTIVE"]', 'words = ["REACTIVE"]', "codes"),
    ],
)
def test_a_wrong_map_of_codes_and_statuses_is_refused(tmp_path: Path, old: str, new: str, named: str) -> None:
    assert old in QUAYSIDE

    with pytest.raises(ServiceError) as refused:
        load(tmp_path, QUAYSIDE.replace(old, new, 1))

    assert named in refused.value.message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('time_format = "%Y-%m-%d"', 'time_format = "%Y-%m-%dT%H:%M:%S%z"'),
        ('time_format = "%Y-%m-%d"', 'time_format = "%d/%m/%Y %H"'),
        ('time_format = "%Y-%m-%d"', 'time_format = "%d/%m/%Y %I:%M %p"'),
        ('encoding = "cp1252"', 'encoding = "utf-8-sig"'),
        ('comment = "remark"', 'comment = "remark"\nignored = [""]'),
    ],
)
def test_a_right_map_is_taken(tmp_path: Path, old: str, new: str) -> None:
    assert old in SOUTHVALE
    content = SOUTHVALE.replace(old, new, 1)

    assert load(tmp_path, content.replace('"remark"]', '"remark", "", ""]', 1) if "ignored" in new else content)


def test_a_column_may_be_said_to_be_read_by_nobody(tmp_path: Path) -> None:
    content = SOUTHVALE.replace('comment = "remark"', 'comment = "remark"\nignored = ["Spare"]', 1)

    assert load(tmp_path, content.replace('"barcode", "dob"', '"barcode", "Spare", "dob"', 1))


def test_two_files_for_one_lab_are_refused(tmp_path: Path) -> None:
    for name in ("one.toml", "two.toml"):
        (tmp_path / name).write_text(SOUTHVALE)

    with pytest.raises(ServiceError, match="another file"):
        load_lab_maps(tmp_path)


def test_no_map_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no lab map"):
        load_lab_maps(tmp_path)
