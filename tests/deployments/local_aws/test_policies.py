"""Policies are read as AWS reads them: the examples are those of AWS's documentation.

IAM's user guide, https://docs.aws.amazon.com/IAM/latest/UserGuide/, in the pages that each test names.
"""

import json
from typing import Any

import pytest

from deployments.local_aws.policy_conditions import arn_like, like
from deployments.local_aws.policy_documents import PolicyError, statements_of
from deployments.local_aws.policy_evaluation import Access, evaluate

EC2 = "arn:aws:ec2:us-east-1:123456789012"


def document(*statements: dict[str, Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def allow(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def allowed(statements: list[dict[str, Any]], action: str, resource: str = "*", **context: Any) -> bool:
    return evaluate([document(*statements)], Access(action, resource, context_of(context))).allowed


def context_of(values: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the keys in lower case; None is a key that the request does not carry."""
    return {
        name.lower(): () if value is None else (value,) if isinstance(value, str) else tuple(value)
        for name, value in values.items()
    }


def fulfils(operator: str, key: str, expected: Any, actual: Any) -> bool:
    return allowed([allow(Condition={operator: {key: expected}})], "s3:GetObject", **{key: actual})


def test_what_nobody_allows_is_denied() -> None:
    """reference_policies_evaluation-logic_AccessPolicyLanguage_Interplay.html: implicit denial."""
    decision = evaluate([document(allow("s3:ListBucket"))], Access("s3:DeleteBucket"))
    assert (decision.allowed, decision.is_explicit) == (False, False)
    assert not evaluate([], Access("s3:ListBucket")).allowed


def test_an_explicit_deny_wins_wherever_it_is_written() -> None:
    """The same page: all DynamoDB, s3 and ec2 allowed but what is not of the bucket."""
    policies = [
        document(deny("s3:*", "arn:aws:s3:::private/*")),
        document(allow("s3:*")),
    ]
    for order in (policies, policies[::-1]):
        decision = evaluate(order, Access("s3:GetObject", "arn:aws:s3:::private/a"))
        assert (decision.allowed, decision.is_explicit) == (False, True)
        assert evaluate(order, Access("s3:GetObject", "arn:aws:s3:::public/a")).allowed


def test_one_document_is_enough_to_allow() -> None:
    policies = [document(allow("ec2:*")), document(allow("s3:Get*"))]
    assert evaluate(policies, Access("s3:GetObject", "arn:aws:s3:::b/k")).allowed


@pytest.mark.parametrize(
    ("pattern", "action", "matches"),
    [
        ("iam:*AccessKey*", "iam:CreateAccessKey", True),
        ("iam:*AccessKey*", "iam:ListAccessKeys", True),
        ("iam:*AccessKey*", "iam:ListUsers", False),
        ("iam:ListAccessKeys", "IAM:listaccesskeys", True),
        ("s3:Get?bject", "s3:GetObject", True),
        ("s3:Get?Object", "s3:GetObject", False),
        ("s3:GetObject", "s3:GetObjectTagging", False),
        ("s3:Get.bject", "s3:GetObject", False),
        ("*", "sqs:SendMessage", True),
    ],
)
def test_actions_take_wildcards_and_any_case(pattern: str, action: str, *, matches: bool) -> None:
    """reference_policies_elements_action.html."""
    assert allowed([allow(pattern)], action) is matches


def test_not_action_is_all_but_those() -> None:
    """reference_policies_elements_notaction.html: all of S3 but DeleteBucket; deny all but IAM without MFA."""
    statement = {"Effect": "Allow", "NotAction": "s3:DeleteBucket", "Resource": "arn:aws:s3:::*"}
    assert allowed([statement], "s3:PutObject", "arn:aws:s3:::b/k")
    assert not allowed([statement], "s3:DeleteBucket", "arn:aws:s3:::b")
    assert not allowed([statement], "ec2:RunInstances", f"{EC2}:instance/*")


def test_not_resource_is_all_but_those() -> None:
    """reference_policies_elements_notresource.html: deny all of S3 but one bucket."""
    own = ["arn:aws:s3:::HRBucket/Payroll", "arn:aws:s3:::HRBucket/Payroll/*"]
    statements = [allow("s3:*"), {"Effect": "Deny", "Action": "s3:*", "NotResource": own}]
    assert allowed(statements, "s3:GetObject", "arn:aws:s3:::HRBucket/Payroll/2026")
    assert not allowed(statements, "s3:GetObject", "arn:aws:s3:::HRBucket/Other")


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        ("1/test/object.jpg", True),
        ("1/2/3/test/4/object.jpg", True),
        ("1///test///object.jpg", True),
        ("1/test/.jpg", True),
        ("/test/object.jpg", True),
        ("1/test/", True),
        ("1-test/object.jpg", False),
        ("test/object.jpg", False),
        ("1/2/test.jpg", False),
    ],
)
def test_wildcards_in_a_key_reach_over_slashes(key: str, *, matches: bool) -> None:
    """reference_policies_elements_resource.html, the list of objects under "Using wildcards in resource ARNs"."""
    arn = f"arn:aws:s3:::amzn-s3-demo-bucket/{key}"
    assert arn_like(arn, "arn:aws:s3:::amzn-s3-demo-bucket/*/test/*") is matches


@pytest.mark.parametrize(
    ("pattern", "arn", "matches"),
    [
        ("arn:aws:iam::123456789012:user/accounting/*", "arn:aws:iam::123456789012:user/accounting/a/b", True),
        ("arn:aws:iam::123456789012:user/Bob", "arn:aws:iam::123456789012:user/bob", False),
        ("arn:aws:logs:us-east-1:*:log-group:/aws/*", "arn:aws:logs:us-east-1:1:log-group:/aws/x:log-stream:y", True),
        ("arn:aws:sqs:*:*:queue1", "arn:aws:sqs:us-west-2:1:queue1", True),
        ("arn:aws:sqs:*:queue1", "arn:aws:sqs:us-west-2:1:queue1", False),
        ("arn:aws:s3:*", "arn:aws:s3:::b/k", True),
        ("arn:aws:s3:::b", "arn:aws:s3:::b/k", False),
        ("arn:aws:s3:::b*", "*", False),
        ("*", "*", True),
    ],
)
def test_an_arn_is_matched_part_by_part(pattern: str, arn: str, *, matches: bool) -> None:
    assert allowed([allow(resource=pattern)], "x:Y", arn) is matches


def test_text_is_matched_with_star_and_question_mark_only() -> None:
    assert like("a\nb", "a*")
    assert like("[x]", "[x]")
    assert not like("ab", "a")
    assert not like("a", "A")


@pytest.mark.parametrize(
    ("operator", "expected", "actual", "matches"),
    [
        ("StringEquals", "iamuser-admin", "iamuser-admin", True),
        ("StringEquals", ["a", "b"], "b", True),
        ("StringEquals", "b*", "bc", False),
        ("StringEquals", "x", None, False),
        ("StringEqualsIfExists", "x", None, True),
        ("StringEqualsIfExists", "x", "y", False),
        ("StringNotEquals", ["a", "b"], "c", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotEquals", "a", None, True),
        ("StringEqualsIgnoreCase", "JohnDoe", "johndoe", True),
        ("StringNotEqualsIgnoreCase", "JohnDoe", "johndoe", False),
        ("StringLike", ["", "home/", "home/user/*"], "home/user/a", True),
        ("StringLike", ["", "home/"], "home/user/a", False),
        ("StringNotLike", "home/*", "work/a", True),
        ("NumericLessThanEquals", "10", "10", True),
        ("NumericLessThanEquals", 10, "10.5", False),
        ("NumericGreaterThan", "10", "9", False),
        ("NumericNotEquals", "1", "1.0", False),
        ("NumericEquals", "1", "one", False),
        ("DateGreaterThan", "2020-01-01T00:00:01Z", "2026-05-01T00:00:00Z", True),
        ("DateLessThan", "2020-01-01T00:00:01Z", "2026-05-01T00:00:00Z", False),
        ("DateGreaterThan", "1577836801", "2026-05-01T00:00:00Z", True),
        ("Bool", "false", "false", True),
        ("Bool", True, "true", True),
        ("Bool", "true", None, False),
        ("BoolIfExists", "true", None, True),
        ("IpAddress", "203.0.113.0/24", "203.0.113.7", True),
        ("IpAddress", ["203.0.113.0/24", "2001:DB8::/32"], "2001:db8::1", True),
        ("NotIpAddress", "203.0.113.0/24", "198.51.100.1", True),
        ("NotIpAddress", "203.0.113.0/24", "203.0.113.1", False),
        ("ArnEquals", "arn:aws:sns:*:123456789012:t-*", "arn:aws:sns:us-east-1:123456789012:t-1", True),
        ("ArnLike", "arn:aws:sns:*:t-1", "arn:aws:sns:us-east-1:123456789012:t-1", False),
        ("ArnNotLike", "arn:aws:sns:*:*:*", "arn:aws:sns:us-east-1:1:t", False),
        ("Null", "true", None, True),
        ("Null", "true", "token", False),
        ("Null", "false", "token", True),
        ("Null", "false", None, False),
    ],
)
def test_condition_operators(operator: str, expected: Any, actual: str | None, *, matches: bool) -> None:
    """reference_policies_elements_condition_operators.html."""
    assert fulfils(operator, "aws:SomeKey", expected, actual) is matches


@pytest.mark.parametrize(
    ("operator", "actual", "matches"),
    [
        ("ForAllValues:StringEquals", ["environment", "webserver"], True),
        ("ForAllValues:StringEquals", ["environment", "other"], False),
        ("ForAllValues:StringEquals", None, True),
        ("ForAnyValue:StringEquals", ["environment", "other"], True),
        ("ForAnyValue:StringEquals", ["other"], False),
        ("ForAnyValue:StringEquals", None, False),
        ("ForAnyValue:StringEqualsIfExists", None, False),
        ("ForAllValues:StringNotEquals", ["other", "third"], True),
        ("ForAllValues:StringNotEquals", ["other", "webserver"], False),
        ("ForAnyValue:StringNotEquals", ["other", "webserver"], True),
        ("ForAnyValue:StringNotEquals", ["environment", "webserver"], False),
    ],
)
def test_keys_with_several_values(operator: str, actual: list[str] | None, *, matches: bool) -> None:
    """reference_policies_condition-single-vs-multi-valued-context-keys.html and the examples page after it."""
    assert fulfils(operator, "aws:TagKeys", ["environment", "webserver"], actual) is matches


def test_restricted_tags_are_denied_as_in_the_example() -> None:
    """reference_policies_condition_examples-multi-valued-context-keys.html: DenyRestrictedTags."""
    condition = {
        "Null": {"aws:TagKeys": "false"},
        "ForAllValues:StringLike": {"aws:TagKeys": ["key1*", "key2*", "key3*"]},
    }
    statements = [allow("iam:*"), deny(["iam:Tag*", "iam:UnTag*"], Condition=condition)]
    assert not allowed(statements, "iam:TagRole", **{"aws:TagKeys": ["key1:legal", "key2:hr"]})
    assert allowed(statements, "iam:TagRole", **{"aws:TagKeys": ["key1:legal", "other"]})
    assert allowed(statements, "iam:TagRole", **{"aws:TagKeys": None})


def test_all_operators_and_keys_must_hold() -> None:
    """reference_policies_condition-logic-multiple-context-keys-or-values.html: AND between keys, OR between values."""
    condition = {
        "StringEquals": {"aws:PrincipalTag/department": ["finance", "hr", "legal"], "aws:PrincipalTag/role": "audit"},
        "ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/*"},
    }
    user = {"aws:PrincipalArn": "arn:aws:iam::1:user/a", "aws:PrincipalTag/": None}
    tags = {"aws:PrincipalTag/department": "hr", "aws:PrincipalTag/role": "audit"}
    assert allowed([allow(Condition=condition)], "x:Y", **user, **tags)
    for name in tags:
        assert not allowed([allow(Condition=condition)], "x:Y", **user, **{**tags, name: "other"})
        assert not allowed([allow(Condition=condition)], "x:Y", **user, **{**tags, name: None})


def test_keys_are_told_apart_without_their_case() -> None:
    """reference_policies_elements_condition.html: condition key names are not case-sensitive."""
    condition = {"StringEquals": {"AWS:sourceip": "1.2.3.4"}}
    assert allowed([allow(Condition=condition)], "x:Y", **{"aws:SourceIp": "1.2.3.4"})


@pytest.mark.parametrize(
    "condition",
    [
        {"BinaryEquals": {"aws:SourceIp": "QmluYXJ5"}},
        {"StringSortOf": {"aws:SourceIp": "a"}},
        {"ForSome:StringEquals": {"aws:SourceIp": "a"}},
        {"StringEquals": {"aws:NobodyKnows": "a"}},
        {"StringNotEquals": {"aws:NobodyKnows": "a"}},
        {"StringEqualsIfExists": {"aws:NobodyKnows": "a"}},
        {"Null": {"aws:NobodyKnows": "true"}},
        {"StringEquals": {"aws:TagKeys": ["one", "two"]}},
        {"StringEquals": {"aws:SourceIp": "${aws:NobodyKnows}"}},
    ],
)
def test_what_cannot_be_evaluated_never_helps(condition: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Neither does an allow with it allow, nor does a deny with it let pass, and the log says why."""
    carried = {"aws:SourceIp": "a", "aws:TagKeys": ["one", "two"]}
    assert not allowed([allow(Condition=condition)], "x:Y", **carried)
    assert not allowed([allow(), deny(Condition=condition)], "x:Y", **carried)
    assert "cannot evaluate" in caplog.text
    assert allowed([allow(), allow(Condition=condition)], "x:Y", **carried)


def test_what_is_not_about_the_request_need_not_be_evaluated() -> None:
    strange = {"StringEquals": {"aws:NobodyKnows": "a"}}
    assert allowed([allow(), deny("x:Other", Condition=strange)], "x:Y")


def test_policy_variables_stand_for_what_the_request_carries() -> None:
    """reference_policies_variables.html: each user in his own folder."""
    own = allow("s3:GetObject", "arn:aws:s3:::amzn-s3-demo-bucket/${aws:username}/*")
    listing = allow("s3:ListBucket", Condition={"StringLike": {"s3:prefix": "${aws:username}/*"}})
    bob = {"aws:username": "bob"}
    assert allowed([own], "s3:GetObject", "arn:aws:s3:::amzn-s3-demo-bucket/bob/a", **bob)
    assert not allowed([own], "s3:GetObject", "arn:aws:s3:::amzn-s3-demo-bucket/eve/a", **bob)
    assert allowed([listing], "s3:ListBucket", **bob, **{"s3:prefix": "bob/x"})
    assert not allowed([listing], "s3:ListBucket", **bob, **{"s3:prefix": "eve/x"})


def test_a_variable_with_a_wildcard_in_its_value_is_no_wildcard() -> None:
    own = allow("s3:GetObject", "arn:aws:s3:::b/${aws:PrincipalTag/team}/*")
    assert not allowed([own], "s3:GetObject", "arn:aws:s3:::b/x/a", **{"aws:PrincipalTag/team": "*"})
    assert allowed([own], "s3:GetObject", "arn:aws:s3:::b/*/a", **{"aws:PrincipalTag/team": "*"})


def test_a_variable_without_a_value_matches_nothing_but_by_its_default() -> None:
    """The same page, "Specifying default values", and "Policy variables with no value"."""
    plain, default = (
        allow("s3:GetObject", f"arn:aws:s3:::b-{variable}/*")
        for variable in ("${aws:PrincipalTag/team}", "${aws:PrincipalTag/team, 'company-wide'}")
    )
    nobody = {"aws:PrincipalTag/": None}
    assert not allowed([plain], "s3:GetObject", "arn:aws:s3:::b-/a", **nobody)
    assert not allowed([plain], "s3:GetObject", "arn:aws:s3:::b-${aws:PrincipalTag/team}/a", **nobody)
    assert allowed([default], "s3:GetObject", "arn:aws:s3:::b-company-wide/a", **nobody)


def test_special_characters_have_variables_of_their_own() -> None:
    """The same page: ${*}, ${?} and ${$}."""
    starred = allow("s3:GetObject", "arn:aws:s3:::b/${*}a${$}")
    assert allowed([starred], "s3:GetObject", "arn:aws:s3:::b/*a$")
    assert not allowed([starred], "s3:GetObject", "arn:aws:s3:::b/xa$")


def test_the_old_version_has_no_variables() -> None:
    """reference_policies_elements_version.html: there ${aws:username} is text."""
    policy = document(allow("s3:GetObject", "arn:aws:s3:::b/${aws:username}"), version="2008-10-17")
    context = context_of({"aws:username": "bob"})
    assert not evaluate([policy], Access("s3:GetObject", "arn:aws:s3:::b/bob", context)).allowed
    assert evaluate([policy], Access("s3:GetObject", "arn:aws:s3:::b/${aws:username}", context)).allowed


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        document({"Effect": "Permit", "Action": "*", "Resource": "*"}),
        document({"Effect": "Allow", "Action": "*"}),
        document({"Effect": "Allow", "Resource": "*"}),
        document({"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"}),
        document({"Effect": "Allow", "Action": [], "Resource": "*"}),
        document({"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}),
        document({"Effect": "Allow", "Action": "*", "Resource": "*", "Conditions": {}}),
        document(allow(Condition={"StringEquals": {"a:b": {"c": "d"}}})),
        document(allow(), version="2026-01-01"),
    ],
)
def test_what_is_no_identity_policy_denies_everything(text: str) -> None:
    """It might hold a deny that is not understood."""
    with pytest.raises(PolicyError):
        statements_of(text)
    assert not evaluate([document(allow()), text], Access("x:Y")).allowed


def test_a_statement_needs_no_brackets() -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": allow("x:Y")})
    assert evaluate([policy], Access("x:Y")).allowed
