"""WHEN: one stage of the journey a file; a plain function, and a few lines of @flow round it.

Imported before anything of Prefect's: it must never report to its makers, wherever a flow runs.
"""

import os

os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
