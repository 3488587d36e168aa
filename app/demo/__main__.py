"""`python -m app.demo`: the whole journey for a fictional borough, from outside, with a judge at the end."""

from app.demo.run import main

main()
