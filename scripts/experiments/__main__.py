"""Runs one experiment in this interpreter: NAME FOLDER RESULT [--quick]; for `laboratory.py`."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from .result import Result


def main() -> None:
    """Run it, and write what came of it into the file RESULT, as JSON."""
    name, folder, path, *options = sys.argv[1:]
    result = Result()

    def tell() -> None:
        from mitmproxy import version  # takes a while; until then, nothing was found

        generation = f"mitmproxy {version.VERSION}, Python {sys.version.split()[0]}"
        new = Path(f"{path}.new")
        new.write_text(json.dumps({"generation": generation, **asdict(result)}))
        new.replace(path)

    def end(*_: object) -> None:
        # At once: what is taken away on the way out, and pools that wait, may need longer than
        # there is.
        tell()
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    try:
        module = importlib.import_module(f".{name}", __package__)
        module.run("--quick" in options, Path(folder), result)
    except Exception as error:
        traceback.print_exc()
        told = (str(error).splitlines() or [""])[0][:300]
        result.failures.append(f"it did not end: {type(error).__name__}: {told}")
    finally:
        tell()


if __name__ == "__main__":
    main()
