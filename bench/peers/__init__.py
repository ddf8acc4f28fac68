"""One application per server under test, each serving `bench.workloads.Model` and nothing else."""
