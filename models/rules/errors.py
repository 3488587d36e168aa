"""Every failure the product expects, as a code with one sentence that says what to do.

No message holds a name, number, address or finding: a kit id or a row id at the most. The edge
(page, API, command line) maps the code to what its reader sees.
"""

from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """What went wrong, in one word. Stable: logs, Prefect and tests cite it."""

    SETTINGS = "settings"
    DATABASE_DOWN = "database_down"
    DATABASE_NOT_READY = "database_not_ready"
    BUCKET_MISSING = "bucket_missing"
    STORE_DOWN = "store_down"
    NOT_FOUND = "not_found"
    NOT_ALLOWED = "not_allowed"
    SEALED = "sealed"
    CONFLICT = "conflict"
    BAD_INPUT = "bad_input"
    BAD_SIGNATURE = "bad_signature"
    NOT_NOW = "not_now"
    TOO_OFTEN = "too_often"
    TEMPLATE = "template"
    BATCH_HELD = "batch_held"
    PARKED = "parked"
    UNBALANCED = "unbalanced"
    UNEXPECTED = "unexpected"


EXIT_CODE: Final[dict[Code, int]] = {
    Code.SETTINGS: 78,
    Code.DATABASE_DOWN: 69,
    Code.DATABASE_NOT_READY: 69,
    Code.BUCKET_MISSING: 69,
    Code.STORE_DOWN: 69,
    Code.NOT_FOUND: 66,
    Code.NOT_ALLOWED: 77,
    Code.SEALED: 77,
    Code.CONFLICT: 65,
    Code.BAD_INPUT: 65,
}
"""Process exit codes after sysexits(3); anything else ends with 1."""


class ServiceError(Exception):
    """A failure the product expects. `code` is for machines, the text for the person who can act."""

    def __init__(self, code: Code, message: str, *, ref: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.ref = ref

    @property
    def exit_code(self) -> int:
        """What a command ends with when this reaches the command line."""
        return EXIT_CODE.get(self.code, 1)
