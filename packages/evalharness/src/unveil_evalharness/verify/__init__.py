"""Whether the numbers in an output folder are still what they were: hashes, fingerprints, files, metrics."""
