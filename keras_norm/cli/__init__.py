"""The commands of the program keras-norm."""
