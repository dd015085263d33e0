"""The report of a reconstruction: its summary, tables, charts and page."""
