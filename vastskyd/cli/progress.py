"""The bar that shows a running job on a terminal. With dashboard and top the only module that
imports rich, which is slow to load."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from vastskyd.cli.output import cell
from vastskyd.core.model import Job


class JobBar:
    """On stderr, so that what is piped stays clean; gone when the job has ended."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, message="")

    def __enter__(self) -> "JobBar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, job: Job) -> None:
        self._progress.update(
            self._task,
            description=cell(f"{job.kind} {job.about}"),
            completed=job.done_bytes,
            total=job.total_bytes or None,
            message=cell(job.message),
        )
