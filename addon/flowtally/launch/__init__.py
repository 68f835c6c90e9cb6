"""A mitmdump of one's own: started with the addon for a command, a browser or a test run, and ended
with it.

`process` runs in mitmdump's process, everything else in that of who starts it, which does not
import mitmproxy: that takes longer than all the rest.
"""
