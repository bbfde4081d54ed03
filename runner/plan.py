"""What a call asks for, checked before anything runs: what makes no sense is a ValueError."""

import ast
import json
import sys
from contextlib import suppress
from pathlib import Path

import nbformat
import yaml

from runner import audit

RESULTS = "RESULTS"  # the parameter that the runner gives to every notebook


def read(path):
    """The notebook at `path` as nbformat's node."""
    try:
        return nbformat.read(path, as_version=4)
    except ValueError as error:
        raise ValueError(f"{path} is not a notebook: {error}") from None


def needs(path):
    """Names of the notebooks whose results the one at `path` reads (metadata `series.needs`)."""
    return list(read(path).metadata.get("series", {}).get("needs", []))


def parameters(path):
    """Defaults of the cell tagged `parameters`: dict of UPPER_CASE name -> literal."""
    try:
        (cell,) = [c for c in read(path).cells if "parameters" in c.metadata.get("tags", [])]
        lines = ast.parse(cell.source).body
        return {line.targets[0].id: ast.literal_eval(line.value) for line in lines}
    except (AttributeError, SyntaxError, ValueError):
        raise ValueError(
            f"{path.stem} needs one cell tagged 'parameters' that holds lines of NAME = literal"
        ) from None


def from_text(text, default):
    """The value that the command line means by `text`, for a parameter with this default."""
    for parse in (ast.literal_eval, yaml.safe_load):  # 1e-3 is a number, [a, b] a list of texts
        with suppress(SyntaxError, ValueError, yaml.YAMLError):
            return text if isinstance(default, str) else parse(text)
    return text


def fit_type(name, value, default, notebook):
    """`value` if its type is that of the default (a whole number may stand for a float)."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is not None and type(value) is not type(default):
        kind = type(default).__name__
        raise ValueError(f"{name} must be of type {kind}, like {default!r} ({notebook}): {value!r}")
    if isinstance(default, list) and default:
        return [fit_type(f"{name}[{i}]", v, default[0], notebook) for i, v in enumerate(value)]
    return value


def spread(name, value, defaults, chosen, parse=lambda value, default: value):
    """Set parameter `name` in `chosen` of every notebook that has it; ValueError where none has."""
    if name == RESULTS:
        raise ValueError(f"{name} is set by the runner: choose the folder with --run")
    known = sorted({p for values in defaults.values() for p in values} - {RESULTS})
    if name not in known:
        raise ValueError(f"unknown parameter {name}; the parameters are {', '.join(known)}")
    for notebook, values in defaults.items():
        if name in values:
            given = parse(value, values[name])
            chosen[notebook][name] = fit_type(name, given, values[name], notebook)


def profile(root, name, defaults):
    """What the files `notebooks/params/<name>/<notebook>.yaml` set: dict notebook -> dict.

    Each is a flat mapping, which papermill's -f takes as well.
    """
    folder, chosen = Path(root, "notebooks", "params", name), {n: {} for n in defaults}
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in folder.parent.glob("*/")))
        raise ValueError(f"no profile {name!r}: the profiles are {known} ({folder.parent})")
    for path in sorted(folder.glob("*.yaml")):
        if path.stem not in defaults:
            raise ValueError(f"{path}: no notebook {path.stem!r}; known: {', '.join(defaults)}")
        for key, value in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
            spread(key, value, {path.stem: defaults[path.stem]}, chosen)
    return chosen


def check_kernel():
    """ValueError where the kernel of this environment starts the Python of another place."""
    spec = audit.load(Path(sys.prefix, "share/jupyter/kernels/python3/kernel.json"))
    python = Path(spec["argv"][0] if spec else "python")
    if python.is_absolute() and python.parent.parent.resolve() != Path(sys.prefix).resolve():
        raise ValueError(f"moved: the kernel of {sys.prefix} starts {python}; run make env again")


def make_plan(args, root):
    """Everything that is known before anything runs: dict."""
    root, run, words = Path(root).resolve(), args.run, args.notebooks.replace(",", " ").split()
    if run is not None and (not run.strip() or run[0] == "." or {"/", "\\"} & set(run)):
        raise ValueError(f"--run {run!r}: a name may not be empty, begin with a dot, hold a slash")
    check_kernel()
    paths = {p.stem: p for p in sorted(Path(root, "notebooks").glob("[0-9][0-9]_*.ipynb"))}
    if strangers := set(words) - {*paths, *(name[:2] for name in paths)}:
        raise ValueError(f"--notebooks: no {min(strangers)!r}; there are {', '.join(paths)}")
    defaults = {name: parameters(path) for name, path in paths.items()}
    chosen = profile(root, args.profile, defaults)
    if args.data is not None:
        here = Path(args.data).expanduser()
        known = Path(root, here).is_dir() or not here.is_dir()  # else named from another folder
        spread("DATA", str(here if known else here.resolve()), defaults, chosen)
    for name, sign, value in (pair.partition("=") for pair in args.given):
        if not sign:
            raise ValueError(f"-p takes NAME=value, not {name!r}")
        spread(name, value, defaults, chosen, from_text)
    values = {name: {**defaults[name], **chosen[name]} for name in paths}
    data = [given["DATA"] for given in values.values() if "DATA" in given]
    images = audit.source(data[0]) if data else None
    return {
        "root": root, "runs": root / args.reports, "run": run or ("breakhis" if images else "demo"),
        "profile": args.profile, "paths": paths, "parameters": values, "images": images,
        "wanted": [n for n in paths if not words or {n, n[:2]} & {*words}],
        "timeout": args.timeout, "fresh": args.fresh,
        "asked": json.dumps([args.profile, chosen, str(images)]),
    }  # fmt: skip
