"""Long lists in pages. A token is where a page ended, so that what comes and goes between two
questions moves nothing else."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from vastskyd.core.api import PAGE_MOST, Paged
from vastskyd.core.errors import InvalidError
from vastskyd.core.model import Record

T = TypeVar("T")
R = TypeVar("R", bound=Record)


def page(items: Iterable[T], key: Callable[[T], str], request: Paged) -> tuple[tuple[T, ...], str]:
    """The page and the next one's token. Ordered by `key`, which no two of the items share."""
    if not 1 <= request.limit <= PAGE_MOST:
        raise InvalidError(
            f"a page cannot have {request.limit} members", hint=f"ask for 1 to {PAGE_MOST}"
        )
    later = sorted((item for item in items if key(item) > request.after), key=key)
    shown = later[: request.limit]
    return tuple(shown), key(shown[-1]) if len(later) > len(shown) else ""


def joined(first: R, then: R) -> R:
    """Two pages, whose first member is the list, as one; where it ends is where the second does."""
    name = first.__struct_fields__[0]
    return msgspec.structs.replace(then, **{name: getattr(first, name) + getattr(then, name)})
