"""`python -m flowtally`."""

from .cli import main

main(prog_name="flowtally")
