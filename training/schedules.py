"""The learning rate, as a pure function of the step: nothing of it needs to be in a checkpoint."""

import math

_WARM_UP = 0.1


def learning_rate_at(step: int, total_steps: int, peak: float) -> float:
    """Return the learning rate of a step counted from 0: a linear warm-up, then half a cosine down to nothing."""
    warm_up = max(1, round(total_steps * _WARM_UP))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = (step - warm_up) / max(1, total_steps - warm_up)
    return peak * (1 + math.cos(math.pi * done)) / 2
