"""The folder of a reconstruction: its solutions, and what they say."""
