"""Types, checks of arguments, keyed random numbers, atomic writes of files, errors in one line."""
