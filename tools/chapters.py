"""Which chapters there are, what each depends on, and the one way to execute one.

``python -m tools.chapters [NAME …]`` executes what is missing, two at a time.  The
book and the tests both go through `execute`, so that nothing runs twice.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import yaml
from filelock import FileLock
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.db import NbCacheRecord
from jupyter_cache.executors.utils import single_nb_execution
from myst_nb.core.read import is_myst_markdown_notebook, read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig
from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ChapterError(RuntimeError):
    """A chapter that did not run through, with the cell that stopped it."""


@dataclass(frozen=True)
class Run:
    """An executed chapter: its notebook, how long it took, and where it ran."""

    notebook: NotebookNode
    seconds: float
    device: str
    executed: bool


@dataclass(frozen=True)
class Chapter:
    """A page of the book that has code cells.

    Attributes
    ----------
    docname : str
        Path of the page below ``root`` without its suffix.
    root : Path
        Top folder of the book's repository.
    """

    docname: str
    root: Path = ROOT

    @property
    def name(self) -> str:
        """The name that readers type, such as ``noise/diffusion-identity``."""
        return self.docname.removeprefix("book/")

    @property
    def path(self) -> Path:
        """The Markdown file."""
        return self.root / f"{self.docname}.md"

    @property
    def lock(self) -> FileLock:
        """The lock that a process holds while it executes this chapter."""
        return FileLock(_locks(self.root) / (self.name.replace("/", "--") + ".lock"))

    def read(self) -> NotebookNode:
        """Return the unexecuted notebook, read as MyST-NB reads it."""
        text = self.path.read_text("utf-8")
        return copy.deepcopy(_parse(text, self.path, _myst_extensions(self.root)))

    @cached_property
    def cells(self) -> tuple[str, ...]:
        """Sources of the code cells."""
        return tuple(c.source for c in self.read().cells if c.cell_type == "code")


# --- which chapters there are ------------------------------------------------------


def documents(root: Path = ROOT) -> list[str]:
    """Return the document names of ``_toc.yml`` in reading order."""

    def walk(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            for key in ("root", "file"):
                if key in node:
                    yield str(node[key]).removesuffix(".md")
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    return list(walk(yaml.safe_load((root / "_toc.yml").read_text("utf-8"))))


def chapters(root: Path = ROOT) -> list[Chapter]:
    """Return the documents that have code cells, in reading order."""
    found = []
    for docname in documents(root):
        path = root / f"{docname}.md"
        if path.is_file() and is_myst_markdown_notebook(path.read_text("utf-8")):
            chapter = Chapter(docname, root)
            if chapter.cells:
                found.append(chapter)
    return found


def find(name: str, root: Path = ROOT) -> Chapter:
    """Return the chapter called ``name`` (full name, file name or last part of it).

    Raises
    ------
    LookupError
        If no chapter, or more than one, answers to the name.
    """
    wanted = name.removesuffix(".md").removeprefix("./").removeprefix("book/")
    everything = chapters(root)
    hits = [c for c in everything if c.name == wanted] or [
        c for c in everything if c.name.endswith(f"/{wanted}")
    ]
    if len(hits) != 1:
        names = ", ".join(c.name for c in everything)
        raise LookupError(f"{name!r} names {len(hits)} chapters. Choose from: {names}.")
    return hits[0]


@lru_cache(maxsize=4)
def _myst_extensions(root: Path) -> frozenset[str]:
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    return frozenset(config.get("parse", {}).get("myst_enable_extensions", ()))


@lru_cache(maxsize=64)
def _parse(text: str, path: Path, extensions: frozenset[str]) -> NotebookNode:
    config = MdParserConfig(enable_extensions=extensions)
    return read_myst_markdown_notebook(
        text, config=config, add_source_map=True, path=path
    )


# --- what a chapter depends on -----------------------------------------------------


def ingredients(chapter: Chapter) -> dict[str, str]:
    """Return everything that decides a chapter's outputs, each with its hash.

    These are its code cells, the modules of the package that they import (directly
    or through one another), the lock file, the data files and the registry rows that
    they name.  Prose is not among them.
    """
    root = chapter.root
    trees = [_parse_cell(cell) for cell in chapter.cells]
    modules = _modules(trees, root)
    parts = {"code cells": _digest(json.dumps(chapter.cells).encode())}
    code = list(chapter.cells)
    for path in modules:
        content = path.read_bytes()
        parts[path.relative_to(root).as_posix()] = _digest(content)
        code.append(content.decode("utf-8"))
    lock = root / "requirements.lock"
    parts[lock.name] = _digest(lock.read_bytes()) if lock.is_file() else ""
    for path in _data_files(root):
        if any(path.name in text for text in code):
            parts[path.relative_to(root).as_posix()] = _digest(path.read_bytes())
    literals = {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for claim, content in _registry_rows(root).items():
        if claim in literals:
            parts[f"row {claim}"] = _digest(content.encode())
    return parts


def fingerprint(chapter: Chapter) -> str:
    """Return one hash of a chapter's `ingredients`."""
    return _digest(json.dumps(ingredients(chapter), sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=10).hexdigest()


def _parse_cell(source: str) -> ast.Module:
    """Parse a cell; magics become calls, a cell that is not Python counts as empty."""
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        return ast.Module([], [])


def _modules(trees: list[ast.Module], root: Path) -> list[Path]:
    """Return the files of the package that the code imports, directly or not."""
    files: dict[str, Path] = {}
    queue = [name for tree in trees for name in _imports(tree, "")]
    while queue:
        name = queue.pop()
        parent = name.rpartition(".")[0]
        if name in files or name.split(".")[0] != "sgdbook":
            continue
        stem = root.joinpath(*name.split("."))
        plain, package = stem.with_suffix(".py"), stem / "__init__.py"
        path = plain if plain.is_file() else package
        if parent:
            queue.append(parent)
        if path.is_file():
            files[name] = path
            tree = ast.parse(path.read_text("utf-8"))
            queue += _imports(tree, name if path == package else parent)
    return [files[name] for name in sorted(files)]


def _imports(tree: ast.AST, package: str) -> list[str]:
    """Return the dotted names that a piece of code may import."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"sgdbook(\.\w+)+", node.value):  # importlib
                names.append(node.value)
    return names


def _data_files(root: Path) -> list[Path]:
    """Return files of data, measured results, and what else the package carries."""
    found = {
        path
        for folder in (
            root / "data",
            root / "benchmarks" / "results",
            *(root / "book").rglob("data"),
        )
        for path in folder.rglob("*")
    }
    found |= {p for p in (root / "sgdbook").rglob("*") if p.suffix not in (".py",)}
    return sorted(
        path
        for path in found
        if path.is_file()
        and path.name != "claims.yml"  # counted by the row
        and "__pycache__" not in path.parts
    )


def _registry_rows(root: Path) -> dict[str, str]:
    path = root / "sgdbook" / "claims.yml"
    return _rows_at(path, path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=4)
def _rows_at(path: Path, _mtime: int) -> dict[str, str]:
    entries = yaml.load(path.read_text("utf-8"), YAML_LOADER) or []
    return {e["id"]: json.dumps(e, sort_keys=True, default=str) for e in entries}


# --- the cache ---------------------------------------------------------------------


def _locks(root: Path) -> Path:
    folder = root / "_build" / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_cache(root: Path = ROOT):
    """Return the book's cache of executed notebooks, its database made to exist."""
    cache = get_cache(root / "_build" / ".jupyter_cache")
    with FileLock(_locks(root) / "cache.lock"):
        _ = cache.db  # two processes that create it at once would fail
    return cache


def lookup(chapter: Chapter) -> tuple[Run | None, list[str]]:
    """Look a chapter up without executing it.

    Returns
    -------
    run : Run or None
        The stored run, or None if there is none that is up to date.
    changed : list of str
        What changed since the stored run; empty if there is none.
    """
    cache = open_cache(chapter.root)
    record = _match(chapter, cache)
    if record is None:
        return None, []
    then, now = (record.data or {}).get("ingredients", {}), ingredients(chapter)
    changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    if changed:
        return None, changed
    _, notebook = cache.merge_match_into_notebook(chapter.read())
    seconds = record.data["execution_seconds"]
    return Run(notebook, seconds, record.data["device"], executed=False), []


def _match(chapter: Chapter, cache) -> NbCacheRecord | None:
    with suppress(KeyError):
        record = cache.match_cache_notebook(chapter.read())
        if cache.path.joinpath("executed", record.hashkey, "base.ipynb").is_file():
            return record
        NbCacheRecord.remove_records([record.pk], cache.db)
    return None


def forget(chapter: Chapter) -> None:
    """Remove the stored run of a chapter, if there is one."""
    cache = open_cache(chapter.root)
    if (record := _match(chapter, cache)) is not None:
        cache.remove_cache(record.pk)


# --- execution ---------------------------------------------------------------------


def seed_offset() -> int:
    """Return ``SGDBOOK_SEED``, the number added to every chapter's seed."""
    text = os.environ.get("SGDBOOK_SEED", "") or "0"
    try:
        return int(text)
    except ValueError:
        raise SystemExit(f"SGDBOOK_SEED must be an integer; got {text!r}.") from None


def execute(chapter: Chapter) -> Run:
    """Return the run of a chapter, executing it only if no stored one is up to date.

    Under a non-zero ``SGDBOOK_SEED`` nothing is read from the cache or written to it.

    Raises
    ------
    ChapterError
        If a cell fails, or writes to standard error; such a run is not stored.
    """
    fresh = seed_offset() != 0
    with chapter.lock:
        if not fresh:
            run, changed = lookup(chapter)
            if run is not None:
                return run
            if changed:
                forget(chapter)
        parts = ingredients(chapter)
        with _kernel_environment():
            try:
                result = single_nb_execution(
                    chapter.read(),
                    cwd=str(chapter.path.parent),
                    timeout=TIMEOUT,
                    allow_errors=False,
                    kernel_name="python3",
                )
            except RuntimeError as error:  # the kernel died
                raise ChapterError(f"{chapter.name}: {error}") from error
        _check(chapter, result)
        run = Run(result.nb, result.time, _device(result.nb), executed=True)
        if not fresh:
            _store(chapter, run, parts)
        return run


@contextmanager
def _kernel_environment() -> Iterator[None]:
    """Let the kernel choose its own Matplotlib backend."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def _check(chapter: Chapter, result) -> None:
    """Raise if a cell of an execution failed or wrote to standard error."""
    cells = [c for c in result.nb.cells if c.cell_type == "code"]
    if isinstance(result.err, CellTimeoutError):
        number = sum(c.execution_count is not None for c in cells)
        what = f"took longer than {TIMEOUT} s"
        _fail(chapter, number, what, cells[number - 1].source)
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            if output.output_type == "error" and result.err is not None:
                trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
                what = f"{output.ename}: {output.evalue}"
                _fail(chapter, number, what, cell.source, trace)
            if output.output_type == "stream" and output.name == "stderr":
                what = f"wrote to standard error:\n{output.text}"
                _fail(chapter, number, what, cell.source)
    if result.err is not None:
        raise ChapterError(f"{chapter.name}: {result.err}")


def _fail(chapter: Chapter, number: int, what: str, source: str, trace: str = ""):
    lines = [
        f"{chapter.name}, code cell {number}: {what.rstrip()}",
        f"--- the cell, in {chapter.docname}.md",
        textwrap.indent(source, "    "),
    ]
    if trace:
        lines += ["--- traceback, last lines", *trace.splitlines()[-25:]]
    raise ChapterError("\n".join(lines))


def _device(notebook: NotebookNode) -> str:
    """Return the name of the GPU that a check of the notebook used, else a CPU."""
    for record in claim_records(notebook):
        for check in record.get("checks", ()):
            name = check.get("device") or "CPU"
            if not name.startswith("CPU"):
                return f"one {name}"
    return "a CPU"


def claim_records(notebook: NotebookNode) -> list[dict]:
    """Return the claim records that an executed notebook carries."""
    return [
        output["metadata"]["sgdbook"]["record"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "record" in output.get("metadata", {}).get("sgdbook", {})
    ]


def _store(chapter: Chapter, run: Run, parts: dict[str, str]) -> None:
    cache = open_cache(chapter.root)
    uri = f"{chapter.docname}.md"
    data = {
        "execution_seconds": run.seconds,
        "device": run.device,
        "ingredients": parts,
    }
    with FileLock(_locks(chapter.root) / "cache.lock"):
        for record in NbCacheRecord.records_from_uri(uri, cache.db):
            with suppress(KeyError):
                cache.remove_cache(record.pk)  # an earlier state of this chapter
        bundle = CacheBundleIn(run.notebook, uri, data=data)
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


# --- several at once, and the command line -----------------------------------------


def execute_all(
    wanted: list[Chapter], *, jobs: int = 2, seed: int = 0, again: bool = False
) -> bool:
    """Execute the chapters that need it, ``jobs`` at a time, one line a chapter.

    Each runs in a process of its own and keeps to one thread, unless OMP_NUM_THREADS
    says otherwise: small tensors gain nothing from more.

    Returns
    -------
    bool
        True if every chapter ran through.
    """
    missing = []
    for chapter in wanted:
        if again and not seed:
            forget(chapter)
        if seed or lookup(chapter)[0] is None:
            missing.append(chapter)
        else:
            print(f"{chapter.name}: cached", flush=True)
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "SGDBOOK_SEED": str(seed)}

    def run(chapter: Chapter) -> bool:
        command = [sys.executable, "-m", "tools.chapters", "--here", chapter.name]
        done = subprocess.run(
            command, cwd=chapter.root, env=environment, capture_output=True, text=True
        )
        # The kernel's own messages are of interest only if there is nothing else.
        print((done.stdout or done.stderr).strip(), flush=True)
        return done.returncode == 0

    with ThreadPoolExecutor(jobs) as pool:
        return all(list(pool.map(run, missing)))


def main(arguments: list[str] | None = None) -> int:
    """Execute chapters from the command line; see ``--help``."""
    parser = argparse.ArgumentParser(prog="tools.chapters", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="all if none is given")
    parser.add_argument(
        "--fresh",
        type=int,
        default=0,
        metavar="SEED",
        help="execute everything uncached, with SEED added to every seed",
    )
    parser.add_argument(
        "--again", action="store_true", help="execute even what is cached"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        wanted = [find(name) for name in options.names] or chapters()
        if options.here:
            for chapter in wanted:
                run = execute(chapter)
                how = f"executed in {run.seconds:.1f} s" if run.executed else "cached"
                print(f"{chapter.name}: {how}")
            return 0
    except (ChapterError, LookupError) as error:
        print(error.args[0])
        return 1
    seed = options.fresh or seed_offset()
    return 0 if execute_all(wanted, seed=seed, again=options.again) else 1


if __name__ == "__main__":
    sys.exit(main())
