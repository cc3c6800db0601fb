"""What can go wrong, as one tree.

Every error is a [`BatcheException`][] and also the built-in that names its kind, so that both
``except BatcheException`` and ``except TypeError`` work. Each keeps what it is about in fields, builds
its message from them, and pickles: an error raised in a worker arrives whole in its parent.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

A_CLASS: Final = "a class"
"""The `UnkeyableError.problem` of a value that is itself a class."""


class BatcheException(Exception):
    """The base of every error of this library."""


class _Fields(BatcheException):
    """An error whose arguments are its fields, in the order of ``_fields``.

    `Exception` pickles by calling the class with ``args``; keeping exactly the fields there makes
    every error below pickle, copy and compare by what it says.
    """

    _fields: tuple[str, ...] = ()

    def __init__(self, *values: object) -> None:
        if len(values) != len(self._fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._fields)}")
        super().__init__(*values)
        for name, value in zip(self._fields, values, strict=True):
            setattr(self, name, value)


class SignatureError(_Fields, TypeError):
    """The decorator or a call does not fit the function's parameters.

    Attributes:
        function: the function's qualified name.
        problem: what does not fit and what to write instead.
    """

    _fields = ("function", "problem")
    function: str
    problem: str

    def __init__(self, function: str, problem: str) -> None:
        super().__init__(function, problem)

    def __str__(self) -> str:
        return f"{self.function}: {self.problem}"


class AnnotationError(_Fields, TypeError):
    """An annotation says that the function is no batch function, or, under ``validate``, that a value is a wrong one.

    Attributes:
        function: the function's qualified name.
        parameter: the annotated parameter, or ``"return"``.
        problem: what the annotation must be, or which item or result is not what it says.
    """

    _fields = ("function", "parameter", "problem")
    function: str
    parameter: str
    problem: str

    def __init__(self, function: str, parameter: str, problem: str) -> None:
        super().__init__(function, parameter, problem)

    def __str__(self) -> str:
        return f"{self.function}: {self.problem}"


class UnkeyableError(_Fields, TypeError):
    """An item or an argument has no canonical key.

    Attributes:
        where: what could not be keyed: ``"item 3"``, ``"key= of item 3"``, ``"argument 'client'"``, or ``"key"`` of a
            `Cache`.
        type_name: the full name of the type that has no key (perhaps of a part of the value).
        problem: why it has none, in a few words; empty when its type is simply not listed.
    """

    _fields = ("where", "type_name", "problem")
    where: str
    type_name: str
    problem: str

    def __init__(self, where: str, type_name: str, problem: str = "") -> None:
        super().__init__(where, type_name, problem)

    def __str__(self) -> str:
        why = f" ({self.problem})" if self.problem else ""
        method = (
            "it a class method __batche_key__()" if self.problem == A_CLASS else "its class a __batche_key__() method"
        )
        ways = [f"give {method} that returns plain data"]
        if self.where == "argument 'self'":
            ways.append("make it a dataclass")
        if not self.where.startswith(("argument", "key")):
            ways.append("pass key= to the decorator to cache the item by something plain")
        if not self.where.startswith(("item", "key")):
            name = self.where.removeprefix("argument ").replace("'", '"')
            ways.append(f"leave it out by ignore=({name},) if it does not change the answer")
        return f"{self.where} of type {self.type_name} has no canonical key{why}: " + ", or ".join(ways)


class ResultLengthError(_Fields, ValueError):
    """The function did not return one result for each item.

    Attributes:
        function: the function's qualified name.
        expected: the number of items it was given.
        got: what it returned instead, in words: ``"3 results"``, ``"a generator"``.
    """

    _fields = ("function", "expected", "got")
    function: str
    expected: int
    got: str

    def __init__(self, function: str, expected: int, got: str) -> None:
        super().__init__(function, expected, got)

    def __str__(self) -> str:
        return (
            f"{self.function}: batch function must return a list of predictions of the same length "
            f"as the batch: it was given {self.expected} item{'s' * (self.expected != 1)} and returned {self.got}"
        )


class CodecError(_Fields, ValueError):
    """A value cannot be encoded so that it comes back the same, or bytes cannot be decoded.

    Attributes:
        codec: the codec's name.
        problem: what it cannot do and what to do instead.
    """

    _fields = ("codec", "problem")
    codec: str
    problem: str

    def __init__(self, codec: str, problem: str) -> None:
        super().__init__(codec, problem)

    def __str__(self) -> str:
        return f"codec {self.codec!r}: {self.problem}"


class StoreError(BatcheException, OSError):
    """The store cannot be used: no room, no permission, damaged, or busy beyond its bound.

    Attributes:
        store: which store, as a user would name it.
        problem: what is wrong and what to do about it.
    """

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(f"{store}: {problem}")
        self.store = store
        self.problem = problem

    def __reduce__(self) -> tuple[type[StoreError], tuple[str, str], dict[str, object]]:
        return type(self), (self.store, self.problem), self.__dict__


@dataclass(frozen=True, slots=True)
class Failed:
    """What a batch function returns at the place of an item that it could not do, while the others are good.

    Never stored, nor is one derived from it; the good results are. What the caller gets is said by ``on_failed``.
    In a pickle an exception that would not load again is a `RuntimeError` that says what it was.

    Attributes:
        exception: why.

    Example:
        >>> Failed(ValueError("no such id"))
        Failed(exception=ValueError('no such id'))
    """

    exception: Exception

    def __post_init__(self) -> None:
        if not isinstance(self.exception, Exception):
            raise TypeError(f"Failed takes the exception that the item failed with, not {self.exception!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        fields = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return type(self), (_portable(self.exception), *fields[1:])


def _portable(exception: Exception) -> Exception:
    """``exception``, or where its pickle does not load a `RuntimeError` that says what it was.

    An exception whose constructor takes more than its ``args`` breaks whatever loads it, a pool say.
    """
    try:
        if type(pickle.loads(pickle.dumps(exception))) is type(exception):
            return exception
    except Exception:  # a user's class may raise anything
        pass
    kind = type(exception)
    return RuntimeError(f"{kind.__module__}.{kind.__qualname__}: {exception}")


class BatchError(BatcheException, ExceptionGroup[Exception]):
    """Items of a batch have failed: the function returned `Failed` for them. The others were computed and stored.

    As an `ExceptionGroup` it holds what the items failed with, in order of their positions, for ``except*``.

    Attributes:
        function: the function's qualified name.
        indices: the positions in the batch of the items that failed, aligned with ``exceptions``.
        results: a result for each position of the batch; at ``indices`` the `Failed`.
    """

    function: str
    indices: tuple[int, ...]
    results: list[Any]

    def __new__(cls, function: str, indices: Sequence[int], results: Sequence[Any]) -> BatchError:
        """Made of what the function returned; ``results[index]`` is a `Failed` for each of ``indices``."""
        shown = ", ".join(map(str, indices[:5])) + ("" if len(indices) <= 5 else ", ...")
        message = (
            f"{function}: {len(indices)} of {len(results)} items failed (index {shown}); the others are stored and "
            'in .results; on_failed="return" returns them with the Failed instead'
        )
        self = super().__new__(cls, message, [results[index].exception for index in indices])
        self.function, self.indices, self.results = function, tuple(indices), list(results)
        return self

    def __init__(self, function: str, indices: Sequence[int], results: Sequence[Any]) -> None:
        Exception.__init__(self, function, indices, results)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.indices, self.results), self.__dict__

    def derive(self, excs: Sequence[Exception], /) -> BatchError | ExceptionGroup[Exception]:  # type: ignore[override]  # narrower than typeshed's
        """The part of this error that holds ``excs``, as ``split`` and ``except*`` make it."""
        wanted = set(map(id, excs))
        indices = [index for index in self.indices if id(self.results[index].exception) in wanted]
        if len(indices) == len(excs):
            return BatchError(self.function, indices, self.results)
        return ExceptionGroup(self.message, excs)
