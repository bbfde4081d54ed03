"""The notebooks of the series as files: order, source, parameters, and the helpers they import."""

import ast
import json
from pathlib import Path

import yaml

RESERVED = {"RESULTS"}  # the runner gives it to every notebook


def series(root):
    """Notebooks in reading order: dict name -> path, of `notebooks/NN_name.ipynb` under `root`."""
    paths = sorted(Path(root, "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"no notebook named NN_name.ipynb in {Path(root, 'notebooks')}")
    return {path.stem: path for path in paths}


def read(path):
    """The notebook's JSON as a dict."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a notebook: {error}") from error


def source(cell):
    """The text of a cell (a notebook file stores it as one string or as lines)."""
    text = cell["source"]
    return text if isinstance(text, str) else "".join(text)


def needs(notebook):
    """Names of the notebooks whose results this one reads (metadata `series.needs`)."""
    return list(notebook["metadata"].get("series", {}).get("needs", []))


def title(notebook):
    """Text of the first heading."""
    lines = (line for cell in notebook["cells"] for line in source(cell).splitlines())
    return next((line[2:].strip() for line in lines if line.startswith("# ")), "Untitled")


def parameters(notebook, name):
    """Defaults of the cell tagged `parameters`: dict of UPPER_CASE name -> literal.

    ValueError where the cell is missing or holds anything but `NAME = literal`.
    """
    tagged = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"{name} has {len(tagged)} cells tagged 'parameters', where one is needed: "
            "tag the cell that holds its NAME = value lines"
        )
    found = {}
    for node in ast.parse(source(tagged[0])).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        try:
            found[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"{name}, parameters cell, line {node.lineno}: only NAME = literal can stand here"
            ) from error
    return found


def from_text(text, default):
    """The value that a command line means by `text`, for a parameter with this default."""
    if isinstance(default, str):
        return text
    try:
        return ast.literal_eval(text)  # also 1e-3, which YAML takes for a string
    except (ValueError, SyntaxError):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text


def fit_type(name, value, default, notebook):
    """`value` if its type is that of the default (a whole number may stand for a float)."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is None:
        return value
    if type(value) is not type(default):
        raise ValueError(
            f"{name} must be of type {type(default).__name__}, like {default!r} "
            f"({notebook}), not {value!r}"
        )
    if isinstance(default, list) and default:
        return [fit_type(f"{name}[{i}]", v, default[0], notebook) for i, v in enumerate(value)]
    return value


def profile(root, name, defaults):
    """Parameters that `notebooks/params/<name>.yaml` gives: dict notebook -> dict.

    `defaults`: dict notebook -> dict of its parameters. The mapping `all` reaches every notebook
    that has the name. ValueError names what is not known.
    """
    path = Path(root, "notebooks", "params", f"{name}.yaml")
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ValueError(f"no profile {name!r}: the profiles are {known or 'none'} ({path.parent})")
    given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for notebook in given:
        if notebook != "all" and notebook not in defaults:
            raise ValueError(f"{path}: no notebook {notebook!r}; known: {', '.join(defaults)}")
    chosen = {notebook: {} for notebook in defaults}
    for key, value in (given.get("all") or {}).items():
        spread(key, value, defaults, chosen)
    for notebook in defaults:
        for key, value in (given.get(notebook) or {}).items():
            spread(key, value, {notebook: defaults[notebook]}, chosen)
    return chosen


def spread(name, value, defaults, chosen, text=False):
    """Set parameter `name` in every notebook that has it; ValueError where none has, or ill-typed.

    `text`: the value is a string from the command line, read by each default's type.
    """
    if name in RESERVED:
        raise ValueError(f"{name} is set by the runner: choose the folder with --run")
    holders = [notebook for notebook in defaults if name in defaults[notebook]]
    if not holders:
        known = sorted({p for values in defaults.values() for p in values} - RESERVED)
        raise ValueError(f"unknown parameter {name}; the parameters are {', '.join(known)}")
    for notebook in holders:
        default = defaults[notebook][name]
        given = from_text(value, default) if text else value
        chosen[notebook][name] = fit_type(name, given, default, notebook)


def imports(code):
    """Dotted names under `helpers` that Python source `code` may import, anywhere in it: set.

    ``from helpers.a import b`` gives both "a" and "a.b": b may be a module or a name in one.
    """
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("helpers.") for name in found if name.startswith("helpers.")}


def module_files(name, root):
    """Files that run when helpers.`name` is imported, its packages first; none where it is not."""
    parts = name.split(".")
    packages = [Path(root, "helpers", *parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    module = Path(root, "helpers", *parts[:-1], f"{parts[-1]}.py")
    return [path for path in (*packages, module) if path.exists()]


def helpers_of(notebook, root):
    """Paths of the helpers modules that the notebook imports, directly or through one another."""
    code = [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    todo, found = {name for text in code for name in imports(plain(text))}, set()
    while todo:
        for path in set(module_files(todo.pop(), root)) - found:
            found.add(path)
            todo |= imports(path.read_text(encoding="utf-8"))
    return sorted(found)


def plain(code):
    """`code` without IPython's magics and shell lines, which are not Python."""
    lines = code.splitlines()
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)
