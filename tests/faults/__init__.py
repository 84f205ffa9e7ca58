"""The fault table: a module a subcommand, a row a kind of fault; every row ends in one sentence and exit code 2."""
