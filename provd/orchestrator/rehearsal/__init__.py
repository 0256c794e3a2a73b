"""A rebuild, looked at before anything is wiped."""
