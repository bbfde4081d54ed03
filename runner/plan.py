"""What a call asks for, checked before anything runs: what makes no sense is a ValueError."""

import ast
import json
import sys
from contextlib import suppress
from pathlib import Path

import nbformat
import yaml

from runner import audit

RESERVED = "RESULTS"  # the parameter that the runner gives to every notebook


def series(root):
    """Notebooks in reading order: dict name -> path, of `notebooks/NN_name.ipynb` under `root`."""
    found = {p.stem: p for p in sorted(Path(root, "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise ValueError(f"no notebook named NN_name.ipynb in {Path(root, 'notebooks')}")
    return found


def read(path):
    """The notebook as nbformat's node."""
    try:
        return nbformat.read(path, as_version=4)
    except ValueError as error:
        raise ValueError(f"{path} is not a notebook: {error}") from None


def needs(notebook):
    """Names of the notebooks whose results this one reads (metadata `series.needs`)."""
    return list(notebook.metadata.get("series", {}).get("needs", []))


def parameters(path):
    """Defaults of the cell tagged `parameters`: dict of UPPER_CASE name -> literal."""
    tagged = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
    try:
        (cell,) = tagged
        lines = ast.parse(cell.source).body
        return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}
    except (AttributeError, SyntaxError, ValueError):
        raise ValueError(
            f"{path.stem} needs one cell tagged 'parameters' that holds lines of NAME = literal"
        ) from None


def from_text(text, default):
    """The value that the command line means by `text`, for a parameter with this default."""
    if isinstance(default, str):
        return text
    for parse in (ast.literal_eval, yaml.safe_load):  # 1e-3 is a number, [a, b] a list of texts
        with suppress(SyntaxError, ValueError, yaml.YAMLError):
            return parse(text)
    return text


def fit_type(name, value, default, notebook):
    """`value` if its type is that of the default (a whole number may stand for a float)."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(
            f"{name} must be of type {type(default).__name__}, like {default!r} "
            f"({notebook}), not {value!r}"
        )
    if isinstance(default, list) and default:
        return [fit_type(f"{name}[{i}]", v, default[0], notebook) for i, v in enumerate(value)]
    return value


def spread(name, value, defaults, chosen, parse=None):
    """Set parameter `name` in `chosen` of every notebook that has it; ValueError where none has.

    parse: a function of the value and the default, for values from the command line.
    """
    if name == RESERVED:
        raise ValueError(f"{name} is set by the runner: choose the folder with --run")
    holders = [notebook for notebook in defaults if name in defaults[notebook]]
    if not holders:
        known = sorted({p for values in defaults.values() for p in values} - {RESERVED})
        raise ValueError(f"unknown parameter {name}; the parameters are {', '.join(known)}")
    for notebook in holders:
        default = defaults[notebook][name]
        given = parse(value, default) if parse else value
        chosen[notebook][name] = fit_type(name, given, default, notebook)


def profile(root, name, defaults):
    """What the files `notebooks/params/<name>/<notebook>.yaml` set: dict notebook -> dict.

    Each is a flat mapping, which papermill's -f takes as well.
    """
    folder = Path(root, "notebooks", "params", name)
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in folder.parent.glob("*/")))
        raise ValueError(f"no profile {name!r}: the profiles are {known} ({folder.parent})")
    chosen = {notebook: {} for notebook in defaults}
    for path in sorted(folder.glob("*.yaml")):
        if path.stem not in defaults:
            raise ValueError(f"{path}: no notebook {path.stem!r}; known: {', '.join(defaults)}")
        for key, value in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
            spread(key, value, {path.stem: defaults[path.stem]}, chosen)
    return chosen


def select(names, wanted):
    """Names of the notebooks that `wanted` means: "03 04", "03_baseline_cnn", or "" for all."""
    words = wanted.replace(",", " ").split()
    if strangers := set(words) - {*names, *(name.split("_")[0] for name in names)}:
        raise ValueError(
            f"--notebooks: no notebook {min(strangers)!r}; there are {', '.join(names)}"
        )
    return [name for name in names if not words or {name, name.split("_")[0]} & set(words)]


def check_kernel():
    """ValueError where the kernel of this environment starts the Python of another place."""
    spec = Path(sys.prefix, "share/jupyter/kernels/python3/kernel.json")
    python = Path(json.loads(spec.read_text())["argv"][0]) if spec.exists() else Path()
    if python.is_absolute() and python.parent.parent.resolve() != Path(sys.prefix).resolve():
        raise ValueError(f"moved: the kernel of {sys.prefix} starts {python}; run make env again")


def make_plan(args, root):
    """Everything that is known before anything runs: dict."""
    root, run = Path(root).resolve(), args.run
    if run is not None and (run.startswith(".") or not run.strip() or {"/", "\\"} & set(run)):
        raise ValueError(f"--run {run!r}: a name may not be empty, begin with a dot, hold a slash")
    check_kernel()
    paths = series(root)
    defaults = {name: parameters(path) for name, path in paths.items()}
    chosen = profile(root, args.profile, defaults)
    if args.data is not None:
        here = Path(args.data).expanduser()
        inside = Path(root, here).is_dir() or not here.is_dir()
        spread("DATA", str(here if inside else here.resolve()), defaults, chosen)
    for pair in args.given:
        name, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"-p takes NAME=value, not {pair!r}")
        spread(name, value, defaults, chosen, from_text)
    values = {name: {**defaults[name], **chosen[name]} for name in paths}
    data = [given["DATA"] for given in values.values() if "DATA" in given]
    images = audit.source(data[0]) if data else None
    return {
        "root": root, "runs": root / args.reports, "run": run or ("breakhis" if images else "demo"),
        "profile": args.profile, "paths": paths, "parameters": values, "images": images,
        "wanted": select(list(paths), args.notebooks), "timeout": args.timeout, "fresh": args.fresh,
        "asked": [args.profile, chosen, str(images)],
    }  # fmt: skip
