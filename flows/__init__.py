"""What a person runs: one file is one flow is one deployment."""

from tasks.failures import say_failures_in_sentences

# Here, since every flow comes by: started as a command, by a worker, or from Python.
say_failures_in_sentences()
