"""What a person sees in the terminal: tables, and bars while something takes long. rich is imported when it is used."""

from collections.abc import Callable, Sequence
from typing import Any

FILE_WIDTH = 160  # columns of a table that goes into a file


def print_table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table; into a file as wide as it needs, so that no line is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(Text(column), overflow="fold", no_wrap=number == 0)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console = Console()
    (console if console.is_terminal else Console(width=FILE_WIDTH)).print(table)


class Progress:
    """Bars on a terminal, nothing elsewhere; ``show(what, done, total)`` moves them."""

    show: Callable[[str, int, int], None]

    def __enter__(self) -> "Progress":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bars.start()
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = self._bars.add_task(what, total=total)
            self._bars.update(tasks[what], completed=done)

        self.show = show
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
