"""The analysis of a run's records: verdicts without originals, rates, members against controls."""
