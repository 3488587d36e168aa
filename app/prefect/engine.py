"""What a worker starts for one flow run: Prefect's own engine, with everything imported as quickly as can be.

A warm process takes the run over where there is one (`app.prefect.warm`). Otherwise it is imported here, and the
collector is kept off it: Prefect and our tables are a third of a million objects that stay until the run ends, and it
would go through them again and again, for a second and a half (docs/performance.md).
"""

import sys

from app.prefect import WARM_SOCKET, warm


def import_all() -> None:
    """What every flow needs, and Prefect's engine."""
    import gc
    from importlib import import_module

    gc.disable()
    for module in ("prefect.flow_engine", "app.wiring"):
        import_module(module)
    gc.freeze()
    gc.enable()


def carry_out() -> None:
    """The run that the environment names. Ends the process."""
    import runpy

    sys.argv = ["prefect.engine"]
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    taken = warm.ask(WARM_SOCKET) if WARM_SOCKET else None
    if taken is not None:
        sys.exit(taken)
    import_all()
    carry_out()
