"""Dynamic convolution in C for CPUs, compiled for the machine at hand when it is first needed."""
