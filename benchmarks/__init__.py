"""isomorph beside its peers: `python -m benchmarks --help`, from the root of the clone. What it measures is described in docs/benchmarks.md."""
