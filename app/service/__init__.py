"""Councils' choices: one TOML file a service, typed, checked whole at start.

A wrong key, type or missing policy stops the start with a sentence that names the file and the key.
"""

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from models.rules.clinic import CaseKind
from models.rules.errors import Code, ServiceError
from models.rules.lab_request import RequestForm, RequestWay
from models.rules.person import read_postcode
from models.rules.postage import PostWay
from models.rules.service import LONGEST_TOLD_AS, Service
from models.rules.text import is_neutral
from models.rules.vocabulary import Specimen

SHIPPED: Final = Path(__file__).parent
"""The fictional borough; real councils keep their files in the folder that KITPOST_SERVICE_DIR names."""

_ADAPTER: Final = TypeAdapter(Service)

_WHOLE_PERCENT: Final = 100
_MOST_LINES: Final = 4


def load_services(folder: Path = SHIPPED) -> dict[str, Service]:
    """Every service of a folder, by id. Raises ServiceError(SETTINGS) naming file and key."""
    services = {}
    for path in sorted(folder.glob("*.toml")):
        service = load_service(path)
        if service.id != path.stem:
            raise _wrong(path, "id", f"must be {path.stem!r}, like the file's name")
        services[service.id] = service
    if not services:
        raise ServiceError(Code.SETTINGS, f"There is no service in {folder.name}/: put one TOML file a council there.")
    return services


def load_service(path: Path) -> Service:
    """One service from its file. Raises ServiceError(SETTINGS) naming file and key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, "", f"is not TOML: {error}") from error
    _check_known(content, Service, path, "")
    try:
        service = _ADAPTER.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise _wrong(path, ".".join(map(str, first["loc"])), first["msg"].lower()) from error
    _check_whole(service, path)
    return service


def as_document(service: Service) -> dict[str, Any]:
    """A service as JSON values in one order, for its stored version."""
    return typing.cast("dict[str, Any]", _plain(dataclasses.asdict(service)))


def _check_known(content: object, kind: Any, path: Path, where: str) -> None:
    """Refuses keys that no field reads: a mistyped policy would silently be the default."""
    if dataclasses.is_dataclass(kind) and isinstance(content, dict):
        hints = typing.get_type_hints(kind)
        for key, value in content.items():
            if key not in hints:
                raise _wrong(path, f"{where}{key}", "is not a setting of a service")
            _check_known(value, hints[key], path, f"{where}{key}.")
    elif isinstance(content, list):
        inner = [each for each in typing.get_args(kind) if each is not Ellipsis]
        for number, value in enumerate(content):
            _check_known(value, inner[0] if inner else None, path, f"{where}{number}.")
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        for each in typing.get_args(kind):
            _check_known(content, each, path, where)


def _check_whole(service: Service, path: Path) -> None:
    """What a type can't say: a due time for every kind of case, a window for every test, a signature where needed."""
    due = service.clinic.due_working_hours or {}
    if missing := [kind.value for kind in CaseKind if kind.value not in due]:
        raise _wrong(path, f"clinic.due_working_hours.{missing[0]}", "is missing: every kind of case needs a due time")
    if unknown := sorted(set(due) - {kind.value for kind in CaseKind}):
        raise _wrong(path, f"clinic.due_working_hours.{unknown[0]}", "is not a kind of case")
    for role, address in (service.clinic.duty_mails or {}).items():
        if not re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;]+", address):
            raise _wrong(path, f"clinic.duty_mails.{role}", "is no e-mail address: one shared mailbox a role")
    if not service.labs:
        raise _wrong(path, "labs", "is empty: a service needs a laboratory")
    windows = service.release.window_days or {}
    for contract in service.labs:
        if missing_windows := sorted(test.value for test in contract.tests if test not in windows):
            raise _wrong(path, f"release.window_days.{missing_windows[0]}", "is missing: texts need it")
        if contract.requests_by is RequestWay.MLLP and contract.requests is not RequestForm.HL7:
            raise _wrong(path, f"labs.{contract.lab}.requests", "must be hl7 where requests go by mllp")
        if not contract.carries_tube and not contract.tubeless_signed_by:
            where = f"labs.{contract.lab}.tubeless_signed_by"
            raise _wrong(path, where, "is missing: going without tube ids is signed for")
    _check_post(service, path)
    _check_recipes(service, path)
    _check_collection(service, path)
    _check_clinics(service, path)
    split = service.returns.split
    if split and (not re.fullmatch("[a-z0-9_]{1,18}", split.name) or not 0 < split.percent_b < _WHOLE_PERCENT):
        raise _wrong(path, "returns.split", "needs a name of at most 18 small letters, and 1 to 99 per cent for arm b")
    if not service.orders.local_authorities:
        raise _wrong(path, "orders.local_authorities", "is empty: nobody could order")


def _check_post(service: Service, path: Path) -> None:
    post = service.post
    if post.return_labels and not (post.labels and post.way is PostWay.CLICK_AND_DROP):
        raise _wrong(path, "post.return_labels", 'needs way = "click_and_drop" and labels = true: they come together')


def _check_recipes(service: Service, path: Path) -> None:
    """A recipe for each sample of each laboratory, where stock is kept; components by one spelling."""
    known = {recipe_part for recipe in service.recipes for recipe_part in recipe.components}
    for number, recipe in enumerate(service.recipes):
        if service.contract(recipe.lab) is None:
            raise _wrong(path, f"recipes.{number}.lab", "has no contract in this file")
        for component, pieces in recipe.components.items():
            if not re.fullmatch("[a-z][a-z0-9_]{0,39}", component) or pieces < 1:
                where = f"recipes.{number}.components.{component}"
                raise _wrong(path, where, "must be a word of small letters and a number of pieces")
    if unknown := sorted(set(service.stock.low_below) - known):
        raise _wrong(path, f"stock.low_below.{unknown[0]}", "is in no recipe")
    if service.stock.controlled:
        there = {(recipe.lab, recipe.specimen) for recipe in service.recipes}
        for specimen in Specimen:
            if (service.labs[0].lab, specimen) not in there:
                raise _wrong(path, "recipes", f"have none for a {specimen.value} at {service.labs[0].lab}")


def _check_clinics(service: Service, path: Path) -> None:
    for number, clinic in enumerate(service.clinics):
        if not re.fullmatch("[a-z0-9][a-z0-9-]{0,39}", clinic.id) or not clinic.name.strip():
            raise _wrong(path, f"clinics.{number}", "needs an id of small letters, digits and hyphens, and a name")


def _check_collection(service: Service, path: Path) -> None:
    """Counters by one id each, with an address that can be written to and a name that any text may carry."""
    ids = [point.id for point in service.collection.points]
    for number, point in enumerate(service.collection.points):
        where = f"collection.points.{number}"
        if not re.fullmatch("[a-z0-9][a-z0-9-]{0,39}", point.id) or ids.count(point.id) > 1:
            raise _wrong(path, f"{where}.id", "must be small letters, digits and hyphens, and no other point's")
        if not point.name.strip() or not 1 <= len(point.lines) <= _MOST_LINES:
            raise _wrong(path, where, f"needs a name, and an address of one to {_MOST_LINES} lines")
        if read_postcode(point.postcode) != point.postcode:
            raise _wrong(path, f"{where}.postcode", "is no postcode, or not written as usual: LS1 4AP")
        if len(point.told_as) > LONGEST_TOLD_AS or not is_neutral(point.told_as):
            what = f"is said in texts: at most {LONGEST_TOLD_AS} plain characters, and no word of health or a clinic"
            raise _wrong(path, f"{where}.told_as", what)
    if service.collection.hold_days < 1:
        raise _wrong(path, "collection.hold_days", "must be a day or more")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in sorted(value.items())}
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool | int | float) or value is None:
        return value
    return value.isoformat() if isinstance(value, date) else str(value)


def _wrong(path: Path, key: str, what: str) -> ServiceError:
    return ServiceError(Code.SETTINGS, f"{path.name}: {key or 'the file'} {what}.")
