"""What a call of the runner asks for: notebooks, parameters and the name of the run, all checked.

Whatever makes no sense is refused here, before anything runs.
"""

from pathlib import Path

from helpers.runner import audit, notebooks, provenance


def select(names, wanted):
    """Names of the notebooks that `wanted` means: "03 04", "03_baseline_cnn", or "" for all."""
    chosen = set()
    for word in wanted.replace(",", " ").split():
        matching = [name for name in names if word in (name, name.split("_")[0])]
        if not matching:
            raise ValueError(f"--notebooks: no notebook {word!r}; there are {', '.join(names)}")
        chosen |= set(matching)
    return [name for name in names if name in chosen or not chosen]


def resolve_parameters(paths, args, root):
    """(all parameters, those that profile and command line set): dicts notebook -> dict.

    ValueError before anything runs.
    """
    defaults = {name: notebooks.parameters(notebooks.read(p), name) for name, p in paths.items()}
    chosen = notebooks.profile(root, args.profile, defaults)
    if args.data is not None:
        folder = Path(args.data).expanduser()
        if not Path(root, folder).is_dir() and folder.is_dir():  # named from another folder
            folder = folder.resolve()
        notebooks.spread("DATA", str(folder), defaults, chosen)
    for pair in args.given:
        name, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"-p takes NAME=value, not {pair!r}")
        notebooks.spread(name, value, defaults, chosen, text=True)
    return {name: {**defaults[name], **chosen[name]} for name in paths}, chosen


def make_plan(args, root):
    """Everything that is known before anything runs: dict; ValueError where it makes no sense."""
    root = Path(root).resolve()
    paths = notebooks.series(root)
    parameters, chosen = resolve_parameters(paths, args, root)
    wanted = select(list(paths), args.notebooks)
    run = run_name(args.run, parameters)
    return {
        "root": root, "reports": root / args.reports, "run": run, "paths": paths,
        "parameters": parameters, "wanted": wanted, "timeout": args.timeout, "fresh": args.fresh,
        "about": {"run": run, "profile": args.profile, "asked": asked(args.profile, chosen)},
    }  # fmt: skip


def asked(profile, chosen):
    """Hash of the profile, of the parameters that are set and of the folder of images.

    What a failed run left is taken up only by a call that asks for the same.
    """
    data = {str(audit.source(values.get("DATA", ""))) for values in chosen.values()}
    return provenance.digest([profile, chosen, sorted(data)])


def run_name(given, parameters):
    """The name of the run; ValueError for real images under the name demo.

    reports/demo is kept in git, where no image of the database may go.
    """
    real = any(audit.source(values["DATA"]) for values in parameters.values() if "DATA" in values)
    if real and given == "demo":
        raise ValueError(
            "the run demo is that of the phantom, and its report is kept in git: give a run on "
            "real images another name, as in --run mine (make run RUN=mine)"
        )
    return given or ("breakhis" if real else "demo")
