"""Looks for somebody else: footage is given to detectors that follow one person, and often shows more."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from kinema.pose.detect import crowd

WAYS = (
    "--person LEFT,TOP,WIDTH,HEIGHT chooses another, kinema pose detect --people 2 finds both, and what it writes can be given "
    "as --pose"
)


@dataclass(frozen=True)
class Look:
    """A frame in which somebody else was looked for than whose joints are taken.

    Attributes:
        source: name of the footage.
        time: of the frame, in seconds.
        others: somebody was found.
    """

    source: str
    time: float
    others: bool


def others(looks: Iterable[Look]) -> dict[str, str]:
    """Say of every source in which somebody else was seen how often, and how to choose them."""
    by_source: defaultdict[str, list[Look]] = defaultdict(list)
    for look in looks:
        by_source[look.source].append(look)
    seen = {name: [f"{look.time:.1f} s" for look in there if look.others] for name, there in by_source.items()}
    return {name: crowd(len(by_source[name]), times, 1, WAYS) for name, times in seen.items() if times}
