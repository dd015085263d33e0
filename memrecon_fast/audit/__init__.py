"""Audits: sources of images, the run over splits × masks × methods, its records, the report."""
