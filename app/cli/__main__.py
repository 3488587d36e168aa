"""`python -m app.cli`: the kitpost command where its script is not installed."""

from app.cli import main

main()
