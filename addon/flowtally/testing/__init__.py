"""What the pytest plugin does once an option, a marker or a fixture asks for it."""
