"""The one exception for what a user can mend."""


class UserError(Exception):
    """Bad input: one clear sentence saying what is wrong, where, and how to mend it.

    The command line prints the sentence and exits with code 2; library callers catch it like any exception.
    """
