"""The AWS side, which knows nothing of Prefect: requests, the life of a job, errors, settings, prices."""
