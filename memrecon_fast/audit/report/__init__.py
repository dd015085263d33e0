"""The results of an audit for programs and people: `summary.json`, CSV files, a table, a report with charts."""
