"""What the notebooks study, where it is too long for a cell or deserves a unit test."""
