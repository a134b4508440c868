"""Sections of the report about evaluated checkpoints, one idea a module."""
