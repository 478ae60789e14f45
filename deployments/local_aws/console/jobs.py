"""Training jobs and tuning jobs, as the console shows them."""

from typing import Any

from deployments.local_aws.console.logs import last_lines
from deployments.local_aws.console.pages import Clients, Page, Query

PAGE_SIZE = 25
_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_S3 = "s3://"


def training_jobs(client: Clients, query: Query) -> Page:
    """Return the jobs, the newest first."""
    sagemaker = client("sagemaker")
    answer = sagemaker.list_training_jobs(MaxResults=PAGE_SIZE, **_page(query))
    jobs = [
        sagemaker.describe_training_job(TrainingJobName=one["TrainingJobName"])
        for one in answer["TrainingJobSummaries"]
    ]
    return Page("training_jobs.html", {"jobs": jobs, "page": query.get("page"), "next": answer.get("NextToken")})


def training_job(client: Clients, _query: Query, name: str) -> Page:
    """Return one job: request, statuses, metrics, log, model."""
    job = client("sagemaker").describe_training_job(TrainingJobName=name)
    model = _location(job.get("ModelArtifacts", {}).get("S3ModelArtifacts", ""))
    is_there = job["TrainingJobStatus"] in ("Completed", "Stopped")
    lines = last_lines(client("logs"), _LOG_GROUP, f"{name}/")
    return Page("training_job.html", {"job": job, "model": model if is_there else None, "lines": lines})


def training_log(client: Clients, _query: Query, name: str) -> Page:
    """Return the last lines of a job."""
    return Page("log.html", {"lines": last_lines(client("logs"), _LOG_GROUP, f"{name}/")})


def tuning_jobs(client: Clients, query: Query) -> Page:
    """Return the tuning jobs, the newest first."""
    answer = client("sagemaker").list_hyper_parameter_tuning_jobs(
        MaxResults=PAGE_SIZE, SortBy="CreationTime", SortOrder="Descending", **_page(query)
    )
    jobs = answer["HyperParameterTuningJobSummaries"]
    return Page("tuning_jobs.html", {"jobs": jobs, "page": query.get("page"), "next": answer.get("NextToken")})


def tuning_job(client: Clients, _query: Query, name: str) -> Page:
    """Return one tuning job with its trials, in the order in which they began."""
    sagemaker = client("sagemaker")
    job = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending", MaxResults=100
    )
    trials = [trial for page in pages for trial in page["TrainingJobSummaries"]]
    tuned = sorted({parameter for trial in trials for parameter in trial["TunedHyperParameters"]})
    best = job.get("BestTrainingJob", {}).get("TrainingJobName")
    return Page("tuning_job.html", {"job": job, "trials": trials, "tuned": tuned, "best": best})


def _page(query: Query) -> dict[str, Any]:
    return {"NextToken": query["page"]} if "page" in query else {}


def _location(uri: str) -> tuple[str, str] | None:
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    return (bucket, key) if uri.startswith(_S3) and key else None
