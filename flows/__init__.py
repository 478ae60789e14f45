"""What a person runs: one file is one flow is one deployment."""
