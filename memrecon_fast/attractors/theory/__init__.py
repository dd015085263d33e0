"""The theory of Radhakrishnan et al., arXiv 1810.10333, as functions: dense linear algebra for small nets.

    single_layer     Theorem 1 and its corollary: what one layer with a nonlinearity learns, in closed form
    wide             Theorem 3: two layers, of which the last alone is trained
    linear           Theorems 4 and 5, Appendices D to F: linear convolutional nets as matrices; the depth they need
    construction     Theorem 6: a net that is nearly the identity, and yet has its training images as attractors

The numbering is that of the paper's text. What is exact in exact arithmetic is computed in float64.
"""

from __future__ import annotations

from memrecon_fast.attractors.theory import construction, linear, single_layer, wide

__all__ = ["construction", "linear", "single_layer", "wide"]
