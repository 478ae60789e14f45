"""The console of the local AWS, as a browser sees it."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import httpx
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from deployments.local_aws.console.pages import lasting, size
from deployments.local_aws.server import LocalAws
from deployments.local_aws.usage import RECORD_FILE

BUCKET = "console-tests"
SCRIPT = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
ONE_INSTANCE = "1 \N{MULTIPLICATION SIGN} ml.m5.large"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
LOSS = "import json, os; print('loss=', json.loads(os.environ['SM_HPS'])['x'], sep='')"
METRICS = [{"Name": "accuracy", "Regex": "accuracy=([0-9.]+)"}]
CLASSIFIER = """
import json

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    kind = dict(scope["headers"]).get(b"content-type", b"").decode()
    while (await receive()).get("more_body"):
        pass
    rivals = [{"label": kind, "probability": 0.75}, {"label": "<b>dog</b>", "probability": 0.25}]
    body = json.dumps({**rivals[0], "top_k": rivals, "model_version": "m1"}).encode()
    status = 200
    if kind == "application/octet-stream":
        status, body = 415, b"only pictures"
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

def create():
    return app
"""


class Browser:
    """A browser that has visited the console's address."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.client = httpx.Client(
            base_url=aws.endpoint_url, headers={"Accept": "text/html"}, follow_redirects=True, timeout=60
        )
        assert self.client.get(aws.console_url).status_code == 200

    def get(self, path: str, status: int = 200, **query: str) -> str:
        answer = self.client.get(path, params=query or None)
        assert answer.status_code == status, answer.text
        return answer.text

    def word(self, path: str) -> str:
        return self.get(path).split('name="word" value="')[1].split('"')[0]

    def ask(self, endpoint: str, picture: bytes, origin: str | None = None, **query: str) -> httpx.Response:
        page = f"/_console/endpoints/{endpoint}"
        return self.client.post(
            f"{page}/ask",
            params=query,
            headers={"Origin": origin or self.aws.endpoint_url},
            data={"word": self.word(page)},
            files={"picture": ("a.png", picture, "text/html")},
        )


@pytest.fixture(scope="module")
def browser(local_aws: LocalAws) -> Iterator[Browser]:
    browser = Browser(local_aws)
    yield browser
    browser.client.close()


@pytest.fixture(scope="module")
def bucket(local_aws: LocalAws) -> str:
    local_aws.account.client("s3").create_bucket(Bucket=BUCKET)
    return BUCKET


@pytest.fixture(scope="module")
def endpoint(cloud: Any) -> str:
    described = cloud.endpoint(cloud.config(cloud.package(**{"served.py": CLASSIFIER})))
    assert described["EndpointStatus"] == "InService", described
    return str(described["EndpointName"])


# --- who may look ---------------------------------------------------------------------------------------------------

PAGES = ["/", "/_console/training-jobs", "/_console/buckets", "/_console/nowhere", "/_console"]


@pytest.mark.parametrize("path", PAGES)
def test_without_the_token_it_says_where_the_address_is(local_aws: LocalAws, path: str) -> None:
    answer = httpx.get(local_aws.endpoint_url + path, headers={"Accept": "text/html"})
    assert answer.status_code == 403
    assert "address with the token is printed" in answer.text
    assert local_aws.console_key.token not in answer.text


@pytest.mark.parametrize("token", ["", "guess", "ä", "%00"])
def test_another_token_opens_nothing(local_aws: LocalAws, token: str) -> None:
    answer = httpx.get(f"{local_aws.endpoint_url}/?token={token}", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers.get("set-cookie")) == (403, None)


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_do_not_have(local_aws: LocalAws) -> None:
    answer = httpx.get(local_aws.console_url, headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert local_aws.console_key.token not in cookie


def test_the_token_is_in_nothing_that_is_logged(local_aws: LocalAws) -> None:
    assert local_aws.console_key.token not in repr(local_aws)
    assert not [value for value in local_aws.environment.values() if local_aws.console_key.token in value]


@pytest.mark.parametrize(
    "header",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Referer": "https://evil.example/"},
    ],
)
def test_other_pages_are_refused_though_the_browser_has_the_cookie(browser: Browser, header: dict[str, str]) -> None:
    answer = browser.client.get("/_console/buckets", headers=header)
    assert answer.status_code == 403
    assert BUCKET not in answer.text


FOLLOWED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_person_may_follow_a_link_from_another_page(browser: Browser, site: str) -> None:
    """Reports link here. The page that the link is on sees nothing of what is shown; GET changes nothing."""
    followed = {**FOLLOWED, "Sec-Fetch-Site": site, "Referer": "http://127.0.0.1:4200/"}
    answer = browser.client.get("/_console/buckets", headers=followed)
    assert (answer.status_code, answer.headers["cross-origin-opener-policy"]) == (200, "same-origin")


@pytest.mark.parametrize(
    "other",
    [
        {"Sec-Fetch-User": "?0"},
        {"Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Mode": "no-cors"},
        {"Origin": "https://evil.example"},
        {"Host": "evil.example"},
    ],
)
def test_nothing_else_that_comes_from_another_page_is_a_followed_link(browser: Browser, other: dict[str, str]) -> None:
    answer = browser.client.get("/_console/buckets", headers={**FOLLOWED, "Sec-Fetch-Site": "cross-site", **other})
    assert answer.status_code == 403


def test_its_own_pages_may_ask(browser: Browser) -> None:
    own = {"Origin": browser.aws.endpoint_url, "Sec-Fetch-Site": "same-origin", "Referer": browser.aws.endpoint_url}
    assert browser.client.get("/_console/buckets", headers=own).status_code == 200


def test_the_api_still_takes_nothing_from_web_pages(browser: Browser) -> None:
    answer = browser.client.get(f"/{BUCKET}", headers={"Origin": browser.aws.endpoint_url})
    assert (answer.status_code, "the Origin header is not allowed" in answer.text) == (403, True)


def test_a_cookie_opens_the_console_and_not_the_api(browser: Browser, bucket: str) -> None:
    assert "AccessDenied" in browser.get(f"/{bucket}", 403)


def test_a_signed_request_for_the_root_is_s3s(local_aws: LocalAws, bucket: str) -> None:
    s3 = boto3.client("s3")
    s3.meta.events.register("before-sign.s3", lambda request, **_: request.headers.add_header("Accept", "text/html"))
    assert bucket in [one["Name"] for one in s3.list_buckets()["Buckets"]]
    presigned = boto3.client("s3", config=Config(signature_version="s3v4")).generate_presigned_url("list_buckets")
    assert "ListAllMyBucketsResult" in httpx.get(presigned, headers={"Accept": "text/html"}).text


@pytest.mark.usefixtures("local_aws")
def test_an_unsigned_client_is_refused_in_s3s_words() -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        boto3.client("s3", config=Config(signature_version=UNSIGNED)).list_buckets()


@pytest.mark.parametrize("path", ["/", "/_console/nowhere", "/_console/static/style.css", "/_console/static/live.js"])
def test_a_browser_is_told_to_run_nothing_but_what_is_served_here(browser: Browser, path: str) -> None:
    answer = browser.client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in answer.text.replace("http://www.w3.org", "")


@pytest.mark.parametrize("name", ["../console.py", "%2e%2e/console.py", "layout.html", ""])
def test_nothing_else_of_its_folder_is_served(browser: Browser, name: str) -> None:
    assert browser.client.get(f"/_console/static/{name}").status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_pages_take_no_other_methods(browser: Browser, method: str) -> None:
    own = {"Origin": browser.aws.endpoint_url}
    assert browser.client.request(method, "/_console/buckets", headers=own).status_code == 405


def test_many_pages_at_once_leave_room_to_be_answered(browser: Browser) -> None:
    """Each page asks the same server in turn: with all of its threads showing pages, all would wait for ever."""
    with ThreadPoolExecutor(40) as pool:
        statuses = set(pool.map(lambda _: browser.client.get("/", timeout=60).status_code, range(80)))
    assert 200 in statuses
    assert statuses <= {200, 503}


def test_its_address_is_printed_and_kept_with_the_administrators_keys_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deployments.local_aws", "--root", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = [process.stderr.readline() for _ in range(2)]
        address = said[1].split()[-1]
        answer = httpx.get(address, headers={"Accept": "text/html"})
        files = {path.name for path in tmp_path.iterdir() if path.is_file() and address in path.read_text()}
        process.terminate()
        output, _ = process.communicate(timeout=60)
    assert answer.status_code == 303
    assert files == {"administrator.sh"}
    assert "token" not in output


# --- what there is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "training-jobs/none",
        "tuning-jobs/none",
        "endpoints/none",
        "instances/i-00000000000000000",
        "functions/none",
        "buckets/console-none",
        f"buckets/{BUCKET}/object?key=none",
        f"buckets/{BUCKET}/download?key=none",
        f"buckets/{BUCKET}/object",
        "buckets/_",
        "nowhere",
    ],
)
def test_what_does_not_exist_is_a_page_that_says_so(browser: Browser, bucket: str, path: str) -> None:
    assert "<h1>Not " in browser.get(f"/_console/{path}", 404)


def test_a_training_job_is_shown_with_its_log_and_metrics(cloud: Any, browser: Browser) -> None:
    definitions = {"TrainingImage": "pytorch", "TrainingInputMode": "File", "MetricDefinitions": METRICS}
    job = cloud.run_job(f"print('accuracy=0.9375'); print('{SCRIPT}')", AlgorithmSpecification=definitions)
    name = job["TrainingJobName"]
    assert job["TrainingJobStatus"] == "Completed", job
    listed = browser.get("/_console/training-jobs")
    assert f"/_console/training-jobs/{name}" in listed
    assert "0.9375" in listed
    page = browser.get(f"/_console/training-jobs/{name}")
    for expected in ("Completed", "0.9375", ONE_INSTANCE, "Downloading", "sagemaker_program", "model.tar.gz"):
        assert expected in page
    log = browser.get(f"/_console/training-jobs/{name}/log")
    assert ESCAPED in log
    assert SCRIPT not in log
    assert "<html" not in log
    assert name in browser.get("/")


def test_a_job_that_runs_is_billing_and_its_log_grows(cloud: Any, browser: Browser) -> None:
    script = "import time; print('begun', flush=True); time.sleep(600)"
    request = cloud.job_request(cloud.program(script))
    name = request["TrainingJobName"]
    cloud.sagemaker.create_training_job(**request)
    try:
        page = f"/_console/training-jobs/{name}"
        cloud.until(lambda: browser.get(f"{page}/log"), lambda seen: "begun" in seen)
        billing = browser.get("/", part="live").split("</section>")[0]
        assert name in billing
        assert ONE_INSTANCE in billing
    finally:
        cloud.sagemaker.stop_training_job(TrainingJobName=name)
    cloud.job_end(name)
    assert name not in browser.get("/", part="live").split("</section>")[0]


def test_a_part_is_sent_again_only_when_it_has_changed(browser: Browser, bucket: str) -> None:
    first = browser.client.get("/_console/buckets?part=live")
    assert "<html" not in first.text
    known = {"If-None-Match": first.headers["etag"]}
    assert browser.client.get("/_console/buckets?part=live", headers=known).status_code == 304
    browser.aws.account.client("s3").create_bucket(Bucket="console-tests-another")
    assert browser.client.get("/_console/buckets?part=live", headers=known).status_code == 200


def test_what_was_made_last_is_the_first_one_sees(browser: Browser) -> None:
    s3, names = browser.aws.account.client("s3"), [f"console-tests-made-{place}" for place in range(6)]
    for name in names:
        s3.create_bucket(Bucket=name)
    for page in ("/", "/_console/buckets"):
        text = browser.get(page)
        places = [text.find(name) for name in reversed(names) if name in text]
        assert places[:4] == sorted(places[:4])
        assert names[-1] in text
    for name in names:
        s3.delete_bucket(Bucket=name)


def test_a_later_page_of_a_list_stays_that_page(browser: Browser) -> None:
    for path in ("training-jobs", "tuning-jobs", "endpoints"):
        source = browser.get(f"/_console/{path}", page="0").split('data-live="')[1].split('"')[0]
        assert source.replace("&amp;", "&") in (
            f"/_console/{path}?part=live&page=0",
            f"/_console/{path}?page=0&part=live",
        )


def test_only_the_last_lines_of_a_log_are_shown(cloud: Any, browser: Browser) -> None:
    name = cloud.run_job("for number in range(300): print(f'line {number}.')")["TrainingJobName"]
    log = browser.get(f"/_console/training-jobs/{name}/log")
    assert "line 299." in log
    assert "line 1." not in log


@pytest.mark.slow
def test_a_tuning_job_is_shown_with_its_trials(cloud: Any, browser: Browser) -> None:
    trial = cloud.job_request(cloud.program(LOSS))
    del trial["TrainingJobName"]
    program = trial.pop("HyperParameters")
    trial["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=([0-9.]+)"}]
    name = cloud.name("tune")
    cloud.sagemaker.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=name,
        HyperParameterTuningJobConfig={
            "Strategy": "Grid",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxParallelTrainingJobs": 2},
            "ParameterRanges": {"CategoricalParameterRanges": [{"Name": "x", "Values": ["0.125", "0.25"]}]},
        },
        TrainingJobDefinition={**trial, "StaticHyperParameters": program},
    )
    page = f"/_console/tuning-jobs/{name}"
    cloud.until(lambda: browser.get(page, part="live"), lambda seen: seen.count("Completed") == 3)
    shown = browser.get(page)
    best = shown.split('<tr class="best">')[1].split("</tr>")[0]
    assert "0.125" in best
    assert "Grid" in shown
    assert "2 of 2" in browser.get("/_console/tuning-jobs")


def test_an_endpoint_is_shown_and_bills(browser: Browser, endpoint: str) -> None:
    assert endpoint in browser.get("/_console/endpoints")
    assert endpoint in browser.get("/", part="live").split("</section>")[0]
    page = browser.get(f"/_console/endpoints/{endpoint}")
    assert "InService" in page
    assert ONE_INSTANCE in page
    assert page.count("<rect") == 60


def test_the_traffic_of_an_endpoint_is_cloudwatchs(local_aws: LocalAws, browser: Browser, endpoint: str) -> None:
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "v"}]
    measured = {"Invocations": 1234.0, "ModelLatency": 56_700.0, "Invocation5XXErrors": 89.0}
    units = {"ModelLatency": "Microseconds"}
    local_aws.account.client("cloudwatch").put_metric_data(
        Namespace="AWS/SageMaker",
        MetricData=[
            {"MetricName": name, "Dimensions": dimensions, "Value": value, "Unit": units.get(name, "None")}
            for name, value in measured.items()
        ],
    )
    page = browser.get(f"/_console/endpoints/{endpoint}", part="live")
    for expected in (">1234<", ">89<", ">56.7 ms<", 'height="31.0"'):
        assert expected in page


def test_an_endpoint_answers_about_a_picture(browser: Browser, endpoint: str) -> None:
    """The type is that of the picture's first bytes, whatever the form says it is."""
    answer = browser.ask(endpoint, PNG)
    assert answer.status_code == 200
    for expected in ("<html", "<b>image/png</b> 75 %", "&lt;b&gt;dog&lt;/b&gt;", "25 %", "Model m1"):
        assert expected in answer.text
    assert "<html" not in browser.ask(endpoint, PNG, part="answer").text
    assert "<b>image/jpeg</b>" in browser.ask(endpoint, b"\xff\xd8\xff\xe0", part="answer").text


@pytest.mark.parametrize(("picture", "sentence"), [(b"GIF89a", "only pictures"), (b"", "No picture was chosen")])
def test_why_an_endpoint_does_not_answer_is_shown(
    browser: Browser, endpoint: str, picture: bytes, sentence: str
) -> None:
    assert sentence in browser.ask(endpoint, picture, part="answer").text


def test_an_answer_of_another_kind_is_shown_as_text(cloud: Any, browser: Browser) -> None:
    name = cloud.endpoint(cloud.config(cloud.package()))["EndpointName"]
    answer = browser.ask(name, SCRIPT.encode(), part="answer").text
    assert f"<pre>hello {ESCAPED}</pre>" in answer


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_picture_from_another_page_is_refused(browser: Browser, endpoint: str, origin: str) -> None:
    assert browser.ask(endpoint, PNG, origin=origin).status_code == 403


def test_a_picture_needs_the_word_of_the_form_the_cookie_and_its_origin(browser: Browser, endpoint: str) -> None:
    path, own = f"/_console/endpoints/{endpoint}/ask", {"Origin": browser.aws.endpoint_url}
    word, files = {"word": browser.word(f"/_console/endpoints/{endpoint}")}, {"picture": PNG}
    url = browser.aws.endpoint_url + path
    assert browser.client.post(path, headers=own, data=word, files=files).status_code == 200
    assert browser.client.post(path, headers=own, data={"word": "guess"}, files=files).status_code == 403
    assert browser.client.post(path, headers=own, files=files).status_code == 403
    assert browser.client.post(path, data=word, files=files).status_code == 403
    assert httpx.post(url, headers=own, data=word, files=files).status_code == 403
    assert browser.client.get(path).status_code == 405


def test_a_picture_that_is_too_large_is_refused(browser: Browser, endpoint: str) -> None:
    path = f"/_console/endpoints/{endpoint}/ask"
    answer = browser.client.post(path, headers={"Origin": browser.aws.endpoint_url}, content=b"x" * 27 * 1024 * 1024)
    assert answer.status_code == 413


def test_an_instance_is_shown_with_what_its_commands_wrote(cloud: Any, browser: Browser) -> None:
    ec2, ssm = boto3.client("ec2"), boto3.client("ssm")
    image = ssm.get_parameters_by_path(Path="/aws/service/deeplearning/ami", Recursive=True)["Parameters"][0]["Value"]
    launched = ec2.run_instances(
        ImageId=image,
        InstanceType="m5.large",
        MinCount=1,
        MaxCount=1,
        IamInstanceProfile={"Name": cloud.outputs["InstanceProfileName"]},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": SCRIPT}]}],
    )
    name = launched["Instances"][0]["InstanceId"]
    online = [{"Key": "InstanceIds", "Values": [name]}]
    cloud.until(lambda: ssm.describe_instance_information(Filters=online)["InstanceInformationList"], bool)
    commands = {"commands": ["echo out of it", "echo '<i>' >&2", "exit 7"]}
    ssm.send_command(InstanceIds=[name], DocumentName="AWS-RunShellScript", Parameters=commands)
    page = cloud.until(lambda: browser.get(f"/_console/instances/{name}"), lambda seen: "exit code 7" in seen)
    for expected in ("running", "m5.large", "out of it", "&lt;i&gt;", "Failed", ESCAPED):
        assert expected in page
    assert ESCAPED in browser.get("/_console/instances")
    assert name in browser.get("/", part="live").split("</section>")[0]
    ec2.terminate_instances(InstanceIds=[name])
    cloud.until(lambda: browser.get("/_console/instances"), lambda seen: "terminated" in seen)


def test_a_function_is_shown_with_versions_alias_url_and_log(cloud: Any, browser: Browser) -> None:
    client, name = boto3.client("lambda"), "flows-console"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", f"def handler(event, context):\n    print('{SCRIPT}')")
    client.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=cloud.outputs["LambdaRoleArn"],
        Handler="app.handler",
        Code={"ZipFile": buffer.getvalue()},
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.02})
    client.publish_version(FunctionName=name, Description="the first one")
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    url = client.create_function_url_config(FunctionName=name, Qualifier="live", AuthType="AWS_IAM")["FunctionUrl"]
    client.invoke(FunctionName=name, Payload=json.dumps({}))
    assert name in browser.get("/_console/functions")
    page = cloud.until(lambda: browser.get(f"/_console/functions/{name}"), lambda seen: ESCAPED in seen)
    for expected in ("python3.13", "the first one", "live", "→ 1", url):
        assert expected in page
    assert ESCAPED in browser.get(f"/_console/functions/{name}/log")
    client.delete_function(FunctionName=name)  # other tests look at what there is


# --- objects --------------------------------------------------------------------------------------------------------


def put(aws: LocalAws, key: str, body: bytes, **members: Any) -> None:
    aws.account.client("s3").put_object(Bucket=BUCKET, Key=key, Body=body, **members)


def test_objects_are_listed_by_folder_and_page(local_aws: LocalAws, browser: Browser, bucket: str) -> None:
    for number in range(105):
        put(local_aws, f"many/{number:03}", b"x" * number)
    assert "prefix=many/" in browser.get(f"/_console/buckets/{bucket}").replace("%2F", "/")
    first = browser.get(f"/_console/buckets/{bucket}", prefix="many/")
    assert ">099<" in first
    assert ">100<" not in first
    more = first.split('class="pager"><a href="')[1].split('"')[0].replace("&amp;", "&")
    second = browser.get(more)
    assert ">104<" in second
    assert ">104 B<" in second
    assert ">099<" not in second


@pytest.mark.parametrize("key", [f"x/{SCRIPT}", 'x/" onload="alert(1)', "x/ä b+c", "x/../y", "x//y", "x/q?u&e=r#y"])
def test_an_object_of_any_name_is_found_and_its_name_is_only_text(
    local_aws: LocalAws, browser: Browser, bucket: str, key: str
) -> None:
    put(local_aws, key, key.encode(), Metadata={"said": "<b>"})
    for query in ({"prefix": "x/"}, {"prefix": "x//"}):
        listed = browser.get(f"/_console/buckets/{bucket}", **query)
        assert SCRIPT not in listed
        assert 'onload="' not in listed
    page = browser.get(f"/_console/buckets/{bucket}/object", key=key)
    assert SCRIPT not in page
    assert 'onload="' not in page
    assert "&lt;b&gt;" in page
    link = page.split('class="button" href="')[1].split('"')[0].replace("&amp;", "&")
    assert browser.client.get(link).content == key.encode()


def test_json_is_laid_out_and_long_text_is_cut(local_aws: LocalAws, browser: Browser, bucket: str) -> None:
    put(local_aws, "a.json", b'{"a": [1, "<i>"]}')
    put(local_aws, "long.txt", "ä".encode() * 50_000)
    put(local_aws, "empty", b"")
    assert "{\n  &#34;a&#34;: [\n    1,\n    &#34;&lt;i&gt;" in browser.get(
        f"/_console/buckets/{bucket}/object", key="a.json"
    )
    assert "Only the beginning is shown" in browser.get(f"/_console/buckets/{bucket}/object", key="long.txt")
    assert "0 B" in browser.get(f"/_console/buckets/{bucket}/object", key="empty")


@pytest.mark.parametrize("path", ["download", "picture"])
def test_no_object_is_served_as_what_a_browser_would_run(
    local_aws: LocalAws, browser: Browser, bucket: str, path: str
) -> None:
    put(local_aws, "page.html", SCRIPT.encode(), ContentType="text/html", ContentDisposition="inline")
    answer = browser.client.get(f"/_console/buckets/{bucket}/{path}", params={"key": "page.html"})
    assert answer.content == SCRIPT.encode()
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_picture_is_shown_by_what_it_is(local_aws: LocalAws, browser: Browser, bucket: str) -> None:
    put(local_aws, "p.png", PNG, ContentType="text/html")
    page = browser.get(f"/_console/buckets/{bucket}/object", key="p.png")
    assert '<img class="picture"' in page
    answer = browser.client.get(f"/_console/buckets/{bucket}/picture", params={"key": "p.png"})
    assert (answer.headers["content-type"], answer.content) == ("image/png", PNG)


# --- and ------------------------------------------------------------------------------------------------------------


def test_looking_leaves_no_trace_in_the_record_of_use(browser: Browser) -> None:
    record = browser.aws.account.root / RECORD_FILE
    before = record.read_bytes() if record.exists() else b""
    browser.get("/")
    assert (record.read_bytes() if record.exists() else b"") == before


def test_two_local_awss_do_not_share_a_cookie(local_aws: LocalAws) -> None:
    """A browser sends the cookies of one port to all of them."""
    cookie = httpx.get(local_aws.console_url, headers={"Accept": "text/html"}).headers["set-cookie"]
    assert cookie.partition("=")[0] == f"local-aws-{urlsplit(local_aws.endpoint_url).port}"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1536, "1.5 KB"), (44_900_000, "43 MB"), (2**33, "8.0 GB")])
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert size(count) == text


def test_what_has_not_begun_has_no_duration() -> None:
    assert lasting(None) == ""
