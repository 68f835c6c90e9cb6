"""The laboratory's experiments, a module each. `scripts/laboratory.py` runs them."""
