"""What mitmproxy's -s is given: `mitmdump -s addon/main.py`.

In a checkout this file lies beside the package, installed it lies inside it; either way the package
is found from here, whatever else the Python that runs mitmproxy has installed.
"""

import sys
from pathlib import Path

_here = Path(__file__).resolve().parent
sys.path.insert(0, str(_here if (_here / "flowtally").is_dir() else _here.parent))

from flowtally.addon import Flowtally  # noqa: E402  # the line above makes it importable
from mitmproxy.hooks import all_hooks  # noqa: E402

addons = [Flowtally()]

# For each hook of each flow, mitmproxy looks into this module before it comes to the addon. That a
# name is missing is an error, whose text Python made each time before 3.12. A name that is there
# without a value costs nothing: mitmproxy passes over it. Only of `add_log` it warns even then.
globals().update(dict.fromkeys(all_hooks.keys() - {"add_log"}))
