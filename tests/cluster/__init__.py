"""The built package on several hosts with real kernels, and what can happen to them."""
