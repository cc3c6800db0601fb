"""Names of modules, functions and classes that are the same in every process of a program.

Python calls the program's own module ``__main__`` in the process that was started and ``__mp_main__`` in
the ones that `multiprocessing` spawns; two different programs both have a ``__main__``. So names made
here say which program it is: its import name, if it was run with ``-m``, or else its absolute file.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise, starmap
from types import ModuleType
from typing import Any, Final

_PROGRAM_NAMES: Final = frozenset({"__main__", "__mp_main__"})

_adopted: str | None = None


def module_name(name: str) -> str:
    """Return the name of a module as every process of this program would."""
    return program_name() if name in _PROGRAM_NAMES else name


def is_of_program(name: str | None) -> bool:
    """Whether this is what a process calls its program's own module."""
    return name in _PROGRAM_NAMES


def module_named(name: str) -> ModuleType | None:
    """The module that `module_name` gives this name, if it is imported in this process."""
    if name == program_name():
        return _main_module()
    return None if is_of_program(name) else sys.modules.get(name)


def qualified_name(obj: Any) -> str:
    """Return ``module:qualname`` of a class or function.

    Two classes made by one function have one name: it says where something is written, not which of
    several objects written there it is.
    """
    return f"{module_name(obj.__module__ or '')}:{obj.__qualname__}"


def attribute_path(qualname: str) -> str:
    """Return where a qualified name is found: a private method stands under its class's name too, as Python mangles it.

    ``Model.__embed`` is found at ``Model._Model__embed``.
    """
    parts = qualname.split(".")
    return ".".join([*parts[:1], *starmap(_mangled, pairwise(parts))])


def _mangled(owner: str, name: str) -> str:
    named = owner.lstrip("_")
    is_private = name.startswith("__") and not name.endswith("__") and named and not owner.endswith(">")
    return f"_{named}{name}" if is_private else name


def program_name() -> str:
    """Return the import name or the absolute file of the program this process belongs to.

    An interactive session, a notebook and ``python -c`` have neither: they are ``"__main__"``. A worker
    that does not run its parent's main module (loky, unless asked) cannot know it: see `adopt_program`.
    """
    return _adopted or _name_of(_main_module())


def adopt_program(name: str) -> None:
    """Take ``name`` for the program of this process from now on.

    For a worker that is sent its parent's functions by value: the classes it gets with them say
    ``__main__`` and mean the parent's. Keys made before it and after it differ.
    """
    global _adopted
    _adopted = name


def _main_module() -> ModuleType | None:
    # A spawned child has its launcher as `__main__` while it imports the program as `__mp_main__`, which
    # is when decorators run; afterwards both names are the program.
    return sys.modules.get("__mp_main__") or sys.modules.get("__main__")


def _name_of(main: ModuleType | None) -> str:
    spec = getattr(main, "__spec__", None)
    # A directory or zip file that is run has a spec too, but that one is only called `__main__`.
    if spec is not None and spec.name not in _PROGRAM_NAMES:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return os.path.realpath(file) if file else "__main__"
