"""`kitpost labels`: the leaflet in the box, and one look at all artwork. Neither needs a database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.rules.vocabulary import Language, Specimen

if TYPE_CHECKING:
    from models.rules.service import Service

app = typer.Typer(help="Print: the leaflet that goes into a box, and a preview of all artwork.", no_args_is_help=True)

Of = Annotated[str, typer.Option("--service", help="Which service's; may be left out where there is one.")]
Files = Annotated[
    Path | None,
    typer.Option(
        "--services", envvar="KITPOST_SERVICE_DIR", help="Folder of the councils' files.", exists=True, file_okay=False
    ),
]


@app.command()
def leaflet(
    file: Annotated[Path, typer.Argument(help="The PDF to write.", dir_okay=False, writable=True)],
    samples: Annotated[
        list[Specimen] | None, typer.Option("--sample", help="A sample of the kit; say it once for each. All if none.")
    ] = None,
    language: Annotated[Language, typer.Option(help="en or cy.")] = Language.ENGLISH,
    large: Annotated[bool, typer.Option("--large", help="A4 in 18 points, for somebody who asked for it.")] = False,
    service: Of = "",
    services: Files = None,
) -> None:
    """Write the leaflet for one kind of kit: how to take each of its samples, in pictures and steps."""
    from app.wiring import draw_leaflet

    ours = _service(service, services)
    chosen = samples or list(Specimen)
    file.write_bytes(draw_leaflet(ours, chosen, language, large=large))
    typer.echo(f"{file}: {', '.join(each.replace('_', ' ') for each in chosen)}, {language}.")


@app.command()
def preview(
    folder: Annotated[Path, typer.Argument(help="Where the PDFs and their pictures go; made if it is not there.")],
    service: Of = "",
    services: Files = None,
) -> None:
    """Write every label, form and leaflet for invented kits, each as a PDF and as a contact sheet, to be looked at.

    Every barcode on the labels is read back, as before a print batch may leave.
    """
    from app.wiring import preview_artwork

    drawn = preview_artwork(_service(service, services))
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pdf, picture) in drawn.items():
        (folder / f"{name}.pdf").write_bytes(pdf)
        (folder / f"{name}.png").write_bytes(picture)
        typer.echo(f"{folder / name}.pdf and .png")


def _service(wanted: str, folder: Path | None) -> "Service":
    """The service that is meant, from its file alone."""
    from app.service import SHIPPED, load_services
    from models.rules.errors import Code, ServiceError

    services = load_services(folder or SHIPPED)
    if not wanted and len(services) == 1:
        return next(iter(services.values()))
    if wanted not in services:
        raise ServiceError(Code.NOT_FOUND, f"Say which with --service: {', '.join(sorted(services))}.")
    return services[wanted]
