"""What a run keeps in its folder: its manifest, records, part files and pictures."""
