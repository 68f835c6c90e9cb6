"""Runs one experiment in this interpreter: NAME FOLDER RESULT [--quick]; for `laboratory.py`."""

from __future__ import annotations

import importlib
import json
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from mitmproxy import version

from .result import Result


def main() -> None:
    """Run it, and write what came of it into the file RESULT, as JSON."""
    name, folder, path, *options = sys.argv[1:]
    # So that what was started, mounted or made outside the folder is taken away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    result = Result()
    try:
        module = importlib.import_module(f".{name}", __package__)
        module.run("--quick" in options, Path(folder), result)
    except Exception as error:
        traceback.print_exc()
        told = (str(error).splitlines() or [""])[0][:300]
        result.failures.append(f"it did not end: {type(error).__name__}: {told}")
    finally:
        generation = f"mitmproxy {version.VERSION}, Python {sys.version.split()[0]}"
        Path(path).write_text(json.dumps({"generation": generation, **asdict(result)}))


if __name__ == "__main__":
    main()
