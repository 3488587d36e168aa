"""How we use Prefect: its files, and that it never reports to its makers, wherever we import it first."""

import os
from typing import Final

os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"

WARM_SOCKET: Final = os.environ.get("KITPOST_WARM_SOCKET", "")
"""Read without the settings, whose import takes longer than all that is done with it (see `app.settings`)."""
