"""Surveys of a model's attractors: tables in a folder, computed block by block, here or by workers, and resumed."""
