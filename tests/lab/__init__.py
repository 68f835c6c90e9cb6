"""The fault laboratory: real servers with real faults, a real mitmdump, real clients."""
