"""Small-scale studies of the two papers' claims, one command each; docs/study/ says what they found."""
