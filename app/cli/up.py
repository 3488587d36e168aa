"""`kitpost up`: the whole world on this machine, until Ctrl-C."""

import signal
from types import FrameType
from typing import Annotated

import typer


def up(
    seed: Annotated[int, typer.Option(help="What the SMS provider's mischief is drawn from.")] = 1,
    faults: Annotated[float, typer.Option(min=0, max=1, help="Share of its answers that go wrong.")] = 0.2,
    any_ports: Annotated[bool, typer.Option(help="Take ports that are free instead of the usual ones.")] = False,
) -> None:
    """Run every service on this machine, on loopback, and stay until Ctrl-C.

    PostgreSQL, S3 and SQS, the SMS provider, the courier, sign-in, Prefect's server and worker, the
    web application, and the door for a laboratory's HL7 messages. State, logs and made-up secrets are
    kept in KITPOST_STATE_DIR.
    """
    from app.local import Choices, LocalServices
    from app.service import load_services
    from app.service.labs import FOLDER, load_lab_maps
    from app.wiring import local_place
    from models.rules.lab import Form

    asked: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        # Remembered too: an exception that is raised while Python clears something up is lost.
        asked.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    place = local_place()
    maps = load_lab_maps(place.labs_dir or FOLDER)
    laboratory = min((name for name, lab_map in maps.items() if Form.HL7 in lab_map.forms), default="")
    channels = tuple(f"{service.id}/{channel}" for service in load_services().values() for channel in service.channels)
    typer.echo("Starting the services; the first time takes about half a minute.")
    try:
        with LocalServices(
            place.state_dir,
            place.settings_file,
            pg_bin=place.pg_bin,
            choices=Choices(
                api_keys=channels, laboratory=laboratory, seed=seed, faults=faults, usual_ports=not any_ports
            ),
        ) as services:
            for what, where in services.addresses.items():
                typer.echo(f"{what:<10}{where}")
            typer.echo("Ctrl-C ends them all.")
            services.watch(until=lambda: bool(asked))
    except KeyboardInterrupt:
        pass
    typer.echo("All ended.")
