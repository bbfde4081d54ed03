"""The runner: `python -m runner` runs the series and publishes it; no notebook imports it."""
