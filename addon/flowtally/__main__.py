"""`python -m flowtally`."""

from .cli import main

if __name__ == "__main__":  # logs.py starts processes, which import this module again
    main(prog_name="flowtally")
