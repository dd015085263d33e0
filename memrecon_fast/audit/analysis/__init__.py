"""What the records of a run say: results, verdicts without originals, members against controls."""
