"""The results of a survey of attractors: `summary.json`, CSV files, tables for the terminal, a report with charts."""
