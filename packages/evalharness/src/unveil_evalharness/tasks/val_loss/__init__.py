"""The pre-training validation loss, measured again."""
