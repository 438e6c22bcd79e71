"""Several things asked for in one command: each is tried; what fails is told with its reason."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from vastskyd.cli.exits import tell
from vastskyd.core.errors import DeniedError, VastskyError, from_code

T = TypeVar("T")


class Several:
    """What failed of them. One alone fails as it would without this."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._failed: dict[str, VastskyError] = {}
        self._not_tried: tuple[str, ...] = ()

    def each(self, names: Iterable[str], act: Callable[[str], T]) -> dict[str, T]:
        """What `act` made of each, without those that failed. Who may not do this is not asked
        for a password again for each."""
        done: dict[str, T] = {}
        names = tuple(names)
        for number, name in enumerate(names, start=1):
            try:
                done[name] = act(name)
            except VastskyError as error:
                if len(self._names) == 1:
                    raise
                self._tell(name, error)
                if isinstance(error, DeniedError):
                    self._not_tried = names[number:]
                    break
        return done

    def end(self, others: str) -> None:
        """As the first that failed. `others`: what is so of those that did not."""
        if not self._failed:
            return
        said = f"{len(self._failed)} of {len(self._names)} failed: {', '.join(self._failed)}"
        if self._not_tried:
            said += f"; not tried: {', '.join(self._not_tried)}"
        left = len(self._names) - len(self._failed) - len(self._not_tried)
        hint = f"why is told above; {others}" if left else "why is told above"
        raise from_code(next(iter(self._failed.values())).code, said, hint)

    def _tell(self, name: str, error: VastskyError) -> None:
        named = name in error.message
        told = error.message if named else f"{name}: {error.message}"
        tell(type(error)(told, hint=error.hint))
        self._failed[name] = error
