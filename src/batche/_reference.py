"""How a cached function pickles: by the name it is found under, or with its function and configuration.

A plain pickle must find a cached function by its name; cloudpickle must take it by value where it takes functions by
value, and asks that only of functions. So a wrapper pickles as its reference: a function of its own that stands at
"<qualified name>._reference", which plain pickle finds there and cloudpickle copies.
"""

from __future__ import annotations

import functools
import types
import weakref
from typing import Any

from batche._names import attribute_path

_owners: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()


def reference_to(owner: Any, function: Any) -> Any:
    """The reference of ``owner``, the wrapper of ``function``."""
    if not isinstance(function, types.FunctionType):
        return function
    reference = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    reference.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(reference, function, updated=())
    reference.__dict__ = function.__dict__.copy()  # without the __wrapped__ that this would be
    reference.__qualname__ = f"{attribute_path(function.__qualname__)}._reference"
    _owners[reference] = weakref.ref(owner)  # weak: an owner holds its reference
    return reference


def owner_of(reference: Any) -> Any | None:
    """The wrapper in this process that ``reference`` belongs to, if there is one."""
    known = _owners.get(reference) if isinstance(reference, types.FunctionType) else None
    return known() if known is not None else None
