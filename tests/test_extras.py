"""Each extra of setup.cfg alone brings what its programs import, and setup.cfg's bounds are those that are tested."""

import ast
import configparser
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import modeling_looped_gpt2


ROOT = Path(__file__).parents[1]
OWN = ("modeling_looped_gpt2", "tasks", "scripts")
# what a user installs for each program; a program that is missing here fails the test below
EXTRAS = {
    "benchmark": "eval,plot,train",
    "benchmark_demo": "demo,train",
    "benchmark_lm": "train",
    "benchmark_stops": "eval,train",
    "chain_experiment": "plot,train",
    "compare_specialists": "eval",
    "demo": "demo",
    "evaluate": "eval",
    "headline": "eval,hub",
    "model_card": "hub",
    "plot": "plot",
    "predict": "",
    "probe": "eval,plot",
    "push_to_hub": "hub",
    "report": "plot",
    "seeds": "hub",
    "stages": "hub",
    "study": "eval,plot,train",
    "superposition": "eval",
    "table_suite": "eval",
    "tables": "eval,train",
    "train": "train",
    "train_lm": "train",
}


def setup():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(parser, extra=None):
    """The requirements of an extra, those that it takes over from others included."""
    text = parser["options.extras_require"][extra] if extra else parser["options"]["install_requires"]
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("%("):
            yield from requirements(parser, line[2:].rstrip(")s"))
        elif not line.startswith("#"):
            yield Requirement(line)


@cache
def imported(path):
    """Modules that a file imports where it is imported itself, not inside its functions."""
    names, nodes = set(), list(ast.parse(path.read_text()).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parent.parts
            start = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*start, *filter(None, [node.module])))
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not _of_type_checking(node):
            nodes += ast.iter_child_nodes(node)
    return names


def _of_type_checking(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def needed(path, seen):
    """Top-level packages, not of this project, that running a file imports."""
    packages = set()
    for name in imported(path):
        top = name.split(".")[0]
        if top not in OWN:
            packages.add(top)
            continue
        parts = name.split(".")
        folders = [ROOT.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
        for place in (ROOT.joinpath(*parts).with_suffix(".py"), *folders):
            if place.exists() and place not in seen:
                seen.add(place)
                packages |= needed(place, seen)
    return packages - sys.stdlib_module_names


PROGRAMS = [path for path in sorted((ROOT / "scripts").glob("*.py")) if '__name__ == "__main__"' in path.read_text()]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_runs_with_its_extra_alone(path):
    parser = setup()
    extras = [name for name in EXTRAS[path.stem].split(",") if name]
    declared = {
        requirement.name.lower().replace("_", "-")
        for extra in (None, *extras)
        for requirement in requirements(parser, extra)
    }
    distributions = packages_distributions()
    for package in needed(path, {path}):
        names = {name.lower().replace("_", "-") for name in distributions.get(package, [package])}
        assert names & declared, f"{path.name} imports {package}, which `{EXTRAS[path.stem]}` does not bring"


def test_the_oldest_that_is_tested_is_the_oldest_that_is_allowed():
    parser = setup()
    extras = (None, "train", "eval", "plot", "hub", "sklearn", "demo", "tensorboard")
    declared = [requirement for extra in extras for requirement in requirements(parser, extra)]
    bounds = {
        (item.name, Version(spec.version)) for item in declared for spec in item.specifier if spec.operator == ">="
    }
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if not line.startswith("#")]
    assert {(name, Version(version)) for name, version in pinned} == bounds


def test_every_version_of_python_that_is_claimed_is_named_alike():
    parser = setup()
    named = {line.split("::")[-1].strip() for line in parser["metadata"]["classifiers"].splitlines() if "3." in line}
    oldest = parser["options"]["python_requires"].removeprefix(">=")
    assert min(named, key=Version) == oldest
    assert f"Python {oldest} to {max(named, key=Version)}" in (ROOT / "README.md").read_text()
    assert f'target-version = "py{oldest.replace(".", "")}"' in (ROOT / "pyproject.toml").read_text()


def test_what_meets_other_versions_is_there():
    named = re.search(r"^VERSIONED := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1].split()
    assert named
    assert all((ROOT / path).exists() for path in named)


def test_one_version_is_named_everywhere():
    version = modeling_looped_gpt2.__version__
    assert setup()["metadata"]["version"] == "attr: modeling_looped_gpt2.__version__"
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1] == version
    assert re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)[1] == version
