"""What each quarantine word means: one sentence for the laboratory, one for the clinician (lab-messages.md 7).

The detail stored with a row says what this very row lacks; these say what the word stands for, on the
liaison page, on the list that goes back to the laboratory and in docs/lab-integration.md. Nothing here
is about a person.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from models.rules.vocabulary import Quarantine


class Sentences(NamedTuple):
    """A quarantine word in the words of those who must do something about it."""

    lab: str
    clinician: str


SENTENCES: Final[Mapping[Quarantine, Sentences]] = {
    Quarantine.UNKNOWN_TOKEN: Sentences(
        "The result word or code is not agreed for this test: send the agreed one, or agree on this one.",
        "We can't tell what this result says. It may be bad news.",
    ),
    Quarantine.EMPTY_VALUE: Sentences(
        "The row is final and has no value: send the value, or status X with an agreed reason.",
        "This test was reported without a result. It is not a negative.",
    ),
    Quarantine.UNKNOWN_TEST: Sentences(
        "The test code is not agreed: agree on the code before it is sent again.",
        "We can't tell which test this result is of.",
    ),
    Quarantine.NOT_REQUESTED: Sentences(
        "This test was not asked for on this specimen, or was asked for and reported as not asked: check the request.",
        "A result came for a test that this person did not order, or an ordered one was not done.",
    ),
    Quarantine.UNKNOWN_STATUS: Sentences(
        "The status of row or order is missing, unknown or contradictory: send both, as agreed.",
        "We can't tell whether this result is final.",
    ),
    Quarantine.STATUS_REVIEW: Sentences(
        "This status changes an earlier report without saying how: send F or C with the value.",
        "The laboratory changed something about an earlier result. Compare the two.",
    ),
    Quarantine.CANCELLED_NO_REASON: Sentences(
        "The test was cancelled without an agreed reason: send the reason.",
        "This test was not done, and we don't know why.",
    ),
    Quarantine.CODE_DISPLAY_CONFLICT: Sentences(
        "A code and its text, or two codes, say different things: mend the code table and send the row again.",
        "The laboratory's code and its words for this result disagree. It may be bad news.",
    ),
    Quarantine.FLAG_CONFLICT: Sentences(
        "The abnormal flag contradicts the value, or is not agreed: mend the flag or the value.",
        "Value and abnormal flag of this result disagree. It may be bad news.",
    ),
    Quarantine.CONFLICTING_VALUES: Sentences(
        "Two values came for one result, or an index that disagrees with its screen: send the one that is right.",
        "Two different answers came for one test. Ask the laboratory which is right.",
    ),
    Quarantine.COMBINED_RESULT: Sentences(
        "One value tells of several infections: send one row for each.",
        "One value tells of several infections, and we don't split it.",
    ),
    Quarantine.SITE_UNKNOWN: Sentences(
        "The specimen site is missing or not agreed: send the specimen's code.",
        "We can't tell which sample this result is from.",
    ),
    Quarantine.SPECIMEN_CONFLICT: Sentences(
        "The specimen is not the one this tube was sent for, or not one for this test: check tube and specimen.",
        "The sample reported is not the one that was asked for. Two samples may be mixed up.",
    ),
    Quarantine.DATE_IMPLAUSIBLE: Sentences(
        "A time can't be read, or the times of the row contradict each other: mend them.",
        "The times of this sample contradict each other, so we can't be sure which sample it is.",
    ),
    Quarantine.DATED_IN_FUTURE: Sentences(
        "The sample is dated later than today: mend the date.",
        "The sample is dated in the future, so we can't be sure which sample it is.",
    ),
    Quarantine.DATED_BEFORE_DISPATCH: Sentences(
        "The sample is dated before its kit was posted: check the date, and whose sample it is.",
        "The sample was taken before the kit was sent: it may be another person's.",
    ),
    Quarantine.TOO_OLD: Sentences(
        "The sample was older on receipt than the assay allows: report it as failed, with that reason.",
        "The sample was too old when it arrived. A negative can't be relied on.",
    ),
    Quarantine.TEST_MESSAGE: Sentences(
        "The message is not marked as live: send P in MSH-11, and test data to the test system.",
        "A message that is not marked as live names this kit.",
    ),
    Quarantine.BAD_KIT_ID: Sentences(
        "The check character of a kit or tube id does not fit: scan the label, don't type it.",
        "The laboratory misspelt the kit's id.",
    ),
    Quarantine.UNKNOWN_KIT: Sentences(
        "No kit with this id was sent to your laboratory: check the id on the tube.",
        "The laboratory reports a kit that is not one of its own.",
    ),
    Quarantine.NEVER_DISPATCHED: Sentences(
        "This kit never left us: check the id on the tube, and call us.",
        "A result came for a kit that was never sent: it is somebody else's sample.",
    ),
    Quarantine.TUBE_MISMATCH: Sentences(
        "The tube is not of this kit, or is missing: check both labels.",
        "Kit and tube do not belong together: the sample may be another person's.",
    ),
    Quarantine.IDENTITY_MISSING: Sentences(
        "Patient, kit id or full date of birth is missing: send all of them with every result.",
        "The laboratory did not say fully whose sample this is.",
    ),
    Quarantine.IDENTITY_MISMATCH: Sentences(
        "The date of birth is not the one this kit was ordered with: check form and tube.",
        "The date of birth is another one: the sample may be another person's.",
    ),
    Quarantine.IDENTITY_CONFLICT: Sentences(
        "Two kits, two patients or another family name stand in one row, or one number stands for two kits: "
        "check the form.",
        "The laboratory's own details disagree about whose sample this is.",
    ),
    Quarantine.CROSSED_SAMPLES: Sentences(
        "Person and tube are of two different kits: two people's samples may be crossed. Check both.",
        "Two people's samples may be crossed. Neither is told anything; the cases name each other's kit.",
    ),
    Quarantine.SECOND_ACCESSION: Sentences(
        "This tube was already reported for this test under another number: link it to that report, or explain.",
        "One tube came back as two reports: two people may have used one kit.",
    ),
    Quarantine.MALFORMED: Sentences(
        "The row or message can't be taken apart: mend the export.",
        "Something of the laboratory's report can't be read.",
    ),
    Quarantine.ENCODING: Sentences(
        "Bytes are of no agreed encoding, or were damaged before they were sent: send UTF-8.",
        "Something of the laboratory's report can't be read.",
    ),
    Quarantine.INCOMPLETE_FILE: Sentences(
        "Counts, checksum, trailer or the end of the last line are missing or wrong: send the whole file again.",
        "A file of results arrived incomplete. Nothing of it was used.",
    ),
    Quarantine.HEADER_CHANGED: Sentences(
        "The columns are not the agreed ones: tell us before you change them.",
        "A file of results has other columns than agreed. Nothing of it was used.",
    ),
    Quarantine.CONTROL_ID_REUSE: Sentences(
        "The control id was used before with other content: send the file under a new one.",
        "A file of results carries the number of another. Nothing of it was used.",
    ),
    Quarantine.UNSUPPORTED_FORMAT: Sentences(
        "The file is no result report that we read (EDIFACT, PDF, ZIP, spreadsheet, another message): send HL7, "
        "FHIR or the agreed table.",
        "A file arrived that we can't read. Nothing of it was used.",
    ),
    Quarantine.EMPTY_FILE: Sentences(
        "The file holds nothing: send it again.",
        "An empty file arrived.",
    ),
    Quarantine.UNKNOWN_SENDER: Sentences(
        "The sender is not agreed: send from the agreed system.",
        "A report came from a sender that we don't know. Nothing of it was used.",
    ),
    Quarantine.TOO_MANY_QUARANTINED: Sentences(
        "Too much of the file can't be used, or it is far longer than usual: call us before you send more.",
        "A file of results was stopped because too much of it can't be used.",
    ),
}
"""Every word has both; `tests/rules/test_quarantine.py` holds it."""

MOST_ROWS: Final = 1_000_000
"""Messages or rows of one file; more than a re-sent year of a large service. A person looks first."""

_FEWEST_RESULTS: Final = 100
"""Below this a share says nothing: each row waits by itself."""


def is_too_many(quarantined: int, results: int, percent: int) -> bool:
    """Whether so much of a file can't be used that the file is wrong, and not its rows (lab-messages.md 7)."""
    return results >= _FEWEST_RESULTS and quarantined * 100 > results * percent
