"""Verb ``pose``: what can be done to poses, one module per action. Nothing heavy is imported before the action is known."""

import importlib

from kinema.core.errors import ConfigError, accepted

ACTIONS: dict[str, tuple[str, str]] = {
    "detect": ("kinema.cli.pose_detect", "find the people in films and images"),
    "draw": ("kinema.cli.pose_draw", "draw poses as stick figures, alone or over the film"),
    "convert": ("kinema.cli.pose_convert", "choose people, change layout, fill gaps, smooth, resize and write poses"),
    "compare": ("kinema.cli.pose_compare", "measure poses against the true ones"),
}
"""Action -> (module with ``run(arguments)``, one line of help)."""


def usage() -> str:
    """Return the text of ``kinema pose --help``."""
    actions = "\n".join(f"  {action:<13}{about}" for action, (_, about) in ACTIONS.items())
    return f"""usage: kinema pose ACTION ...

Find, convert, smooth, draw and compare poses.

{actions}

kinema pose ACTION --help explains an action.
"""


def run(arguments: list[str]) -> int:
    """Run ``kinema pose``.

    Raises:
        ConfigError: for an unknown action.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    action, *rest = arguments
    if action not in ACTIONS:
        raise ConfigError(f"kinema pose has no action {action!r}; {accepted(action, ACTIONS)}")
    return importlib.import_module(ACTIONS[action][0]).run(rest)
