"""The kitpost command. Each command stands in a file of its own and imports what it needs when it runs."""

import sys

import typer

from app.cli import (
    audit,
    clock,
    collect,
    deploy,
    kit,
    lab,
    labels,
    listen,
    migrate,
    mllp,
    orders,
    post,
    reconcile,
    report,
    scan,
    states,
    stock,
    texts,
    up,
    warm,
)
from models.rules.errors import ServiceError

cli = typer.Typer(
    name="kitpost",
    help="Self-sampling kits for a council's sexual health service: every kit accounted for, no positive ever lost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cli.command()(up.up)
cli.command()(migrate.migrate)
cli.command()(deploy.deploy)
cli.command()(listen.listen)
cli.command()(collect.collect)
cli.command()(mllp.mllp)
cli.command()(reconcile.reconcile)
cli.command()(report.report)
cli.command()(scan.scan)
cli.command()(states.states)
cli.command()(warm.warm)
cli.add_typer(audit.app, name="audit")
cli.add_typer(clock.app, name="clock")
cli.add_typer(kit.app, name="kit")
cli.add_typer(lab.app, name="lab")
cli.add_typer(labels.app, name="labels")
cli.add_typer(orders.app, name="orders")
cli.add_typer(post.app, name="post")
cli.add_typer(stock.app, name="stock")
cli.add_typer(texts.app, name="texts")


def main() -> None:
    """Runs one command. An expected failure is one sentence and its own exit code; nothing else is caught."""
    try:
        cli()
    except ServiceError as error:
        typer.echo(error.message, err=True)
        sys.exit(error.exit_code)
