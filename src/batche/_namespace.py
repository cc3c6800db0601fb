"""The function's part of a key: whose entries these are, and of which version of the code.

A name alone would serve the results of yesterday's code; a digest of the code sees what the function's
own text says, and nothing of what that text refers to: a helper, a global, a closed-over value, a model.
"""

from __future__ import annotations

import dis
import functools
import inspect
import os
import struct
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from batche._names import attribute_path, module_name, qualified_name
from batche._signature import function_name
from batche._types import NAMESPACE_BYTES
from batche.errors import SignatureError

_VERSION_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Namespace:
    """Whose entries a key belongs to.

    Attributes:
        name: ``module:qualname`` of the function, or what the user named it.
        version: the version of its code, always 17 bytes; a stated version never equals a digest.
        private: whether the entries belong to one decoration only and end with it.
        id: the 8 bytes that every key of this namespace begins with: the same in every process for a
            name, random for a private one.
        maker: the pid of the process that decorated a private one.
    """

    name: str
    version: bytes
    private: bool
    id: bytes
    maker: int = 0


@dataclass(frozen=True, slots=True)
class Declared:
    """The two namespaces a decoration may come to use; which one is known at its first use.

    Made at decoration, so that a forked child has the private one of its parent. ``public`` is `None`
    for a callable that has no name of its own to be found by.
    """

    public: Namespace | None
    private: Namespace
    named: bool

    def settle(self, function: Callable[..., Any], wrapper: object) -> Namespace:
        """The namespace of ``function``, decorated as ``wrapper``, as modules are now.

        Call it at the first use: at decoration the module does not have the wrapper yet.
        """
        if self.public is not None and (self.named or is_importable(function, wrapper)):
            return self.public
        return self.private


def declare(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    version: str | None = None,
    key: Callable[[Any], Any] | None = None,
) -> Declared:
    """What can be said of the namespace at decoration.

    ``name`` replaces the module and qualified name, and whether the function can be found there is then
    not asked. ``version`` replaces the digest of the code and of ``key``.

    Raises:
        SignatureError: ``name`` or ``version`` is no text.
    """
    innermost = inspect.unwrap(function)
    _check_texts(function, {"name": name, "version": version})
    stated = b"d" + code_digest(function, key) if version is None else b"v" + _hash(version.encode(*_UTF8))
    found_by = name or _import_name(innermost)
    public = Namespace(found_by, stated, private=False, id=_namespace_id(found_by)) if found_by else None
    shown = found_by or f"{qualified_name(type(innermost))} object"
    private = Namespace(shown, stated, private=True, id=os.urandom(NAMESPACE_BYTES), maker=os.getpid())
    return Declared(public, private, named=name is not None)


def is_importable(function: Callable[..., Any], wrapper: object) -> bool:
    """Whether the function stands, itself or under its wrapper, at its module and qualified name.

    The decorated function itself is looked for, not what it wraps: two wrappers of one function may
    differ in what they close over, which nothing here sees.
    """
    innermost = inspect.unwrap(function)
    found: Any = sys.modules.get(getattr(innermost, "__module__", None) or "")
    for part in attribute_path(getattr(innermost, "__qualname__", "<none>")).split("."):
        found = inspect.getattr_static(found, part, None)
    return any(link is function or link is wrapper for link in _wrapped_chain(found))


def code_digest(function: Callable[..., Any], key: Callable[..., Any] | None = None) -> bytes:
    """16 bytes of the code of ``function``, all it wraps, and ``key``.

    Equal in every process of one minor version of Python, wherever the code stands in its file and
    whether it was compiled or read from a ``.pyc``. Bytecode, names and constants count (the
    docstring is a constant), and of ``key`` also the defaults and what a partial or an
    `operator.itemgetter` was made with; values in globals, closures and attributes do not.
    """
    python = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    keyed = b"" if key is None else _callable(key)
    return _hash(_joined([python.encode(), *map(_code_of, _wrapped_chain(function)), keyed]))


def class_digest(cls: type) -> bytes:
    """16 bytes of what a class, and those of its bases that were made inside functions too, define.

    Constants, and the code of functions with what they close over, as far as that is constants and functions. What
    Python and `dataclasses` add to a class that is no function does not count.
    """
    made = [base for base in cls.__mro__ if "<locals>" in base.__qualname__]
    return _hash(_joined(_joined(_defined(base)) for base in made))


def _defined(cls: type) -> Iterator[bytes]:
    for name, value in sorted(vars(cls).items()):
        functions = [
            part
            for part in (value, *(getattr(value, place, None) for place in _PLACES_OF_FUNCTIONS))
            if isinstance(part, types.FunctionType)
        ]
        if functions:
            yield _joined([name.encode(*_UTF8), *map(_closure, functions)])
        elif not name.startswith("__"):
            yield _joined([name.encode(*_UTF8), _plain(value)])


def _closure(function: types.FunctionType) -> bytes:
    """A function with what it closes over."""
    cells = [cell for cell in function.__closure__ or () if cell != types.CellType()]  # an empty one has no content
    return _joined([_callable(function), *(_plain(cell.cell_contents) for cell in cells)])


def _check_texts(function: Callable[..., Any], options: dict[str, object]) -> None:
    for option, value in options.items():
        if value is not None and (not isinstance(value, str) or not value):
            raise SignatureError(function_name(function), f"{option}= takes a text that is not empty, not {value!r}")


def _namespace_id(name: str) -> bytes:
    return blake2b(name.encode(*_UTF8), digest_size=NAMESPACE_BYTES, person=b"batche name").digest()


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=_VERSION_BYTES, person=b"batche version").digest()


def _import_name(innermost: Any) -> str | None:
    module, name = getattr(innermost, "__module__", None), getattr(innermost, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    return f"{module_name(module)}:{name}"


def _wrapped_chain(outermost: Any) -> Iterator[Any]:
    """The callable, what it wraps, what that wraps, and so on; also through `classmethod`."""
    seen = set()
    while outermost is not None and id(outermost) not in seen:
        seen.add(id(outermost))
        yield outermost
        outermost = getattr(outermost, "__wrapped__", None)


# Canonical bytes of code and constants: a tag, a length and a content, so that no two read the same.


def _part(tag: bytes, content: bytes) -> bytes:
    return tag + struct.pack(">Q", len(content)) + content


def _joined(contents: Iterable[bytes]) -> bytes:
    return b"".join(_part(b".", content) for content in contents)


def _name(named: Any) -> bytes:
    # What is written in C may have no module: `str.lower` has a class only.
    return (qualified_name(named) if hasattr(named, "__module__") else named.__qualname__).encode(*_UTF8)


def _code_of(link: Any) -> bytes:
    """The code of a callable, or of its class's ``__call__``; a class, or what is written in C, by its name."""
    code = getattr(link, "__code__", None)
    if isinstance(code, types.CodeType):
        return _plain(code)
    if hasattr(link, "__qualname__"):
        return _part(b"q", _name(link))
    if isinstance(link, functools.partial) or type(link).__module__ == "operator":
        return _part(b"p", _plain(link.__reduce__()))
    return _part(b"o", _joined([_name(type(link)), _plain(getattr(type(link).__call__, "__code__", None))]))


def _callable(value: Any) -> bytes:
    defaults = (getattr(value, "__defaults__", None), getattr(value, "__kwdefaults__", None))
    return _part(b"f", _joined([_plain(defaults), *map(_code_of, _wrapped_chain(value))]))


def _plain(value: Any) -> bytes:
    """A constant by its content, a callable by its code; anything else by its type alone."""
    if type(value) in _CONSTANTS:
        tag, content = _CONSTANTS[type(value)]
        return _part(tag, content(value))
    return _callable(value) if callable(value) else _part(b"y", _name(type(value)))


def _members(values: Iterable[Any]) -> bytes:
    return _joined(map(_plain, values))


def _unordered(values: Iterable[Any]) -> bytes:
    return _joined(sorted(map(_plain, values)))


def _code(code: types.CodeType) -> bytes:
    """One code object: what it does, not where it stands or what it is called."""
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    body = tuple(_class_body(code)) if "__firstlineno__" in code.co_names else (code.co_code, code.co_consts)
    return _members((shape, names, code.co_exceptiontable, body))


def _class_body(code: types.CodeType) -> Iterator[object]:
    """The instructions of a class body without its line, which it stores from Python 3.13 on.

    Constants stand in their places here: the line may be one in the table or a part of the bytecode.
    """
    instructions = list(dis.get_instructions(code))
    for this, following in zip(instructions, [*instructions[1:], None], strict=True):
        stored = following.argval if following is not None and following.opname == "STORE_NAME" else None
        if stored == "__firstlineno__":
            yield stored
        else:
            yield this.opname, this.argval if this.opcode in dis.hasconst else this.arg


_UTF8: Final = ("utf-8", "surrogatepass")
_PLACES_OF_FUNCTIONS: Final = ("__func__", "fget", "fset", "fdel", "func")
"""Where class methods, static methods, properties and cached properties have theirs."""
_CONSTANTS: Final[dict[type, tuple[bytes, Callable[[Any], bytes]]]] = {
    types.NoneType: (b"n", lambda _: b""),
    types.EllipsisType: (b"e", lambda _: b""),
    bool: (b"B", lambda value: b"1" if value else b"0"),
    int: (b"i", lambda value: hex(value).encode()),
    float: (b"r", lambda value: struct.pack(">d", value)),
    complex: (b"c", lambda value: struct.pack(">dd", value.real, value.imag)),
    str: (b"s", lambda value: value.encode(*_UTF8)),
    bytes: (b"b", lambda value: value),
    slice: (b"l", lambda value: _members((value.start, value.stop, value.step))),
    tuple: (b"t", _members),
    list: (b"a", _members),
    set: (b"h", _unordered),
    frozenset: (b"z", _unordered),
    dict: (b"m", lambda value: _unordered(value.items())),
    types.CodeType: (b"x", _code),
}
