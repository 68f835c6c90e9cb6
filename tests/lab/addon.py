"""The addon in a mitmproxy of its own, without a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowtally.addon import Flowtally
from mitmproxy.test import taddons


@contextmanager
def running(path: Path, **options: Any) -> Iterator[Flowtally]:
    """The addon, loaded and running, in a mitmproxy of its own."""
    with taddons.context(loadcore=False) as context:
        addon = Flowtally()
        context.master.addons.add(addon)
        context.options.update(flowtally_log=str(path), **options)
        addon.configure(context.options.keys())
        addon.running()
        yield addon
        if addon.session is not None:
            addon.done()
