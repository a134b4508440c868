"""FLIP's ablations in one command: cells at equal batch, equal samples and equal time, told apart in every table."""
