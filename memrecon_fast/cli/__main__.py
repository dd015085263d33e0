"""`python -m memrecon_fast.cli`."""

from memrecon_fast.cli import main

main()
