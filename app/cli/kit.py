"""`kitpost kit`: what happened to a kit, which kits wait where, and paper that must be printed again."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.asked import who

if TYPE_CHECKING:
    from models.rules.order import Address
    from models.rules.staff import Actor

app = typer.Typer(help="Kits: one kit's timeline, lists of kits, paper to print again.", no_args_is_help=True)


@app.command()
def show(code: Annotated[str, typer.Argument(help="The kit's code, with or without hyphens.")]) -> None:
    """Show what happened to a kit: events, decisions, texts by purpose, cases. Nothing about the person.

    The look is written to the audit.
    """
    from app.wiring import connect
    from models.actions.casebook import kit_timeline
    from models.actions.kit import cases_about
    from models.rules.kit import show_kit_code

    home = connect()
    with home.begin() as session:
        told = kit_timeline(session, code, by=_operator(home.services), now=home.clock())
        cases = cases_about(session, told.kit_code)
    expires = f", to be used by {told.expires_on}" if told.expires_on else ""
    typer.echo(f"Kit {show_kit_code(told.kit_code)}: {told.state.value}, lab {told.lab}{expires}")
    for event in told.events:
        detail = " ".join(f"{name}={value}" for name, value in sorted(event.detail.items()))
        typer.echo(f"  {event.occurred_at:%Y-%m-%d %H:%M}Z  {event.kind:<22} {event.actor:<24} {detail}".rstrip())
    for decision in told.decisions:
        reasons = ", ".join(decision.reasons) or "every requested test is negative"
        typer.echo(f"  decided {decision.decided_at:%Y-%m-%d %H:%M}Z  {decision.kind}: {reasons}")
    for text in told.texts:
        why = f" ({text.cancelled_because})" if text.cancelled_because else ""
        typer.echo(f"  text    {text.owed_at:%Y-%m-%d %H:%M}Z  {text.purpose.value}: {text.state.value}{why}")
    for case in cases:
        end = case.outcome.value if case.outcome else f"open, due {case.due_at:%Y-%m-%d %H:%M}Z"
        typer.echo(f"  case    {case.opened_at:%Y-%m-%d %H:%M}Z  {case.kind.value}, {case.owner_role}: {end}")


@app.command("list")
def list_(
    state: Annotated[list[str] | None, typer.Option(help="Only this state; may be repeated. Else all.")] = None,
    service: Annotated[str, typer.Option(help="Only this service's kits.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
) -> None:
    """List kits, those that wait longest first: code, service, state, lab, print batch."""
    from app.wiring import connect
    from models.actions.kit import list_kits
    from models.rules.errors import Code, ServiceError
    from models.rules.kit import KitState, show_kit_code

    known = {each.value for each in KitState}
    unknown = sorted(set(state or ()) - known)
    if unknown:
        raise ServiceError(Code.BAD_INPUT, f"There is no state {unknown[0]}: {', '.join(sorted(known))}.")
    states = [KitState(each) for each in state or known]
    with connect().begin() as session:
        for kit in list_kits(session, states=states, service_id=service, limit=limit):
            typer.echo(
                f"{show_kit_code(kit.code)}  {kit.service_id}  {kit.state.value}  {kit.lab}  {kit.batch}".rstrip()
            )


@app.command()
def reprint(
    because: Annotated[str, typer.Option(help="Why; kept in the audit. No name, number or address.")],
    code: Annotated[str, typer.Argument(help="The kit whose paper you destroyed.")] = "",
    batch: Annotated[str, typer.Option(help="Or a whole print batch, held or released, by its reference.")] = "",
) -> None:
    """Void paper that you destroyed: its kits are packed again, under new codes. Dispatched kits stay out."""
    from app.wiring import connect
    from models.actions.print_batch import reprint_kit, void_batch
    from models.rules.errors import Code, ServiceError
    from models.rules.kit import normalise_kit_code, show_kit_code

    if bool(code) == bool(batch):
        raise ServiceError(Code.BAD_INPUT, "Name one kit, or one batch with --batch.")
    kit = normalise_kit_code(code) if code else None
    if code and kit is None:
        raise ServiceError(Code.BAD_INPUT, "This is no kit code: check each of its ten characters.")
    home = connect()
    with home.begin() as session:
        if kit:
            new = reprint_kit(
                session, kit, because=because, now=home.clock(), actor=who(), cipher=home.cipher, indexes=home.index
            )
            typer.echo(f"Kit {show_kit_code(kit)} is void and waits to be packed again, as {show_kit_code(new)}.")
        else:
            again = void_batch(
                session, batch, because=because, now=home.clock(), actor=who(), cipher=home.cipher, indexes=home.index
            )
            typer.echo(f"The batch is void; {again} kits wait to be packed again.")


@app.command()
def problem(
    code: Annotated[str, typer.Argument(help="The kit that left.")],
    what: Annotated[str, typer.Option(help="lost, not_received, arrived_opened or incomplete.")],
) -> None:
    """Take down what became of a kit that left: a case with a due time; its reminders stop."""
    from app.wiring import connect
    from models.actions.replacement import report_problem
    from models.rules.errors import Code, ServiceError
    from models.rules.parcel import KitProblem

    if what not in set(KitProblem):
        raise ServiceError(Code.BAD_INPUT, f"There is no problem {what}: {', '.join(KitProblem)}.")
    home = connect()
    with home.begin() as session:
        report_problem(session, _code(code), KitProblem(what), services=home.services, now=home.clock(), actor=who())
    typer.echo("It is a case now, and this kit's reminders stop.")


@app.command()
def replace(
    code: Annotated[str, typer.Argument(help="The kit that left and is void from now on.")],
    because: Annotated[str, typer.Option(help="A short code: lost, not_received, asked_for. Kept in the audit.")],
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Ask for another address, line by line, the postcode last.")
    ] = False,
) -> None:
    """Send another kit in the stead of one that left. The first is void; should its sample come, a person decides."""
    from app.wiring import connect
    from models.actions.replacement import replace_kit
    from models.rules.kit import show_kit_code

    address = _asked_address() if elsewhere else None
    home = connect()
    with home.begin() as session:
        made = replace_kit(
            session,
            _code(code),
            because=because,
            services=home.services,
            now=home.clock(),
            actor=who(),
            cipher=home.cipher,
            indexes=home.index,
            address=address,
        )
        typer.echo(f"Kit {show_kit_code(made.code)} waits to be packed in its stead.")


def _asked_address() -> "Address":
    """Typed, not an option: what stands on a command line is kept by shells and seen by others."""
    from models.rules.errors import Code, ServiceError
    from models.rules.order import Address
    from models.rules.person import read_postcode

    lines = []
    while line := typer.prompt("Line, or nothing to end", default="", show_default=False).strip():
        lines.append(line)
    postcode = read_postcode(typer.prompt("Postcode"))
    if not lines or postcode is None:
        raise ServiceError(Code.BAD_INPUT, "An address needs a line and a whole UK postcode.")
    return Address(tuple(lines), postcode)


def _code(code: str) -> str:
    from models.rules.errors import Code, ServiceError
    from models.rules.kit import normalise_kit_code

    kit = normalise_kit_code(code)
    if kit is None:
        raise ServiceError(Code.BAD_INPUT, "This is no kit code: check each of its ten characters.")
    return kit


def _operator(service_ids: Iterable[str]) -> "Actor":
    """Whoever may run commands on this machine, named in the audit."""
    from models.rules.staff import Actor, Role

    return Actor(who(), frozenset({Role.CLINICIAN}), frozenset(service_ids))
