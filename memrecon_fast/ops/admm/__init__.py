"""The per-pixel operations of ADMM: `plain` (torch, any device), `cpp` (CPUs) and `triton` (GPUs)."""
