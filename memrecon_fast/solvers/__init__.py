"""The solvers: how slots advance. `Settings.solver` says which one; `iteration` is the baseline `iterate`.

To add one, write a module with a `SolverRecord` beside these, and name it here.
"""

from memrecon_fast.settings import SOLVERS
from memrecon_fast.solvers import accelerated, paper

for record in (paper.RECORD, accelerated.RECORD):
    SOLVERS[record.name] = record
