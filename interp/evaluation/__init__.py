"""What a dictionary is worth: reconstruction, sparsity, the loss it keeps, probes; beside null controls."""
