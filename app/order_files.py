"""Takes a file of orders in: good rows are stored, bad ones kept for a person and told by line and field."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.progress import Progress
from sqlmodel import Session

from app.database import Begin
from integrations.orders import BadRow, Fault, GoodRow, OrderUnreadable, read_csv, read_json_lines
from models.actions.order import Intake, keep_unreadable, submit_order
from models.rules.errors import Code, ServiceError

ROWS_A_TRANSACTION: Final = 500
READERS: Final[dict[str, Callable[[IO[bytes]], Iterator[GoodRow | BadRow]]]] = {
    ".csv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}
"""By the file name's ending."""


@dataclass(slots=True)
class Report:
    """Counts of one import. `stored` counts rows that now stand in the inbox, by this import or an earlier one."""

    stored: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class OrderFile:
    """One import: whose rows they are, and where they go."""

    service_id: str
    channel: str
    begin: Begin
    intake: Intake
    now: datetime

    def take_in(self, file: Path, say: Callable[[str], None]) -> Report:
        """Stores a whole file, some hundred rows a transaction; `say` gets one line for each fault.

        Safe to repeat: a row that is stored already stays as it is. Raises ServiceError(BAD_INPUT)
        for a channel that the service has not, a file of another kind, and a header that is not an order's.
        """
        channels = self.intake.service(self.service_id).service.channels
        if self.channel not in channels:
            raise ServiceError(
                Code.BAD_INPUT, f"{self.service_id} has no such channel: choose {' or '.join(channels)}."
            )
        reader = READERS.get(file.suffix.lower())
        if reader is None:
            raise ServiceError(Code.BAD_INPUT, f"Orders come in files that end in {', '.join(READERS)}.")
        report, console = Report(), Console(stderr=True)
        with (
            Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
            progress.open(file, "rb", description="Storing orders") as opened,
        ):
            rows = reader(opened)
            while chunk := list(islice(rows, ROWS_A_TRANSACTION)):
                with self.begin() as session:
                    for row in chunk:
                        self._take(session, row, report, say)
        return report

    def _take(self, session: Session, row: GoodRow | BadRow, report: Report, say: Callable[[str], None]) -> None:
        if isinstance(row, GoodRow):
            content, faults = row.order.canonical(), self._submit(session, row)
        else:
            content, faults = row.raw, row.faults
        if not faults:
            report.stored += 1
            return
        report.refused += 1
        for fault in faults:
            say(f"line {row.line}: {fault}")
        keep_unreadable(
            session,
            service_id=self.service_id,
            channel=self.channel,
            raw=content,
            why=" ".join(map(str, faults)),
            now=self.now,
            intake=self.intake,
        )

    def _submit(self, session: Session, row: GoodRow) -> tuple[Fault, ...]:
        """Why a row of the right shape could not be stored all the same; nothing if it was."""
        content = row.order.canonical()
        try:
            self.intake.read(content.decode(), self.intake.service(self.service_id).service, self.now)
            submit_order(
                session,
                service_id=self.service_id,
                channel=self.channel,
                channel_ref=row.order.channel_ref,
                content=content,
                now=self.now,
                intake=self.intake,
            )
        except OrderUnreadable as unreadable:
            return unreadable.faults
        except ServiceError as error:
            if error.code is not Code.CONFLICT:
                raise
            return (Fault("channel_ref", error.message),)
        return ()
