"""Which system a command line is about, before it is parsed: what a verb understands depends on it."""

from collections.abc import Sequence


def named_abilities(arguments: Sequence[str]) -> frozenset[str]:
    """Return what the system of the run that a command line names can do; of one that cannot be read, nothing."""
    words = [word for word in arguments if not word.startswith("-")]
    if not words:
        return frozenset()  # --help, without a library that takes long to load
    from kinema.cli.trained import is_system

    run = next((word for word in words if is_system(word)), None)
    if run is None:
        return frozenset()
    from kinema.core.errors import KinemaError
    from kinema.core.tasks import abilities
    from kinema.systems import SYSTEMS
    from kinema.training.checkpoint import read_metadata, resolve

    try:
        system = SYSTEMS.get(read_metadata(resolve(run)).system)
    except KinemaError:
        return frozenset()
    return frozenset() if system is None else frozenset(abilities(system))
