"""Training two-layer ReLU networks faster than XLA does: a kernel in C for CPUs, one in Pallas for GPUs, and their choice."""
