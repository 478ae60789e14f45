"""When a Prefect task tries again: on named transient errors, and on nothing else.

No task's result is kept (`persist_result=False`), also where flows' are: a flow run that is run again is to ask AWS
what became of its jobs. A kept result would say that one was started which has ended since.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun

from tasks.aws.errors import is_transient_error

_DELAYS_SECONDS: list[float] = [2, 10, 30]

P = ParamSpec("P")
R = TypeVar("R")


def is_transient(_task: "Task[..., Any]", _task_run: TaskRun, state: State[Any]) -> bool:
    """Tell Prefect whether the task's failure is worth another try.

    A plain function on purpose: Prefect 3.8 calls a partial, a bound method or a callable object, and never retries.
    """
    outcome = state.result(raise_on_failure=False)
    return is_transient_error(outcome) if isinstance(outcome, BaseException) else False


def retried(
    task_run_name: str, when: Callable[["Task[..., Any]", TaskRun, State[Any]], bool] = is_transient
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function a task that asks AWS, and asks again after a transient error.

    Args:
        task_run_name: What a run of it says it does, with the function's parameters in braces.
        when: Tells Prefect of a failure whether to try again; a plain function, as `is_transient` says.
    """
    return task(
        task_run_name=task_run_name,
        retries=len(_DELAYS_SECONDS),
        retry_delay_seconds=_DELAYS_SECONDS,
        retry_condition_fn=when,
        persist_result=False,
    )
