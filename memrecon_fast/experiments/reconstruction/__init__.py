"""The experiments of Iurada et al.: training inputs from parameters."""
