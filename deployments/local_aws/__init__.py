"""An AWS on this machine that really runs what it is asked to run."""
