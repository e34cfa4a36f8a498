"""Faster training of two-layer ReLU networks than by XLA alone: a kernel in C for CPUs, one in Pallas for GPUs, and the choice
between them and XLA."""
