"""The command line's progress, on standard error: a bar while agents start, a bar while the session lasts."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from aar_swarm.progress import Progress


class Display(Progress):
    """Use it as a context manager, so that the terminal is left as it was."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def stage(self, text: str) -> None:
        self._end_task()
        self._console.print(f"[dim]·[/dim] {escape(text)}", highlight=False)

    def agents(self, ready: int, total: int) -> None:
        self._show("agents ready", ready, total, f"{ready:,} of {total:,}")

    def session(self, elapsed_s: float, duration_s: float, commands: int, alive: int) -> None:
        text = f"{elapsed_s:4.1f} of {duration_s:g} s, {commands:,} commands, {alive:,} agents alive"
        self._show("session", elapsed_s, duration_s, text)

    def trials(self, made: int, total: int) -> None:
        self._show("trials made", made, total, f"{made:,} of {total:,}")

    def _show(self, what: str, done: float, total: float, text: str) -> None:
        if not self._console.is_terminal:
            return
        if self._task is None:
            self._task = self._bars.add_task(what, total=total, text=text)
        self._bars.update(self._task, completed=done, text=text)

    def _end_task(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
