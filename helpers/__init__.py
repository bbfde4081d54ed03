"""What the notebooks import: a thin layer over pandas, scikit-learn and Keras."""
