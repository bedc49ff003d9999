"""The parts of the benchmarks: workloads, timing, printing."""
