"""Checks of items and results against the annotations of the function, by typeguard, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from batche._annotations import element_of, resolve_within
from batche.errors import AnnotationError, Failed

if TYPE_CHECKING:
    from batche._signature import BatchSignature


class Checks:
    """What ``validate=True`` does. Each item and each result is checked by itself, so that an error tells which it is.

    Limits: an annotation that cannot be read when the function is decorated is not checked, and neither is the result
    of a function that returns an array or a tensor, whose rows have no annotation of their own.

    Raises:
        ImportError: typeguard is not installed.
    """

    def __init__(self, signature: BatchSignature) -> None:
        self._function = signature.name
        self._variables = signature.variables
        hints = {name: resolve_within(signature.function, hint) for name, hint in signature.hints.items()}
        self._elements = {name: element_of(hint) for name, hint in hints.items()}
        self._problem = _checker()

    def batch(self, items: Sequence[Any]) -> None:
        """Check the items of a call.

        Raises:
            AnnotationError: an item is not what the annotation of the batch says; it names the index.
        """
        for place, name in enumerate(self._variables):
            for index, item in enumerate(items):
                self._check(name, f"{name}[{index}]", item if len(self._variables) == 1 else item[place])

    def result(self, index: int, result: Any) -> None:
        """Check what was computed for the item at ``index`` of the batch.

        Raises:
            AnnotationError: it is not what the annotation of the result says; it names the index.
        """
        if not isinstance(result, Failed):
            self._check("return", f"the result of item {index}", result)

    def _check(self, parameter: str, what: str, value: Any) -> None:
        problem = self._problem(value, self._elements[parameter])
        if problem is not None:
            raise AnnotationError(self._function, parameter, f"{what} is not what the annotation says: {problem}")


def _checker() -> Callable[[Any, Any], str | None]:
    """What tells why a value is not of a type; `None` where it is."""
    try:
        from typeguard import CollectionCheckStrategy, ForwardRefPolicy, TypeCheckError, check_type
    except ImportError as error:
        raise ImportError('validate=True needs typeguard: pip install "batche[validate]"') from error

    # What cannot be read is passed over in silence: a call never warns.
    check = partial(
        check_type,
        forward_ref_policy=ForwardRefPolicy.IGNORE,
        collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS,
    )

    def problem(value: Any, kind: Any) -> str | None:
        try:
            check(value, kind)
        except TypeCheckError as error:
            return str(error)
        except NameError:  # of an annotation inside of the type, as of a field that only type checkers can read
            return None
        return None

    return problem
