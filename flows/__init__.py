"""WHEN: one stage of the journey a file; a plain function, and a few lines of @flow round it."""

import app.prefect  # noqa: F401 - before anything of Prefect's own
