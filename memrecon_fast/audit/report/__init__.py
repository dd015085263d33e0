"""What an audit says: `summary.json`, CSV files, the table of the command, and the report with charts and pictures."""
