"""What mitmproxy's -s is given: `mitmdump -s addon/main.py`.

In a checkout this file lies beside the package, installed it lies inside it; either way the package
is found from here, whatever else the Python that runs mitmproxy has installed.
"""

import sys
from pathlib import Path

_here = Path(__file__).resolve().parent
sys.path.insert(0, str(_here if (_here / "flowtally").is_dir() else _here.parent))

from flowtally.addon import Flowtally  # noqa: E402  # the line above makes it importable

addons = [Flowtally()]
