"""The tables and figures of Abitbul & Dar, arXiv 2310.02897, and what else is asked of recoveries."""
