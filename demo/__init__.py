"""The whole road in one command: data, pre-training, four downstream tasks, correlation, report (`make demo`)."""
