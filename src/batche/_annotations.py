"""What the annotations of a batch function say: whether something is a list, an array, or perhaps `None`.

An annotation that cannot be read at run time is not checked: a name that only type checkers import is
no mistake.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, Final


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        import annotationlib  # names that only type checkers import stay forward references

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def resolve(function: Callable[..., Any], annotation: Any) -> Any:
    """The annotation, if it is text evaluated where the function was defined, else as it is."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return _evaluated(function, annotation)
    except Exception:  # whatever evaluating somebody's text may raise: then the annotation cannot be checked
        return annotation


def resolve_within(function: Callable[..., Any], hint: Any) -> Any:
    """``hint`` with the names evaluated that are text inside of it; `Any` where one of them cannot be."""
    try:
        return _evaluated(function, hint)
    except Exception:  # the same
        return Any


def _evaluated(function: Callable[..., Any], annotation: Any) -> Any:
    innermost = inspect.unwrap(function)

    def holder() -> None: ...

    holder.__annotations__ = {"hint": annotation}
    parameters = {parameter.__name__: parameter for parameter in getattr(innermost, "__type_params__", ())}
    scope = getattr(innermost, "__globals__", {})
    return typing.get_type_hints(holder, scope, parameters, include_extras=True)["hint"]


def is_unchecked(hint: Any) -> bool:
    """No annotation, or ``None`` where it is the whole of one, as 0.1.1 had it."""
    return hint is inspect.Parameter.empty or hint is None or hint is types.NoneType


def accepts_list(hint: Any, or_array: bool = False) -> bool:
    """Whether a list is (or, for the unresolved, may be) what the annotation says."""
    if hint is Any or isinstance(hint, (str, typing.ForwardRef, typing.TypeVar)):
        return True
    plain = _unwrapped(hint)
    if plain is not hint:
        return accepts_list(plain, or_array)
    origin = typing.get_origin(hint)
    if origin in _UNIONS:
        return any(accepts_list(member, or_array) for member in typing.get_args(hint))
    kind = origin or hint
    if not isinstance(kind, type):
        return False
    try:
        return issubclass(list, kind) or (or_array and _is_array_type(kind))
    except TypeError:  # a Protocol that cannot be checked at run time
        return True


def element_of(hint: Any) -> Any:
    """What the annotation of a list says of its elements; `Any` where it says nothing, or nothing that can be read."""
    plain = _unwrapped(hint)
    if plain is not hint:
        return element_of(plain)
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in _UNIONS:
        elements = [element_of(member) for member in arguments if accepts_list(member)]
        return typing.Union[tuple(elements)] if elements and Any not in elements else Any  # noqa: UP007 - not known here
    return arguments[0] if len(arguments) == 1 and not isinstance(hint, str) and accepts_list(hint) else Any


def mentions_none(hint: Any) -> bool:
    plain = _unwrapped(hint)
    if plain is not hint:
        return mentions_none(plain)
    if typing.get_origin(hint) in _UNIONS:
        return any(map(mentions_none, typing.get_args(hint)))
    return hint is types.NoneType


def _unwrapped(hint: Any) -> Any:
    """What `Annotated`, a `NewType` or a ``type`` statement stands for; anything else as it is."""
    if typing.get_origin(hint) is typing.Annotated:
        return hint.__origin__
    if isinstance(hint, typing.NewType):
        return hint.__supertype__
    alias = typing.get_origin(hint) or hint
    return alias.__value__ if type(alias).__name__ == "TypeAliasType" else hint


def _is_array_type(kind: type) -> bool:
    """Told by name: importing numpy or torch is the user's to decide."""
    return any((base.__module__.partition(".")[0], base.__name__) in _ARRAYS for base in kind.__mro__)


_UNIONS: Final = (typing.Union, types.UnionType)
_ARRAYS: Final = frozenset({("numpy", "ndarray"), ("torch", "Tensor")})
