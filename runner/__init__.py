"""The runner: `python -m runner` runs the series and publishes it; no notebook imports it.

series (the command, the order of work, staging), plan (what a call asks for), provenance (hashes),
execute (a notebook in a process of its own), audit (checks on the tables), publish and readme (the
pages), fetch (`python -m runner.fetch` gets the database).
"""
