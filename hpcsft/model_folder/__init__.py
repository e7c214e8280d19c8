"""What a model folder tells without loading it: small reads, and nothing but the standard library."""
