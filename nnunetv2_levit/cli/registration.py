"""The subcommands of ``nnunetv2_levit``, a module a group; a subcommand imports what is heavy only when it runs.

Each module has ``register(command)``, which calls ``command(name, function, text)`` for every subcommand and adds the
flags to the parser that it returns; ``function`` gets the parsed flags.
"""

import argparse
from collections.abc import Callable

AddCommand = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]
