"""The ground floor: types, checks, keyed random numbers, files, and what is said of errors."""
