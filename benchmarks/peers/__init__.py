"""What runs in the processes of the peers; the only room of the benchmarks that imports TensorFlow."""
