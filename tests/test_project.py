"""The files around the book agree with each other and with what is installed."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = {
    canonicalize_name(r.name): r
    for r in map(
        Requirement, (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    )
}
# In two pieces each, so that this file does not name them either.
HOSTS = [
    ".".join(pieces)
    for pieces in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("anaconda", "org"),
        ("download.pytorch", "org"),
        ("jsdelivr", "net"),
        ("unpkg", "com"),
        ("cdnjs.cloudflare", "com"),
    ]
]


def pinned(name):
    (specifier,) = LOCK[canonicalize_name(name)].specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


def tracked():
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip("needs a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def declared():
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


@pytest.mark.parametrize("requirement", declared(), ids=lambda r: r.name)
def test_lock_satisfies_pyproject(requirement):
    assert canonicalize_name(requirement.name) in LOCK, "not in requirements.lock"
    assert pinned(requirement.name) in requirement.specifier


@pytest.mark.parametrize("name", sorted(LOCK))
def test_installed_version_is_the_locked_one(name):
    # Local builds of torch add a suffix such as "+cpu".
    installed = Version(metadata.version(name))
    assert Version(installed.public) == pinned(name), "run make test, or install again"


def test_environment_installs_the_lock_and_this_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    python = [d for d in conda if d.startswith("python")]
    (version,) = [d.partition("=")[2] for d in python]
    assert set(conda) - set(python) == {"pip"}, "everything else comes from the lock"
    supported = SpecifierSet(PROJECT["requires-python"])
    assert Version(f"{version}.0") in supported
    assert Version(".".join(map(str, sys.version_info[:3]))) in supported
    assert f"python{version}" in (ROOT / "Makefile").read_text("utf-8")


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_readme_begins_with_the_two_commands():
    first = (ROOT / "README.md").read_text("utf-8").splitlines()[:40]
    text = "\n".join(first)
    assert "make book" in text
    assert "make test" in text


def test_readme_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text("utf-8")
        named = set(re.findall(r"(?:`|^|\s{4})make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, name


def test_no_tracked_file_names_a_registry():
    found = []
    for path in tracked():
        if path.is_file() and path.stat().st_size < 5_000_000:
            content = path.read_bytes()
            found += [(path.name, host) for host in HOSTS if host.encode() in content]
    # MathJax knows where it is published; the page tests show that it never asks.
    assert [f for f in found if f[0] != "tex-chtml.js"] == []


def test_mathjax_is_vendored():
    folder = ROOT / "book" / "_static" / "mathjax"
    assert (folder / "tex-chtml.js").stat().st_size > 1_000_000
    assert "Apache License" in (folder / "LICENSE").read_text("utf-8")
    fonts = list((folder / "output" / "chtml" / "fonts" / "woff-v2").glob("*.woff"))
    assert len(fonts) >= 20


def test_licences_are_named():
    code = (ROOT / "LICENSE").read_text("utf-8")
    text = (ROOT / "LICENSE-text").read_text("utf-8")
    assert code.startswith("MIT License")
    assert PROJECT["license"] == "MIT"
    assert "CC-BY-4.0" in text
    assert "creativecommons.org/licenses/by/4.0/" in text


def test_every_room_is_in_the_reference():
    page = (ROOT / "book" / "reference" / "sgdbook.md").read_text("utf-8")
    shown = set(re.findall(r"automodule:: sgdbook\.(\w+)", page))
    rooms = {p.stem for p in (ROOT / "sgdbook").glob("[!_]*.py")}
    assert shown == rooms


def test_numeric_rooms_import_no_sympy_and_symbolic_ones_no_torch():
    """Arrows run one way: `bridge` and what stands on it may know both worlds."""
    both = {"bridge", "_printer", "checks", "claims"}
    for path in (ROOT / "sgdbook").glob("*.py"):
        text = path.read_text("utf-8")
        imports = set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE))
        if path.stem not in both:
            assert not {"sympy", "torch"} <= imports, path.name
