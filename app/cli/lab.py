"""`kitpost lab`: what a laboratory's engineer needs before and after go-live."""

import json
import re
import sys
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from app.cli.asked import who

if TYPE_CHECKING:
    from datetime import date

    from models.rules.lab import Fault, LabMap, LabMessage, LabRow
    from models.rules.lab_time import LabTime
    from models.rules.reading import Reading
    from models.rules.result import RowTimes

app = typer.Typer(help="Laboratories: try their files before they go live.", no_args_is_help=True)

CHUNK_BYTES: Final = 1 << 20

KEYS: Final = (
    "file",
    "line",
    "message_id",
    "accession",
    "kit_id",
    "tube_id",
    "test",
    "site",
    "outcome",
    "status",
    "collected_at",
    "authorised_at",
    "quarantine",
    "detail",
)
"""The keys of one line of --json, in order. Stable: docs/lab-integration.md promises them."""

Line = dict[str, str | int | None]


@app.callback()
def labs() -> None:
    """Laboratories: try their files before they go live."""


@app.command()
def explain(
    file: Annotated[
        Path, typer.Argument(help="A lab's file: HL7 v2, FHIR R4 or its table. FILE.ctl beside it is read.")
    ],
    lab: Annotated[str | None, typer.Option(help="Whose file it is. Else the sender or header must tell.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a result, for machines.")] = False,
) -> None:
    """Say what every row of a lab's file would mean here. Reads no database and changes nothing.

    Ends with 0 if nothing was quarantined, 1 if something was, 2 if the file could not be read at all.
    """
    from app.service.labs import FOLDER, load_lab_maps
    from app.wiring import lab_files, local_place
    from models.rules.errors import ServiceError
    from models.rules.lab import as_agreed

    try:
        maps = load_lab_maps(local_place().labs_dir or FOLDER)
        with file.open("rb") as opened:
            head = opened.read(lab_files.HEAD_BYTES)
    except ServiceError as error:
        _stop(error.message)
    except OSError as error:
        _stop(f"{file.name} can't be opened: {error.strerror}.")
    if lab is not None:
        chosen = {name.casefold(): one for name, one in maps.items()}.get(lab.casefold())
        if chosen is None:
            _stop(f"No lab of that name is configured. There are: {', '.join(sorted(maps))}.")
    else:
        recognised = lab_files.recognise(head, list(maps.values()))
        if recognised.fault is not None:
            if recognised.fault.reason in _UNREADABLE:
                _show([_file_line(file, recognised.fault)], as_json=as_json)
            _stop(f"{file.name} was not read. {recognised.fault.detail} Name the lab with --lab if you know it.")
        assert recognised.lab is not None, "either a lab or a fault is recognised"
        chosen = recognised.lab
    near = file.parent.glob(f"{escape(file.name)}.*")
    beside = {as_agreed(each.name).removeprefix(file.name): each for each in near if each.is_file()}
    last = chosen.companion_of(file.name)
    if last and last not in beside:
        typer.echo(f"{file.name}: sent like this it would wait: {file.name}{last} must follow it.", err=True)
    control = beside.get(".ctl")
    verdict = lab_files.check_file(_chunks(file), chosen, control.read_bytes() if control else None)
    for warning in verdict.warnings:
        typer.echo(f"{file.name}: {warning}", err=True)
    if verdict.held is not None:
        _show([_file_line(file, verdict.held)], as_json=as_json)
        typer.echo(f"{file.name} is held as a whole. {verdict.held.detail}", err=True)
        raise typer.Exit(2 if verdict.held.reason in _UNREADABLE else 1)
    quarantined = _show(_lines(file, lab_files.read_messages(_chunks(file), chosen), chosen), as_json=as_json)
    raise typer.Exit(1 if quarantined else 0)


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="A sample of what the laboratory sends.")],
    name: Annotated[str, typer.Option(help="What the laboratory is called here: capitals, as in NORTHLAB.")],
    to: Annotated[Path | None, typer.Option(help="Where to write the draft. Else NAME.toml in this folder.")] = None,
) -> None:
    """Draft a laboratory's map from a sample file: what can be seen, for a person to complete and sign.

    A draft is refused at start until somebody has reviewed it.
    """
    from app.wiring import draft_map
    from models.rules.errors import ServiceError

    if not re.fullmatch(r"[A-Z][A-Z0-9_-]{1,39}", name.upper()):
        _stop("--name is two to forty letters and digits that begin with a letter, as in NORTHLAB.")
    target = to or Path(f"{name.lower()}.toml")
    try:
        draft = draft_map(name.upper(), file.read_bytes())
        with target.open("x", encoding="utf-8") as opened:
            opened.write(draft)
    except ServiceError as error:
        _stop(error.message)
    except FileExistsError:
        _stop(f"{target.name} is there already: name another file with --to.")
    except OSError as error:
        _stop(f"{file.name} can't be read, or {target.name} not written: {error.strerror}.")
    typer.echo(f"{target.name} is a draft. Complete it and have a clinician sign it. Then try it, alone in a folder:")
    typer.echo(f"KITPOST_LABS_DIR=FOLDER kitpost lab explain FILE --lab {name.upper()}")


@app.command()
def replay(
    lab: Annotated[str, typer.Option(help="Only this laboratory's rows.")] = "",
    reason: Annotated[str, typer.Option(help="Only rows that wait for this reason, such as unknown_token.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Try everything and take it back.")] = False,
) -> None:
    """Read rows in quarantine again under today's maps: the whole way, from matching to decision.

    A row that can still not be used stays as it is. Doing it again changes nothing. The audit names you.
    Ends with 0 where every file could be read, 2 where one could not: its rows wait as before.
    """
    from app.lab_reading import ingest_of, read_rows_again
    from app.wiring import connect
    from models.rules.vocabulary import Quarantine

    if reason and reason not in set(Quarantine):
        _stop(f"{reason} is no quarantine word: docs/lab-integration.md lists them.")
    again = read_rows_again(
        ingest_of(connect()),
        actor=who(),
        lab=lab.upper(),
        reason=Quarantine(reason) if reason else None,
        dry_run=dry_run,
    )
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(again.outcomes.items()))
    typer.echo(
        f"Rows looked at: {again.looked_at}. Used now: {again.used}{f' ({outcomes})' if outcomes else ''}. "
        f"Waiting for another reason: {again.other_reason}. As before: {again.as_before}. "
        f"Kits decided about: {again.decided}.{' Nothing of it was kept.' if dry_run else ''}"
    )
    if again.unread:
        _tell_unread(again.unread)
        raise typer.Exit(2)


@app.command()
def unread() -> None:
    """Name what lies in the store for more than a day and is not read: not whole, misplaced, or not to be noted.

    As the last run of ingest found it. Exits 1 if there is anything. Move, rename or delete it, and it is gone.
    """
    from app.wiring import connect
    from models.actions.lab_file import unread_objects

    with connect().begin() as session:
        lying = unread_objects(session)
    for each in lying:
        typer.echo(f"{each.since:%Y-%m-%d %H:%M}  {each.lab or 'whose is unknown'}  {each.why}  {each.key}")
    if lying:
        raise typer.Exit(1)
    typer.echo("Nothing lies unread.")


@app.command()
def resend(
    code: Annotated[str, typer.Argument(help="The kit that the laboratory was to be told of.")],
    because: Annotated[str, typer.Option(help="What the laboratory said. Kept in the audit.")],
) -> None:
    """Send one kit's request to its laboratory once more: one in doubt, one that was refused, or one it has lost.

    Ask the laboratory first. It goes with the next run, under the same control id.
    """
    from app.wiring import connect
    from models.actions import lab_request
    from models.rules.kit import normalise_kit_code

    kit = normalise_kit_code(code)
    if kit is None:
        _stop("This is no kit code: check each of its ten characters.")
    home = connect()
    with home.begin() as session:
        lab_request.ask_again(
            session,
            kit,
            services=home.services,
            because=because,
            now=home.clock(),
            actor=who(),
        )
    typer.echo("Its request goes out with the next run.")


@app.command()
def rehearse(
    map_file: Annotated[Path, typer.Argument(help="The changed map, reviewed, before it goes live.")],
    days: Annotated[int, typer.Option(min=1, help="How many days of the laboratory's files to read again.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Read past files under a changed map and say what would be different. Stores nothing.

    Ends with 0 where nothing would change, 1 where something would, 2 where a file could not be read under both maps.
    """
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from app.lab_reading import ingest_of
    from app.lab_rehearsal import rehearse
    from app.service.labs import load_lab_map
    from app.wiring import connect

    new_map = load_lab_map(map_file)
    told = rehearse(ingest_of(connect()), new_map, days=days)
    changes = sorted(told.changes.items(), key=lambda each: -each[1])
    if as_json:
        shown = [{"was": was, "would_be": would_be, "rows": count} for (was, would_be), count in changes]
        examples = [asdict(each) for each in told.examples]
        unread = [{"file_ref": ref, "why": why} for ref, why in told.unread.items()]
        whole = {"files": told.files, "rows": told.rows, "changes": shown, "examples": examples, "unread": unread}
        typer.echo(json.dumps(whole))
    else:
        typer.echo(f"{new_map.lab}: {told.files} files, {told.rows} rows read under both maps.")
        table = Table("Rows", "Read as now", "Would read as", "For instance")
        for (was, would_be), count in changes:
            one = next((each for each in told.examples if (each.was, each.would_be) == (was, would_be)), None)
            where = f"file {one.file_ref[:12]}, line {one.line}, {one.accession}" if one else ""
            table.add_row(str(count), was, would_be, where)
        Console().print(table if changes else "Nothing would change in what was read.")
    if told.unread:
        _tell_unread(told.unread)
        raise typer.Exit(2)
    raise typer.Exit(1 if changes else 0)


_UNREADABLE: Final = frozenset({"unsupported_format", "empty_file", "encoding"})
"""Reasons for which nothing at all of a file could be read."""


def _stop(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(2)


def _tell_unread(unread: dict[str, str]) -> None:
    """Which of the laboratory's files could not be read, by our reference, and why."""
    typer.echo(f"Files that could not be read: {len(unread)}.", err=True)
    for ref, why in unread.items():
        typer.echo(f"file {ref[:12]}: {why}", err=True)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK_BYTES):
            yield chunk


def _lines(file: Path, messages: "Iterator[LabMessage]", lab_map: "LabMap") -> Iterator[Line]:
    """What is shown of every result of a file; rows that only support another are not results."""
    from models.rules.reading import Detail
    from models.rules.result import interpret

    numbers = _Numbers(lab_map)
    for message in messages:
        rows = {row.row_key: row for row in message.rows}
        for warning in (*message.warnings, *numbers.warnings_of(message)):
            typer.echo(f"{file.name}, line {message.position}: {warning}", err=True)
        if message.answer:
            told = f"answers request {message.answer.about} with {message.answer.code}"
            typer.echo(f"{file.name}, line {message.position}: {told}; it is no result.", err=True)
        for reading in interpret(message, lab_map):
            if not isinstance(reading, Detail):
                yield _line(file, message, rows[reading.row_key], lab_map, numbers.checked(reading))


class _Numbers:
    """What the numbers of one file say against each other: what storing would see of it without any kit of ours."""

    def __init__(self, lab_map: "LabMap") -> None:
        self._suffixes = lab_map.reflex_suffixes
        self._content: dict[str, bytes] = {}
        self._kits: dict[str, str] = {}
        self._first: dict[tuple[str, str, str], str] = {}

    def warnings_of(self, message: "LabMessage") -> Iterator[str]:
        """Says that a message's id was used before for other content: both are read."""
        known = self._content.setdefault(message.message_id, message.content_sha256) if message.message_id else None
        if known not in {None, message.content_sha256}:
            yield "Another message of the file has this id and other content. Both are read."

    def checked(self, reading: "Reading") -> "Reading":
        """The reading, or why it can't be used beside those before it."""
        from models.rules.matching import ANOTHERS_ACCESSION, SECOND_ACCESSION
        from models.rules.reading import Finding, follows, refused
        from models.rules.vocabulary import Outcome

        if not isinstance(reading, Finding) or not reading.accession or reading.outcome is Outcome.NOT_REQUESTED:
            return reading
        if self._kits.setdefault(reading.accession, reading.kit_code) != reading.kit_code:
            return refused(reading, ANOTHERS_ACCESSION.reason, ANOTHERS_ACCESSION.detail)
        series = (reading.tube_code or reading.kit_code, reading.test, reading.site)
        first = self._first.setdefault(series, reading.accession)
        if first != reading.accession and not follows(reading, first, self._suffixes):
            return refused(reading, SECOND_ACCESSION.reason, SECOND_ACCESSION.detail)
        return reading


def _line(file: Path, message: "LabMessage", row: "LabRow", lab_map: "LabMap", reading: "Reading") -> Line:
    from models.rules.beside import why_held
    from models.rules.kit import show_kit_code, show_tube_code
    from models.rules.reading import HELD, Detail, Finding
    from models.rules.result import times_of

    assert not isinstance(reading, Detail), "details are not shown"
    times = times_of(message, row, lab_map)
    quarantine: str | None
    if isinstance(reading, Finding):
        quarantine = HELD if reading.note_review else None
        detail = why_held(row, reading) if reading.note_review else _doubt_about(times)
    else:
        quarantine, detail = reading.reason.value, reading.detail
    shown: tuple[str | int | None, ...] = (
        file.name,
        reading.position,
        reading.message_id or None,
        reading.accession or None,
        show_kit_code(reading.kit_code) if reading.kit_code else None,
        show_tube_code(reading.tube_code) if reading.tube_code else None,
        reading.test.value if reading.test else None,
        reading.site.value if reading.site else None,
        reading.outcome.value if isinstance(reading, Finding) else None,
        reading.status.value if reading.status else None,
        _time(times.collected) or _month(times.collected_from, row.sampled_raw or row.collected_raw),
        _time(times.authorised),
        quarantine,
        detail,
    )
    return dict(zip(KEYS, shown, strict=True))


def _doubt_about(times: "RowTimes") -> str | None:
    """That an hour was read which the change of clocks repeats or skips."""
    if any(time and time.is_doubtful for time in (times.collected, times.received, times.tested, times.authorised)):
        return "A time falls into the hour that the change of clocks repeats or skips: the later is taken."
    return None


def _file_line(file: Path, fault: "Fault") -> Line:
    """The one line of a file that is held as a whole."""
    return dict.fromkeys(KEYS) | {"file": file.name, "quarantine": fault.reason.value, "detail": fault.detail}


def _month(first: "date | None", raw: str) -> str | None:
    """A month or a year that was sent alone, as precise as it was sent."""
    if first is None:
        return None
    is_year = len(raw.strip()) == 4  # noqa: PLR2004
    return f"{first:%Y}" if is_year else f"{first:%Y-%m}"


def _time(moment: "LabTime | None") -> str | None:
    """UTC with its offset, or only the day where no clock time was sent."""
    if moment is None:
        return None
    return moment.at.isoformat() if moment.has_clock else moment.on.isoformat()


def _show(lines: Iterator[Line] | list[Line], *, as_json: bool) -> int:
    """Prints the lines and returns how many are quarantined."""
    if as_json:
        quarantined = 0
        for line in lines:
            quarantined += line["quarantine"] is not None
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        return quarantined
    return _show_table(lines)


def _show_table(lines: Iterator[Line] | list[Line]) -> int:
    from rich.console import Console
    from rich.table import Table

    table = Table("line")
    for heading in ("kit or tube", "test", "site", "reads as"):
        table.add_column(heading, no_wrap=True)
    table.add_column("why", overflow="fold")
    total = quarantined = 0
    for line in lines:
        total += 1
        quarantined += line["quarantine"] is not None
        reads = line["outcome"] or f"[bold red]{line['quarantine']}[/]"
        cells = (line["line"], line["tube_id"] or line["kit_id"], line["test"], line["site"], reads, line["detail"])
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    console = Console()
    console.print(table)
    console.print(f"Results: {total}, quarantined: {quarantined}.")
    return quarantined
