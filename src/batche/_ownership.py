"""Whether a result has its memory to itself: what is handed out must not change when another result is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from batche.codecs import arrays, tensors
from batche.errors import Failed

IMMUTABLE: Final = frozenset({str, bytes, int, float, bool, complex, type(None), Failed})
"""Results that positions may share: nobody can change them."""
_BUILTIN: Final = frozenset({*IMMUTABLE, list, dict, tuple, set})
"""Results that are nobody's view, whatever they hold."""


def none_is_borrowed(values: Sequence[Any], kinds: set[type]) -> bool:
    """Whether it is known that none of ``values``, whose types are ``kinds``, `is_borrowed`; `False`: look at each."""
    if kinds <= _BUILTIN:
        return True
    if not all(map(arrays.is_array, kinds)):
        return False
    return all(value.base is None and value.flags.writeable for value in values)


def is_borrowed(value: Any) -> bool:
    """Whether ``value`` is an array or tensor that is a view of other memory, or an array that cannot be written to.

    Limit: what is inside of a list or another container is not looked at.
    """
    kind = type(value)
    if arrays.is_array(kind):
        return value.base is not None or not value.flags.writeable
    return tensors.is_tensor(kind) and _is_view(value)


def read_only(value: Any) -> Any:
    """``value``, or for a numpy array a view of it that cannot be written to.

    Limit: arrays inside of containers, and tensors, are as they are.
    """
    if not arrays.is_any_array(type(value)) or not value.flags.writeable:
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _is_view(tensor: Any) -> bool:
    # In inference mode torch does not note what a view is of; then its storage tells, but for one of the same size.
    if tensor._base is not None:
        return True
    try:
        return bool(tensor.untyped_storage().nbytes() > tensor.nbytes)
    except (NotImplementedError, RuntimeError):
        return False  # it has no storage: a sparse one, which no codec takes either
