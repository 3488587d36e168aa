"""What a worker starts for one flow run: Prefect's own engine, in a process that looks for no garbage as it begins.

Everything imported here stays until the run ends, and Prefect and our tables are a third of a million objects: the
collector would go through them again and again, for a second and a half of each run (docs/performance.md).
"""

import gc
import runpy

gc.disable()
import prefect.flow_engine  # noqa: E402, F401 - what the engine is about to import

import app.wiring  # noqa: E402, F401 - and what every flow imports

gc.freeze()
gc.enable()

if __name__ == "__main__":
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
