"""Faster training of two-layer networks than by XLA alone: a kernel in C for relu networks on CPUs, kernels in Pallas for GPUs,
and the choice between them and XLA."""
