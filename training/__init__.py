"""The program that runs inside a job, on EC2 and behind an endpoint; it imports nothing else of ours."""
