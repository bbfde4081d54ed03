"""`python -m runner`."""

if __name__ == "__main__":  # the process of a notebook imports this file too
    from runner.series import main

    raise SystemExit(main())
