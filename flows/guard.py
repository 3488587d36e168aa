"""What every flow runs in: Prefect learns a code and a reference, our own log learns the rest.

Prefect keeps exception texts in states, logs and events, and pickles the exception itself; a
database error's text holds the row. So nothing leaves a flow but a `FlowError` of two words.
"""

import logging
import secrets
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from models.rules.errors import Code, ServiceError

log: Final = logging.getLogger("kitpost")
"""Our own log. Prefect stores a logger's lines only when PREFECT_LOGGING_EXTRA_LOGGERS names it; don't."""

P = ParamSpec("P")
R = TypeVar("R")


class FlowError(ServiceError):
    """All that Prefect is told of a failure: the code, and where in our own log the rest stands."""

    def __init__(self, code: Code, ref: str) -> None:
        super().__init__(code, f"{code} {ref}", ref=ref)

    def __reduce__(self) -> "tuple[type[FlowError], tuple[Code, str]]":
        return type(self), (self.code, self.ref)


def guarded(flow_name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Put between @flow and the function: lets nothing out but FlowError.

    The log gets the kind of error, where it arose and our own sentences: no row and no value.
    """

    def decorate(body: Callable[P, R]) -> Callable[P, R]:
        @wraps(body)
        def within_guard(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return body(*args, **kwargs)
            except FlowError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, its text must not reach Prefect
                code = error.code if isinstance(error, ServiceError) else Code.UNEXPECTED
                failure = FlowError(code, secrets.token_hex(4))
                log.error("%s failed: %s: %s", flow_name, failure, _detail(error))  # noqa: TRY400 - no foreign words
            # Raised out here, where the first exception is over, so that it is neither cause nor context.
            raise failure

        return within_guard

    return decorate


def _detail(error: BaseException) -> str:
    """What failed and where, without the words of foreign exceptions: those hold rows, numbers and addresses."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        said = f" ({cause.message})" if isinstance(cause, ServiceError) else ""
        state = getattr(getattr(cause, "orig", cause), "sqlstate", None)
        where = " < ".join(
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}"
            for frame in reversed(traceback.extract_tb(cause.__traceback__)[-8:])
        )
        chain.append(f"{type(cause).__name__}{f' {state}' if state else ''}{said} at {where or 'nowhere'}")
        cause = cause.__cause__ or cause.__context__
    return "; from ".join(chain)
