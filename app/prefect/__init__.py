"""How we use Prefect: its files, and that it never reports to its makers, wherever we import it first."""

import os

os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
