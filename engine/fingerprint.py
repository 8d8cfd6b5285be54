"""Which code this is: a hash over source files.

What was derived by other code may mean something else, whatever its version number says. So what is
derived carries the fingerprint of the code that derived it, and other code makes it anew.
"""

import hashlib
import importlib.util
from importlib.resources import files
from importlib.resources.abc import Traversable


def fingerprint(*names: str) -> str:
    """Return the SHA-256 (hex) over the names and sources of modules, packages with all in them.

    Works wherever Python finds its modules: a checkout, an installed wheel, an archive.

    Args:
        names: modules or packages, with dots.

    Raises:
        ModuleNotFoundError: there is none of that name, or it has no source to look at.
    """
    summary = hashlib.sha256()
    for name in names:
        count = 0
        for path, source in _sources(name):
            data = source.read_bytes()
            summary.update(b"%s %d\n" % (path.encode(), len(data)))
            summary.update(data)
            count += 1
        if not count:
            raise ModuleNotFoundError(f"the source of {name} was not found")
    return summary.hexdigest()


def _sources(name: str) -> list[tuple[str, Traversable]]:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return _tree(name, files(name))
    package, _, module = name.rpartition(".")
    file = files(package) / f"{module}.py" if package else None
    return [(name, file)] if file is not None and file.is_file() else []


def _tree(name: str, folder: Traversable) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _tree(f"{name}.{entry.name}", entry)
        elif entry.name.endswith(".py"):
            found.append((f"{name}.{entry.name.removesuffix('.py')}", entry))
    return found
