"""What the classification tasks share: scores, tables, pictures, and features of a frozen encoder."""
