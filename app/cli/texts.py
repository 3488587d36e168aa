"""`kitpost texts`: stop, start, choose a provider, let a burst go, show one, read every text there is."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.asked import who

if TYPE_CHECKING:
    from models.rules.text import TextValues

app = typer.Typer(
    help="Texts: stop and start sending, let a burst go, see what became of one, read every text there is.",
    no_args_is_help=True,
)

Because = Annotated[str, typer.Option(help="Why; kept in the audit. No name, number or address.")]


Scope = Annotated[str, typer.Option("--service", help="Only this service's; all of them otherwise.")]
Class = Annotated[str, typer.Option("--class", help="Only these: result, routine, reminder or code.")]


@app.command()
def stop(because: Because, service: Scope = "", text_class: Class = "") -> None:
    """Stop texts now: all, or one class, or one service's. Calls that have begun end; no other one begins."""
    _switch(because, service, text_class, stopped=True)
    typer.echo("Stopped. What is owed waits, and leaves after kitpost texts start with the same words.")


@app.command()
def start(because: Because, service: Scope = "", text_class: Class = "") -> None:
    """Let texts leave again. The next run of notify-residents sends what is due, unless another stop holds it."""
    _switch(because, service, text_class, stopped=False)
    typer.echo("Started.")


@app.command()
def use(
    provider: Annotated[str, typer.Argument(help="twilio, govuk_notify, or setting for the one in the settings.")],
    because: Because,
) -> None:
    """Send new texts through another provider. A text that may have gone through one is never given to the other."""
    from app.wiring import connect
    from models.actions.text_switch import choose_provider
    from models.rules.errors import Code, ServiceError

    home = connect()
    chosen = "" if provider == "setting" else provider
    if (chosen or home.text_provider) not in home.senders:
        raise ServiceError(
            Code.NOT_FOUND, f"There are no credentials for {provider}: set its KITPOST_ variables first."
        )
    with home.begin() as session:
        choose_provider(session, provider=chosen, actor=who(), because=because, now=home.clock())
    typer.echo(f"New texts go through {chosen or home.text_provider}.")


@app.command()
def resume(because: Because) -> None:
    """Say that a database restored from a backup knows again all that left meanwhile, and end its caution."""
    from app.wiring import connect
    from models.actions import text_switch

    home = connect()
    with home.begin() as session:
        was = text_switch.caught_up(session, actor=who(), because=because, now=home.clock())
    typer.echo("Texts leave as usual again." if was else "This database is not known as a restored one.")


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
        freed = release_burst(session, service_id=service, actor=who(), because=because, now=home.clock())
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
    into: Annotated[
        Path | None, typer.Option(help="A folder for one HTML page and one PDF to sign, instead of printing.")
    ] = None,
) -> None:
    """Show every text in every wording and language, as it would be sent, with its length. Sends nothing."""
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
        if into is not None:
            page, paper = home.text_sheet(each, _examples())
            into.mkdir(parents=True, exist_ok=True)
            (into / f"texts-{each.id}.html").write_text(page, encoding="utf-8")
            (into / f"texts-{each.id}.pdf").write_bytes(paper)
            typer.echo(f"Written: {into}/texts-{each.id}.html and .pdf")
            continue
        table = Table("Text", "Wording", "Language", "Segments", "Words", title=each.name, show_lines=True)
        for values in _examples():
            for wording in Wording:
                for language in Language:
                    made = home.catalogue.render(values, language=language, wording=wording, service=each, ref="7K3F9X")
                    table.add_row(values.purpose.value, wording.value, language.value, str(made.segments), made.body)
        Console().print(table)


@app.command()
def send(
    purpose: Annotated[str, typer.Argument(help="Which text, such as all_clear; its values are invented.")],
    *,
    to_test: Annotated[
        bool, typer.Option("--to-test", help="To the number in KITPOST_TEST_MOBILE. There is no other way.")
    ] = False,
    service: Annotated[str, typer.Option(help="As which service.")] = "larkfield",
    language: Annotated[str, typer.Option(help="en or cy.")] = "en",
    wording: Annotated[str, typer.Option(help="named or discreet.")] = "discreet",
) -> None:
    """Send one text with invented values to the test number, through the provider in force. Never to a resident."""
    from app.text_call import call
    from app.wiring import connect
    from integrations.ports import OutgoingText
    from models.actions import audit
    from models.actions.text_switch import chosen_provider, may_call
    from models.rules.errors import Code, ServiceError
    from models.rules.text import CLASS_OF
    from models.rules.text_delivery import TEST_PREFIX, Took
    from models.rules.vocabulary import Language, Wording

    home = connect()
    number = home.settings.test_mobile
    if not to_test or not number:
        raise ServiceError(Code.NOT_NOW, "Only to the test number: set KITPOST_TEST_MOBILE, and say --to-test.")
    values = next((each for each in _examples() if each.purpose == purpose), None)
    if values is None or service not in home.services or language not in {*Language} or wording not in {*Wording}:
        raise ServiceError(Code.NOT_FOUND, "There is no such text, service, language or wording.")
    ref = TEST_PREFIX + secrets.token_hex(12)
    text = home.catalogue.render(
        values,
        language=Language(language),
        wording=Wording(wording),
        service=home.services[service].service,
        ref=ref[-6:].upper(),
    )
    with home.begin() as session:
        if not may_call(session, service_id=service, text_class=CLASS_OF[values.purpose]):
            raise ServiceError(Code.NOT_NOW, "Sending is stopped: kitpost texts start first.")
        sender = home.senders[chosen_provider(session) or home.text_provider]
        audit.record(
            session,
            action="texts.test_sent",
            subject="service",
            subject_id=0,
            actor=who(),
            now=home.clock(),
            service_id=service,
            purpose=purpose,
        )
    answer = call(sender, OutgoingText(ref, number, text.body))
    if not isinstance(answer, Took):
        raise ServiceError(Code.PARKED, f"The provider did not take it: {answer.code}.")
    typer.echo(f"Taken by {sender.name}: {purpose}, {wording}, {language}, {text.segments} segments.")


def _examples() -> list["TextValues"]:
    """One of each purpose, with what most people would get."""
    from datetime import date

    from models.rules.collection import new_collection_code
    from models.rules.text import (
        AllClear,
        CollectionCode,
        Delayed,
        ExpectCall,
        FailedSample,
        FailedTest,
        KitLapsed,
        KitPosted,
        KitReady,
        OrderReceived,
        PlaceName,
        ReceivedAtLab,
        RetestDue,
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
    code = CollectionCode(new_collection_code(lambda alphabet: alphabet[7]))
    return [
        OrderReceived(),
        KitPosted(due_back_on),
        KitReady(PlaceName("22 Market Street"), code, due_back_on),
        ReturnReminder(due_back_on, last=False),
        ReturnReminder(due_back_on, last=True),
        ReceivedAtLab(),
        KitLapsed(),
        Delayed(date(2026, 12, 1)),
        RetestDue(),
        AllClear(swabs + bloods, retest_on),
        FailedSample(failed, swabs, retest_on),
        SwabPositive(frozenset({SwabInfection.CHLAMYDIA}), so_far=False),
        ExpectCall(),
    ]


def _switch(because: str, service: str, text_class: str, *, stopped: bool) -> None:
    from app.wiring import connect
    from models.actions.text_switch import set_class_sending, set_sending
    from models.rules.errors import Code, ServiceError
    from models.rules.text import TextClass

    home = connect()
    if service and service not in home.services:
        raise ServiceError(Code.NOT_FOUND, f"There is no service {service}: {', '.join(sorted(home.services))}.")
    if text_class and text_class not in set(TextClass):
        raise ServiceError(Code.NOT_FOUND, f"There is no such class of texts: {', '.join(TextClass)}.")
    with home.begin() as session:
        if not service and not text_class:
            set_sending(session, stopped=stopped, actor=who(), because=because, now=home.clock())
            return
        for service_id in [service] if service else sorted(home.services):
            for each in [TextClass(text_class)] if text_class else TextClass:
                set_class_sending(
                    session,
                    service_id=service_id,
                    text_class=each,
                    stopped=stopped,
                    actor=who(),
                    because=because,
                    now=home.clock(),
                )
