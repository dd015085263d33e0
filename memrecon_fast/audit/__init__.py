"""Audits: sources of images, the run over splits × masks × methods, its records, the report."""

DESCRIPTION = "audit.json"
"""The file that says what a run is: a folder that holds it is a run's."""
