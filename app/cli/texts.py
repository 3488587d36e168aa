"""`kitpost texts`: stop and start sending, let a held burst go, see what became of a text, read every text there is."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from models.rules.text import TextValues

app = typer.Typer(
    help="Texts: stop and start sending, let a burst go, see what became of one, read every text there is.",
    no_args_is_help=True,
)

Because = Annotated[str, typer.Option(help="Why; kept in the audit. No name, number or address.")]


@app.command()
def stop(because: Because) -> None:
    """Stop all sending now. Calls that have begun end; nothing new is claimed until `kitpost texts start`."""
    _switch(because, stopped=True)
    typer.echo("Sending is stopped. What is owed waits, and leaves after kitpost texts start.")


@app.command()
def start(because: Because) -> None:
    """Let texts leave again. The next run of notify-residents sends what is due."""
    _switch(because, stopped=False)
    typer.echo("Sending is on.")


@app.command()
def release(
    service: Annotated[str, typer.Argument(help="Whose held texts may go, such as larkfield.")], because: Because
) -> None:
    """Let go a burst that waits because more texts were due at once than the service's max_per_run."""
    from app.wiring import connect
    from models.actions.text import release_burst
    from models.rules.errors import Code, ServiceError

    home = connect()
    if service not in home.services:
        raise ServiceError(Code.NOT_FOUND, f"There is no service {service}: {', '.join(sorted(home.services))}.")
    with home.begin() as session:
        freed = release_burst(session, service_id=service, actor=_who(), because=because, now=home.clock())
    typer.echo(f"{freed} texts may go.")


@app.command()
def show(
    ref: Annotated[str, typer.Argument(help="The text's reference, or the six characters that its words end with.")],
) -> None:
    """Show what became of a text: its states, attempts and codes. Neither its words nor its number."""
    from app.wiring import connect
    from models.actions.text_status import story_of

    with connect().begin() as session:
        story = story_of(session, ref)
        text = story.text
        why = text.cancelled_because or text.error_code
        typer.echo(f"Text {text.ref} of {text.service_id}: {text.state.value}{f' ({why})' if why else ''}")
        typer.echo(f"  owed {text.owed_at:%Y-%m-%d %H:%M}Z, not before {text.not_before:%Y-%m-%d %H:%M}Z")
        if text.held_at:
            typer.echo(f"  held since {text.held_at:%Y-%m-%d %H:%M}Z: kitpost texts release {text.service_id}")
        for attempt in story.attempts:
            status = f", {attempt.status.value}" if attempt.status else ""
            code = f", code {attempt.error_code}" if attempt.error_code else ""
            blanked = ", blanked at the provider" if attempt.redacted_at else ""
            typer.echo(
                f"  attempt {attempt.number}, {attempt.started_at:%Y-%m-%d %H:%M:%S}Z by {attempt.provider}: "
                f"{attempt.state.value}{status}{code}{blanked}"
            )


@app.command()
def preview(
    service: Annotated[str, typer.Option(help="Only this service's; all of them otherwise.")] = "",
) -> None:
    """Print every text in every wording and language, as it would be sent, with its length. Sends nothing."""
    from rich.console import Console
    from rich.table import Table

    from app.service import SHIPPED, load_services
    from app.wiring import wiring
    from models.rules.errors import Code, ServiceError
    from models.rules.vocabulary import Language, Wording

    home = wiring()
    found = load_services(home.settings.service_dir or SHIPPED)
    chosen = [each for each in found.values() if service in {"", each.id}]
    if not chosen:
        raise ServiceError(Code.NOT_FOUND, f"There is no service {service}: {', '.join(sorted(found))}.")
    for each in chosen:
        table = Table("Text", "Wording", "Language", "Segments", "Words", title=each.name, show_lines=True)
        for values in _examples():
            for wording in Wording:
                for language in Language:
                    made = home.catalogue.render(values, language=language, wording=wording, service=each, ref="7K3F9X")
                    table.add_row(values.purpose.value, wording.value, language.value, str(made.segments), made.body)
        Console().print(table)


def _examples() -> list["TextValues"]:
    """One of each purpose, with what most people would get."""
    from datetime import date

    from models.rules.text import (
        AllClear,
        ExpectCall,
        FailedSample,
        FailedTest,
        KitLapsed,
        KitPosted,
        OrderReceived,
        ReceivedAtLab,
        ReturnReminder,
        SwabInfection,
        SwabPositive,
        TellableFailure,
    )
    from models.rules.vocabulary import Site, Test

    due_back_on, retest_on = date(2027, 3, 31), date(2027, 2, 14)
    swabs = ((Test.CHLAMYDIA, Site.VAGINAL), (Test.GONORRHOEA, Site.VAGINAL))
    bloods = ((Test.HIV, Site.BLOOD), (Test.SYPHILIS, Site.BLOOD))
    failed = tuple(FailedTest(test, site, TellableFailure.INSUFFICIENT) for test, site in bloods)
    return [
        OrderReceived(),
        KitPosted(due_back_on),
        ReturnReminder(due_back_on, last=False),
        ReturnReminder(due_back_on, last=True),
        ReceivedAtLab(),
        KitLapsed(),
        AllClear(swabs + bloods, retest_on),
        FailedSample(failed, swabs, retest_on),
        SwabPositive(frozenset({SwabInfection.CHLAMYDIA}), so_far=False),
        ExpectCall(),
    ]


def _switch(because: str, *, stopped: bool) -> None:
    from app.wiring import connect
    from models.actions.text import set_sending

    home = connect()
    with home.begin() as session:
        set_sending(session, stopped=stopped, actor=_who(), because=because, now=home.clock())


def _who() -> str:
    import getpass

    return f"cli:{getpass.getuser()}"
