"""The closed words of the product: what may be tested, where, and what may come back.

Everything here is a closed set on purpose. A word from outside that is not in the set is
quarantined for a person; it is never read as the nearest member (law 2).
"""

from enum import StrEnum
from typing import Final


class Test(StrEnum):
    """An infection that a kit may test for. Names follow docs/lab-integration.md."""

    __test__ = False  # pytest: this is not a test class

    CHLAMYDIA = "chlamydia"
    GONORRHOEA = "gonorrhoea"
    SYPHILIS = "syphilis"
    HIV = "hiv"
    HEPATITIS_B = "hepatitis_b"
    HEPATITIS_C = "hepatitis_c"
    TRICHOMONAS = "trichomonas"
    MYCOPLASMA_GENITALIUM = "mycoplasma_genitalium"


class Site(StrEnum):
    """Where on the body the sample is from."""

    GENITAL = "genital"
    URINE = "urine"
    VAGINAL = "vaginal"
    RECTAL = "rectal"
    PHARYNGEAL = "pharyngeal"
    BLOOD = "blood"


class Specimen(StrEnum):
    """What the resident takes. One specimen fills one tube (or one card)."""

    VULVOVAGINAL_SWAB = "vulvovaginal_swab"
    FIRST_CATCH_URINE = "first_catch_urine"
    RECTAL_SWAB = "rectal_swab"
    PHARYNGEAL_SWAB = "pharyngeal_swab"
    CAPILLARY_BLOOD = "capillary_blood"


SITE_OF: Final[dict[Specimen, Site]] = {
    Specimen.VULVOVAGINAL_SWAB: Site.VAGINAL,
    Specimen.FIRST_CATCH_URINE: Site.URINE,
    Specimen.RECTAL_SWAB: Site.RECTAL,
    Specimen.PHARYNGEAL_SWAB: Site.PHARYNGEAL,
    Specimen.CAPILLARY_BLOOD: Site.BLOOD,
}


class Outcome(StrEnum):
    """What a result says: the canonical words of clinical.md section 3.3, and no others."""

    NEGATIVE = "negative"
    POSITIVE = "positive"
    REACTIVE = "reactive"
    LOW_REACTIVE = "low_reactive"
    EQUIVOCAL = "equivocal"
    INSUFFICIENT = "insufficient"
    INHIBITORY = "inhibitory"
    HAEMOLYSED = "haemolysed"
    LEAKED = "leaked"
    DAMAGED = "damaged"
    UNLABELLED = "unlabelled"
    ID_MISMATCH = "id_mismatch"
    NO_SAMPLE = "no_sample"
    TOO_OLD = "too_old"
    EXPIRED_DEVICE = "expired_device"
    WRONG_CONTAINER = "wrong_container"
    NOT_REQUESTED = "not_requested"
    PENDING = "pending"
    WITHDRAWN = "withdrawn"


BLOOD_TESTS: Final = frozenset({Test.SYPHILIS, Test.HIV, Test.HEPATITIS_B, Test.HEPATITIS_C})
"""Screens on capillary blood. They react; they are never `positive` (law 5; clinical.md 0.2)."""

SWAB_TESTS: Final = frozenset(Test) - BLOOD_TESTS
"""NAATs on swabs and urine."""

REACTIONS: Final = frozenset({Outcome.REACTIVE, Outcome.LOW_REACTIVE})
"""A blood screen reacted: a call and a venous sample, never a text, never a diagnosis."""

SAMPLE_FAILURES: Final = frozenset(
    {
        Outcome.INSUFFICIENT,
        Outcome.INHIBITORY,
        Outcome.HAEMOLYSED,
        Outcome.LEAKED,
        Outcome.DAMAGED,
        Outcome.NO_SAMPLE,
        Outcome.TOO_OLD,
        Outcome.EXPIRED_DEVICE,
        Outcome.WRONG_CONTAINER,
    }
)
"""The sample could not be tested. Told per test, never as negative (H8)."""

IDENTITY_FAILURES: Final = frozenset({Outcome.UNLABELLED, Outcome.ID_MISMATCH})
"""The lab doubts whose sample it is: nothing automatic, a clinician's task (clinical.md 3.5)."""

NON_RESULTS: Final = frozenset({Outcome.PENDING, Outcome.NOT_REQUESTED})
"""Words that carry no finding: they wait, or they were never asked for."""

NON_NEGATIVE: Final = frozenset(Outcome) - {Outcome.NEGATIVE} - NON_RESULTS
"""Outcomes that need an owner, a task and a due time in the transaction that stores them (law 4)."""


class ReportStatus(StrEnum):
    """How finished a reported row is: the more cautious of row and report (lab-messages.md 2.3)."""

    PRELIMINARY = "preliminary"
    FINAL = "final"
    CORRECTED = "corrected"
    CANCELLED = "cancelled"
    WITHDRAWN = "withdrawn"


class Quarantine(StrEnum):
    """Why a row or a file was kept for a person instead of being used (lab-messages.md section 7)."""

    # what the row says
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - a word that the lab map does not know
    EMPTY_VALUE = "empty_value"
    UNKNOWN_TEST = "unknown_test"
    NOT_REQUESTED = "not_requested"
    UNKNOWN_STATUS = "unknown_status"
    STATUS_REVIEW = "status_review"
    CANCELLED_NO_REASON = "cancelled_no_reason"
    CODE_DISPLAY_CONFLICT = "code_display_conflict"
    FLAG_CONFLICT = "flag_conflict"
    CONFLICTING_VALUES = "conflicting_values"
    COMBINED_RESULT = "combined_result"
    SITE_UNKNOWN = "site_unknown"
    SPECIMEN_CONFLICT = "specimen_conflict"
    DATE_IMPLAUSIBLE = "date_implausible"
    DATED_IN_FUTURE = "dated_in_future"
    DATED_BEFORE_DISPATCH = "dated_before_dispatch"
    TOO_OLD = "too_old"
    TEST_MESSAGE = "test_message"
    # whose it is
    BAD_KIT_ID = "bad_kit_id"
    UNKNOWN_KIT = "unknown_kit"
    NEVER_DISPATCHED = "never_dispatched"
    TUBE_MISMATCH = "tube_mismatch"
    IDENTITY_MISSING = "identity_missing"
    IDENTITY_MISMATCH = "identity_mismatch"
    IDENTITY_CONFLICT = "identity_conflict"
    CROSSED_SAMPLES = "crossed_samples"
    SECOND_ACCESSION = "second_accession"
    # the row or the file as such
    MALFORMED = "malformed"
    ENCODING = "encoding"
    # the whole file
    INCOMPLETE_FILE = "incomplete_file"
    HEADER_CHANGED = "header_changed"
    CONTROL_ID_REUSE = "control_id_reuse"
    UNSUPPORTED_FORMAT = "unsupported_format"
    EMPTY_FILE = "empty_file"
    UNKNOWN_SENDER = "unknown_sender"
    TOO_MANY_QUARANTINED = "too_many_quarantined"


class Language(StrEnum):
    """The language a resident chose for texts and leaflets."""

    ENGLISH = "en"
    WELSH = "cy"


class Wording(StrEnum):
    """How openly texts may speak: chosen by the person at order (clinical.md 3.5; ruling 14)."""

    NAMED = "named"
    DISCREET = "discreet"


class ScanKind(StrEnum):
    """What a courier event means to us (sms-and-post.md B1)."""

    LABELLED = "labelled"
    IN_NETWORK = "in_network"
    OUT_FOR_DELIVERY = "out_for_delivery"
    ATTEMPTED = "attempted"
    DELIVERED = "delivered"
    RETURNING = "returning"
    RETURNED_TO_SENDER = "returned_to_sender"
    UNKNOWN = "unknown"


class DeliveryStatus(StrEnum):
    """How far a text got at its provider. DELIVERED beats FAILED; both are final (sms-and-post.md A1)."""

    IN_FLIGHT = "in_flight"
    WITH_CARRIER = "with_carrier"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELIVERED = "delivered"
    UNKNOWN = "unknown"


class RefusalKind(StrEnum):
    """Why a provider will never take a text."""

    BAD_NUMBER = "bad_number"
    LANDLINE = "landline"
    OPTED_OUT = "opted_out"
    CONFIGURATION = "configuration"
    CONTENT = "content"
    UNKNOWN_CODE = "unknown_code"
