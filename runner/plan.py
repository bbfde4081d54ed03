"""What a call asks for, checked before anything runs: what makes no sense is a ValueError."""

import ast
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import papermill
import yaml

from runner import audit

HIDDEN = {"RESULTS", "DATA", "CHECKPOINTS", "SCHEDULER", "N_JOBS"}  # where to compute, not what


def defaults_of(path):
    """Defaults of the cell tagged `parameters`: dict of UPPER_CASE name -> literal."""
    found = papermill.inspect_notebook(str(path))
    try:
        return {name: ast.literal_eval(found[name]["default"]) for name in {"RESULTS": 0, **found}}
    except (KeyError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path.stem}, cell tagged 'parameters': {error!r}") from None


def fit(name, value, default):
    """`value` if its type is that of the default; for a float, 1 and the text 1e-3 will do."""
    if isinstance(default, float) and type(value) in (int, str):
        with suppress(ValueError):
            return float(value)
    if default is not None and type(value) is not type(default):
        kind = type(default).__name__
        raise ValueError(f"{name} must be of type {kind}, like {default!r}, not {value!r}")
    if isinstance(default, list) and default:
        return [fit(f"{name}[{i}]", item, default[0]) for i, item in enumerate(value)]
    return value


def spread(name, value, defaults, chosen, parse=lambda text: text):
    """Set parameter `name` in `chosen` of every notebook that has it; ValueError where none has."""
    known = sorted({p for values in defaults.values() for p in values} - {"RESULTS"})
    if name not in known:
        hint = "the runner sets it (--run)" if name == "RESULTS" else "unknown"
        raise ValueError(f"{name}: {hint}; {', '.join(defaults)} have {', '.join(known)}")
    for notebook, values in defaults.items():
        if name in values:
            given = value if isinstance(values[name], str) else parse(value)
            chosen[notebook][name] = fit(f"{notebook}: {name}", given, values[name])


def profile(root, name, defaults):
    """What `notebooks/params/<name>/<notebook>.yaml`, which papermill's -f takes too, sets."""
    folder, chosen = root / "notebooks" / "params" / name, {n: {} for n in defaults}
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in folder.parent.glob("*/")))
        raise ValueError(f"no profile {name!r}: the profiles are {known} ({folder.parent})")
    for path in sorted(folder.glob("*.yaml")):
        if path.stem not in defaults:
            raise ValueError(f"{path}: no notebook {path.stem!r}; known: {', '.join(defaults)}")
        for key, value in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
            spread(key, value, {path.stem: defaults[path.stem]}, chosen)
    return chosen


def make_plan(args, root):
    """Everything that is known before anything runs: dict."""
    root, run, words = Path(root).resolve(), args.run, args.notebooks.replace(",", " ").split()
    if run is not None and (not run.strip() or run[0] == "." or {"/", "\\"} & set(run)):
        raise ValueError(f"--run {run!r}: a name may not be empty, begin with a dot, hold a slash")
    if args.timeout <= 0:
        raise ValueError(f"--timeout {args.timeout}: above 0 s; 99999999 is practically no limit")
    kernel = audit.load(Path(sys.prefix, "share/jupyter/kernels/python3/kernel.json"))
    if kernel and not shutil.which(kernel["argv"][0]):
        raise ValueError(f"moved: {kernel['argv'][0]} is not there any more; run make env again")
    paths = {p.stem: p for p in sorted(root.glob("notebooks/[0-9][0-9]_*.ipynb"))}
    if strangers := set(words) - {*paths, *(name[:2] for name in paths)}:
        raise ValueError(f"--notebooks: no {min(strangers)!r}; there are {', '.join(paths)}")
    defaults = {name: defaults_of(path) for name, path in paths.items()}
    chosen = profile(root, args.profile, defaults)
    if args.data is not None:
        spread("DATA", str(Path(args.data).expanduser().resolve()), defaults, chosen)
    for name, _, value in (pair.partition("=") for pair in args.given):
        spread(name, value, defaults, chosen, yaml.safe_load)
    values = {name: {**defaults[name], **chosen[name]} for name in paths}
    images = next((audit.source(v["DATA"]) for v in values.values() if "DATA" in v), None)
    return vars(args) | {
        "root": root, "runs": root / args.reports, "paths": paths, "parameters": values,
        "run": run or ("breakhis" if images else args.profile), "images": images,
        "wanted": [n for n in paths if not words or {n, n[:2]} & {*words}],
        "asked": [args.profile, chosen, str(images)],
    }  # fmt: skip
