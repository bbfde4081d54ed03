"""The runner: `python -m helpers.runner` runs the series and publishes its report.

- series: the command, the order of work, run.json
- plan: what to run, with which parameters, under which name
- notebooks: the notebooks as files, their parameters, the helpers they import
- provenance: hashes, by which done-and-valid is decided
- steps, worker, failures: one notebook, in a process of its own, and what is said when it fails
- staging: the lock, the staging folder, publication by renaming
- audit: checks on a finished run's tables
"""
