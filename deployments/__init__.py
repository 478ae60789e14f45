"""Where things run: the foundation stack, the AWS on this machine, a Prefect server of its own."""
