"""What is missing is said in one sentence, before anything is created."""

import pytest

from tasks.aws.errors import SettingsError
from tasks.aws.settings import load_settings, poll_seconds


def test_no_credentials_and_no_local_aws_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(SettingsError, match=r"no AWS credentials and no local AWS: start the local AWS"):
        load_settings()


def test_no_region_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="set AWS_REGION"):
        load_settings()


def test_nobody_listening_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(SettingsError, match="check AWS_ENDPOINT_URL"):
        load_settings()


@pytest.mark.parametrize("text", ["0", "-1", "soon"])
def test_a_poll_interval_must_be_a_positive_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SAGEMAKER_FLOWS_POLL_SECONDS", text)
    with pytest.raises(SettingsError, match="SAGEMAKER_FLOWS_POLL_SECONDS"):
        poll_seconds()


@pytest.mark.usefixtures("local_aws")
def test_settings_are_the_outputs_of_the_foundation_stack() -> None:
    settings = load_settings()
    assert settings.bucket.startswith("sagemaker-flows-")
    assert settings.training_role_arn.startswith(f"arn:aws:iam::{settings.account_id}:role/")
    assert settings.endpoint_role_arn != settings.training_role_arn


@pytest.mark.usefixtures("local_aws")
def test_an_account_without_the_stack_says_how_to_deploy_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_FLOWS_STACK", "another")
    with pytest.raises(SettingsError, match=r"no stack another .*`aws cloudformation deploy"):
        load_settings()
