"""What of Lambda's requests is there, and what a function's settings must be."""

from collections.abc import Callable, Mapping
from typing import Any

from deployments.local_aws.account import Account
from deployments.local_aws.function_environment import PRINCIPAL
from deployments.local_aws.function_store import invalid
from deployments.local_aws.protocol import AwsError, Operation
from deployments.local_aws.refusals import Supported

_REFUSED = "InvalidParameterValueException"
_MOST_VARIABLE_BYTES = 4096
_MOST_SECONDS = 900
_MOST_MEMORY_MB = 10_240
_PAGES = ("Marker", "MaxItems")
_ON_FUNCTION = ("FunctionName", "Qualifier")
_CODE = ("S3Bucket", "S3Key", "S3ObjectVersion", "ZipFile")
# What decides how a version runs; the rest of a request says what is to be done with it.
SETTINGS = ("Description", "Environment", "Handler", "LoggingConfig", "MemorySize", "Role", "Runtime", "Timeout")
_CONFIGURATION = (*SETTINGS[:3], "LoggingConfig.LogGroup", *SETTINGS[4:])
# The values that change nothing: what they would turn off is not there.
_OFF: Mapping[str, tuple[Any, ...]] = {
    "EphemeralStorage.Size": (512,),
    "LoggingConfig.LogFormat": ("Text",),
    "SnapStart.ApplyOn": ("None",),
    "TracingConfig.Mode": ("PassThrough",),
}
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
_RESERVED = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)

SUPPORTED: Mapping[str, Supported] = {
    "CreateFunction": Supported(
        honoured=("FunctionName", *_CONFIGURATION, *(f"Code.{name}" for name in _CODE), "Publish", "Tags"),
        recorded=("Architectures",),  # this machine's, whatever is asked for
        only={**_OFF, "PackageType": ("Zip",)},
    ),
    "UpdateFunctionCode": Supported(
        honoured=("FunctionName", *_CODE, "DryRun", "Publish", "RevisionId"), recorded=("Architectures",)
    ),
    "UpdateFunctionConfiguration": Supported(honoured=("FunctionName", "RevisionId", *_CONFIGURATION), only=_OFF),
    "GetFunction": Supported(honoured=_ON_FUNCTION),
    "GetFunctionConfiguration": Supported(honoured=_ON_FUNCTION),
    "DeleteFunction": Supported(honoured=_ON_FUNCTION),
    "ListFunctions": Supported(honoured=("FunctionVersion", *_PAGES)),
    "PublishVersion": Supported(honoured=("FunctionName", "CodeSha256", "Description", "RevisionId")),
    "ListVersionsByFunction": Supported(honoured=("FunctionName", *_PAGES)),
    "CreateAlias": Supported(honoured=("FunctionName", "Name", "FunctionVersion", "Description", "RoutingConfig")),
    "UpdateAlias": Supported(
        honoured=("FunctionName", "Name", "FunctionVersion", "Description", "RoutingConfig", "RevisionId")
    ),
    "GetAlias": Supported(honoured=("FunctionName", "Name")),
    "DeleteAlias": Supported(honoured=("FunctionName", "Name")),
    "ListAliases": Supported(honoured=("FunctionName", "FunctionVersion", *_PAGES)),
    "Invoke": Supported(honoured=(*_ON_FUNCTION, "InvocationType", "LogType", "Payload")),
    "PutFunctionConcurrency": Supported(honoured=("FunctionName", "ReservedConcurrentExecutions")),
    "GetFunctionConcurrency": Supported(honoured=("FunctionName",)),
    "DeleteFunctionConcurrency": Supported(honoured=("FunctionName",)),
    "PutProvisionedConcurrencyConfig": Supported(honoured=(*_ON_FUNCTION, "ProvisionedConcurrentExecutions")),
    "GetProvisionedConcurrencyConfig": Supported(honoured=_ON_FUNCTION),
    "DeleteProvisionedConcurrencyConfig": Supported(honoured=_ON_FUNCTION),
    "ListProvisionedConcurrencyConfigs": Supported(honoured=("FunctionName", *_PAGES)),
    "AddPermission": Supported(
        # Kept and told; who may call is decided by the caller's own policies here.
        honoured=(*_ON_FUNCTION, "StatementId", "Action", "Principal", "RevisionId"),
        recorded=("FunctionUrlAuthType", "InvokedViaFunctionUrl", "PrincipalOrgID", "SourceAccount", "SourceArn"),
    ),
    "GetPolicy": Supported(honoured=_ON_FUNCTION),
    "RemovePermission": Supported(honoured=(*_ON_FUNCTION, "StatementId", "RevisionId")),
    "TagResource": Supported(honoured=("Resource", "Tags")),
    "UntagResource": Supported(honoured=("Resource", "TagKeys")),
    "ListTags": Supported(honoured=("Resource",)),
    "GetAccountSettings": Supported(honoured=()),
    # Without a signature any page that the user visits could call the function.
    "CreateFunctionUrlConfig": Supported(
        honoured=_ON_FUNCTION, only={"AuthType": ("AWS_IAM",), "InvokeMode": ("BUFFERED",)}
    ),
    "UpdateFunctionUrlConfig": Supported(
        honoured=_ON_FUNCTION, only={"AuthType": ("AWS_IAM",), "InvokeMode": ("BUFFERED",)}
    ),
    "GetFunctionUrlConfig": Supported(honoured=_ON_FUNCTION),
    "DeleteFunctionUrlConfig": Supported(honoured=_ON_FUNCTION),
    "ListFunctionUrlConfigs": Supported(honoured=("FunctionName", *_PAGES)),
}


def checked(operations: Mapping[str, Operation]) -> dict[str, Operation]:
    """Return the operations so that each refuses what it would not do."""

    def check(name: str, operation: Operation) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def refuse_or_run(request: dict[str, Any]) -> dict[str, Any]:
            SUPPORTED[name].check(name, request, _REFUSED)
            return operation(request)

        return refuse_or_run

    return {name: check(name, operation) for name, operation in operations.items()}


def check_settings(account: Account, settings: Mapping[str, Any]) -> None:
    """Return if a version can run with the settings.

    Raises:
        AwsError: InvalidParameterValueException, in Lambda's words.
    """
    if "Runtime" not in settings or "Handler" not in settings:
        message = "Runtime and Handler are mandatory parameters for functions created with deployment packages."
        raise invalid(message)
    if not settings["Runtime"].startswith("python3."):
        message = f"The local AWS runs Python 3 functions and not {settings['Runtime']}"
        raise invalid(message)
    if settings.get("Timeout", 1) > _MOST_SECONDS or settings.get("MemorySize", 128) > _MOST_MEMORY_MB:
        message = f"Timeout is {_MOST_SECONDS} seconds at most, and MemorySize {_MOST_MEMORY_MB} MB"
        raise invalid(message)
    _check_variables(settings.get("Environment", {}).get("Variables", {}))
    try:
        account.assume_as_service(settings["Role"], PRINCIPAL)
    except AwsError as error:
        message = "The role defined for the function cannot be assumed by Lambda."
        raise invalid(message) from error


def _check_variables(variables: Mapping[str, str]) -> None:
    reserved = sorted(_RESERVED & variables.keys())
    unable = (
        "Lambda was unable to configure your environment variables because the environment variables you have provided"
    )
    if reserved:
        message = (
            f"{unable} contains reserved keys that are currently not supported for modification. Reserved keys used in "
            f"this request: {', '.join(reserved)}"
        )
        raise invalid(message)
    if sum(len(f"{name}{value}".encode()) for name, value in variables.items()) > _MOST_VARIABLE_BYTES:
        message = f"{unable} exceeded the 4KB limit."
        raise invalid(message)
