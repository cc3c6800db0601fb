"""A call, split into its batch and the rest.

`BatchSignature` checks a function once, when it is decorated, and then binds every call as
`inspect.signature` binds it, defaults applied. It does so itself, in a fraction of the time, because a
call with a single cached item is not much more than its binding.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, NoReturn

from batche._annotations import accepts_list, is_unchecked, mentions_none, resolve, signature_of
from batche._batches import items_of, iterated
from batche.errors import AnnotationError, SignatureError

_BY_KEYWORD: Final = sys.maxsize
"""The position of a parameter that has none."""


class _Absent:
    """The type of `_ABSENT`, which no caller can pass."""

    __slots__ = ()


_ABSENT: Final = _Absent()


class _Spot(NamedTuple):
    """Where a batch is passed: ``position`` is `_BY_KEYWORD` for one that has no position."""

    name: str
    position: int
    positional_only: bool


class Bound:
    """One call, bound.

    Attributes:
        batch: what was passed as the batch, as it is; for several batches, the tuple of them.
        arguments: every other argument by its parameter's name, in the parameters' order, defaults
            applied and ignored names left out; ``*args`` as a tuple and ``**kwargs`` as a dict under
            their own names.
    """

    __slots__ = ("_args", "_kwargs", "_signature", "arguments", "batch")

    def __init__(
        self,
        signature: BatchSignature,
        batch: Any,
        arguments: Mapping[str, object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.batch = batch
        self.arguments = arguments
        self._signature = signature
        self._args = args
        self._kwargs = kwargs

    def call(self, items: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call with ``items``, at least one, as its batch; the rest passed as the caller did."""
        return self._signature.replace(self._args, self._kwargs, items)


class BatchSignature:
    """The parameters of a batch function.

    ``variable`` is the name of the parameter that holds the batch, or a tuple of names for aligned
    batches, whose items are then tuples. A name that is no parameter belongs to ``**kwargs``, if there
    is one, and must then be passed by keyword. ``ignore`` names parameters that `Bound.arguments`
    leaves out, also inside ``**kwargs``.
    """

    def __init__(
        self, function: Callable[..., Any], variable: str | tuple[str, ...], ignore: Iterable[str] = ()
    ) -> None:
        """Check the function. ``hints`` are the annotations of the batches and of ``"return"``, evaluated.

        Raises:
            SignatureError: a name is no parameter, or one that cannot hold a batch or be ignored.
            AnnotationError: a batch or the result is annotated as something that is no list.
        """
        self.function = function
        self.name = function_name(function)
        self.variables = (variable,) if isinstance(variable, str) else tuple(variable)
        self._variable = variable if isinstance(variable, str) else None
        self._signature = self._inspect(function)
        self._read_parameters(list(self._signature.parameters.values()))
        self._check_variables()
        self._drop(ignore)
        self._spots = tuple(map(self._spot, self.variables))
        self._rest = self._defaults()
        self.hints = {name: self._hint(name) for name in (*self.variables, "return")}
        self._check_annotations()
        self.may_be_uncached = any(map(self._allows_none, self.variables))

    # Decoration.

    def _inspect(self, function: Callable[..., Any]) -> inspect.Signature:
        try:
            return signature_of(function)
        except (TypeError, ValueError) as error:
            raise self._error(f"its parameters cannot be read ({error}); decorate a Python function") from error

    def _read_parameters(self, parameters: list[inspect.Parameter]) -> None:
        kinds: dict[Any, list[str]] = {kind: [] for kind in _KINDS}
        for parameter in parameters:
            kinds[parameter.kind].append(parameter.name)
        only, both, surplus, keyword, rest = (kinds[kind] for kind in _KINDS)
        self._absorbs_positions = surplus[0] if surplus else None
        self._absorbs_keywords = rest[0] if rest else None
        self._absorbs = bool(surplus or rest)
        named = {parameter.name for parameter in parameters}
        free = [name for name in self.variables if rest and name not in named]  # batches inside **kwargs
        self._positional = (*only, *both)
        self._index = {name: len(only) + index for index, name in enumerate(both)}
        self._index.update(dict.fromkeys([*keyword, *free], _BY_KEYWORD))
        self._template = {parameter.name: _default(parameter) for parameter in parameters}
        self._template.update(dict.fromkeys(free, _ABSENT))
        self._required = tuple(name for name, value in self._template.items() if value is _ABSENT)
        by_keyword = any(name not in self._positional for name in self._required)
        self._enough = _BY_KEYWORD if by_keyword else len(self._required)

    def _check_variables(self) -> None:
        if not self.variables or len(set(self.variables)) < len(self.variables):
            raise self._error('name the batch parameter, as in @cache_batch_variable("texts"), and each only once')
        for name in self.variables:
            if name not in self._template:
                raise self._invalid(name, f"its parameters are {_listed(self._signature.parameters)}")
            if name in (self._absorbs_positions, self._absorbs_keywords):
                raise self._invalid(name, "it collects many arguments; take the batch as one list")

    def _drop(self, ignore: Iterable[str]) -> None:
        if isinstance(ignore, str):
            raise self._error(f"ignore= takes several names: write ignore=({ignore!r},)")
        names = dict.fromkeys(ignore)
        for name in names:
            if name in self.variables:
                raise self._error(f"ignore= names the batch {name!r}; it can only leave out other parameters")
            if name not in self._template and self._absorbs_keywords is None:
                others = [other for other in self._template if other not in self.variables]
                raise self._error(f"ignore= names {name!r}, which is no parameter; it can name {_listed(others)}")
        self._dropped = tuple(name for name in names if name in self._template)
        self._dropped_keywords = frozenset(names)

    def _spot(self, name: str) -> _Spot:
        if name in self._index:
            return _Spot(name, self._index[name], positional_only=False)
        return _Spot(name, self._positional.index(name), positional_only=True)

    def _defaults(self) -> dict[str, Any] | None:
        """`Bound.arguments` of a call that passes the batch alone, as its first argument; `None` where none can."""
        if (self._variable,) != self._positional[:1] or not {self._variable}.issuperset(self._required):
            return None
        return {name: value for name, value in self._template.items() if name not in (self._variable, *self._dropped)}

    def _hint(self, name: str) -> Any:
        parameter = self._signature.parameters.get(name)
        if name == "return":
            return resolve(self.function, self._signature.return_annotation)
        return resolve(self.function, parameter.annotation) if parameter else inspect.Parameter.empty

    def _check_annotations(self) -> None:
        for name in self.variables:
            if not is_unchecked(self.hints[name]) and not accepts_list(self.hints[name]):
                raise AnnotationError(self.name, name, f"{name} annotation must be a list of hashable objects")
        result = self.hints["return"]
        if not is_unchecked(result) and not accepts_list(result, or_array=True):
            raise AnnotationError(self.name, "return", "return annotation must be a list")

    # Calls.

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
        """Bind one call.

        Raises:
            SignatureError: no batch was passed and its parameter has no default.
            TypeError: the arguments do not fit, in the words of the function itself.
        """
        if self._rest is not None and len(args) == 1 and not kwargs:
            return Bound(self, args[0], self._rest, args, kwargs)
        arguments = self._template.copy()
        for name, value in zip(self._positional, args):  # noqa: B905 - strict= alone costs 0.15 us of every call
            arguments[name] = value
        given = len(args)
        unplaced = {}
        if kwargs:
            for name, value in kwargs.items():
                if self._index.get(name, -1) < given:  # unknown, or passed by position already
                    unplaced[name] = value
                else:
                    arguments[name] = value
        if given < self._enough:
            self._require(args, kwargs, arguments)
        if self._absorbs or unplaced or given > len(self._positional):
            self._absorb(args, kwargs, unplaced, arguments)
        if self._variable is None:
            batch: Any = tuple([arguments.pop(name) for name in self.variables])
        else:
            batch = arguments.pop(self._variable)
        for name in self._dropped:
            del arguments[name]
        return Bound(self, batch, arguments, args, kwargs)

    def _require(self, args: tuple[Any, ...], kwargs: dict[str, Any], arguments: dict[str, Any]) -> None:
        for name in self._required:
            if arguments[name] is _ABSENT:
                self._refuse(args, kwargs, arguments)

    def _absorb(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], unplaced: dict[str, Any], arguments: dict[str, Any]
    ) -> None:
        """Give ``*args`` and ``**kwargs`` what no other parameter takes, or refuse it."""
        surplus = args[len(self._positional) :]
        if self._absorbs_positions:
            arguments[self._absorbs_positions] = surplus
        elif surplus:
            self._refuse(args, kwargs, arguments)
        if self._absorbs_keywords and unplaced.keys().isdisjoint(self._index):
            dropped = self._dropped_keywords
            arguments[self._absorbs_keywords] = {key: unplaced[key] for key in unplaced if key not in dropped}
        elif unplaced:
            self._refuse(args, kwargs, arguments)

    def _refuse(self, args: tuple[Any, ...], kwargs: dict[str, Any], arguments: dict[str, Any]) -> NoReturn:
        for name in self.variables:
            if arguments[name] is _ABSENT:
                raise self._invalid(name, "this call does not pass it")
        if isinstance(self.function, types.FunctionType) and not hasattr(self.function, "__wrapped__"):
            self.function(*args, **kwargs)  # its body does not run: the arguments do not fit
        self._signature.bind(*args, **kwargs)
        raise self._error("the arguments do not fit its parameters")

    def replace(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], items: list[Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a bound call with ``items`` in place of its batch."""
        if self._variable is not None:
            return self._put(args, kwargs, self._spots[0], items)
        columns = dict(zip(self.variables, map(list, zip(*items, strict=True)), strict=True))
        for spot in self._spots:
            args, kwargs = self._put(args, kwargs, spot, columns[spot.name])
        return args, kwargs

    def _put(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], spot: _Spot, items: list[Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        name, position, positional_only = spot
        if position < len(args):
            return (*args[:position], items, *args[position + 1 :]), kwargs
        if positional_only:
            between = [self._template[other] for other in self._positional[len(args) : position]]
            return (*args, *between, items), kwargs
        return args, {**kwargs, name: items}

    # The batch.

    def _allows_none(self, name: str) -> bool:
        """Whether `None` may stand for a batch: its annotation or its default says so."""
        return self._template[name] is None or mentions_none(self.hints[name])

    def is_uncached(self, batch: Any) -> bool:
        """Whether a bound batch is a `None` that the signature allows: it goes to the function as it is."""
        if self._variable is not None:
            return batch is None and self._allows_none(self._variable)
        return any(part is None and self._allows_none(name) for name, part in zip(self.variables, batch, strict=True))

    def items(self, batch: Any) -> list[Any]:
        """A bound batch as a new list of its items.

        Raises:
            SignatureError: it is no batch, or several batches are not of one length.
        """
        if self._variable is not None:
            return batch.copy() if type(batch) is list else items_of(batch, self.name, self._variable)
        columns = [items_of(part, self.name, name) for name, part in zip(self.variables, batch, strict=True)]
        if len(set(map(len, columns))) > 1:
            lengths = ", ".join(f"{len(column)} {name}" for name, column in zip(self.variables, columns, strict=True))
            raise self._error(f"aligned batches must be of one length; this call passes {lengths}")
        return list(zip(*columns, strict=True))

    def parts(self, batch: Any, size: int) -> Iterator[list[Any]]:
        """The items of a bound batch that may be of any length, at most ``size`` at a time, taken as they are needed.

        A single batch need not have an order: nobody is told which result is whose.

        Raises:
            SignatureError: it is no batch, or several batches are not of one length.
        """
        batches = (batch,) if self._variable is not None else batch
        ordered = self._variable is None
        pairs = zip(batches, self.variables, strict=True)
        columns = [iterated(part, self.name, name, ordered=ordered) for part, name in pairs]
        while any(pieces := [list(islice(column, size)) for column in columns]):
            yield self.items(pieces[0] if self._variable is not None else tuple(pieces))

    def _invalid(self, name: str, why: str) -> SignatureError:
        return self._error(f"{name} must be a valid argument of the batch function: {why}")

    def _error(self, problem: str) -> SignatureError:
        return SignatureError(self.name, problem)


def function_name(function: Callable[..., Any]) -> str:
    """The qualified name of what is decorated, or for an object without one that of its class: for messages."""
    innermost = inspect.unwrap(function)
    return getattr(innermost, "__qualname__", None) or type(innermost).__qualname__


def not_called_error(function: Any) -> SignatureError:
    """The error for ``@cache_batch_variable`` without parentheses: it shows the right form."""
    if isinstance(function, classmethod | staticmethod):
        function = function.__func__
    try:
        parameters = [name for name in signature_of(function).parameters if name not in ("self", "cls")]
    except (TypeError, ValueError):
        parameters = []
    variable = parameters[0] if parameters else "texts"
    problem = f'name the parameter that holds the batch: @cache_batch_variable("{variable}")'
    return SignatureError(function_name(function), problem)


_KINDS: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _default(parameter: inspect.Parameter) -> Any:
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return ()
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return {}
    return _ABSENT if parameter.default is inspect.Parameter.empty else parameter.default
