"""How the log of a run says why it failed: in a sentence, where the stack would tell nobody anything."""

import logging

from botocore.exceptions import BotoCoreError, ClientError

from tasks.aws.errors import FlowsError, sentence_for

# What says itself what happened and what to do; of all else the stack is needed.
_SAY_IT_THEMSELVES = (FlowsError, ClientError, BotoCoreError)
_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")
_END = "Finished in state Failed("


def say_failures_in_sentences() -> None:
    """Have Prefect log an error of ours or of AWS as its sentence; at level DEBUG with the stack, as Prefect does."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_in_a_sentence)


def _in_a_sentence(record: logging.LogRecord) -> bool:
    if logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
        return True
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, _SAY_IT_THEMSELVES):
        record.msg, record.args, record.exc_info = _sentence(error), (), None
    elif isinstance(record.msg, str) and record.msg.startswith(_END) and r"\n" in record.msg:
        # Several lines in one, of which the record before has said all.
        record.msg = record.msg.partition(r"\n")[0] + " …')"
    return True


def _sentence(error: Exception) -> str:
    """Return the error's text; the runs around the one that failed leave its last lines out."""
    text, facts = sentence_for(error), vars(error)
    if facts.get("_told"):
        return text.partition("\n")[0]
    facts["_told"] = True
    return text
