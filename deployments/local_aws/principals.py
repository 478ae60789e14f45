"""Who calls: a user or the session of a role, with the identity policies that IAM has for it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend, iam_backends
from moto.sts.models import STSBackend, sts_backends

from deployments.local_aws.policy_conditions import Context
from deployments.local_aws.protocol import AwsError

ADMINISTRATOR = "administrator"  # the user who may do everything


@dataclass(frozen=True)
class Principal:
    """A caller.

    Attributes:
        arn: As messages name it: of the user, or of the role's session.
        name: As IAM keeps it: user/NAME or role/NAME.
        context: The condition keys that tell who it is.
        documents: Its identity policies.
        is_administrator: Whether it is the owner of the account, to whom everything is allowed.
    """

    arn: str
    name: str
    context: Context
    documents: tuple[str, ...] = ()
    is_administrator: bool = False


class Principals:
    """The callers of an account, by their access keys."""

    def __init__(self, account_id: str) -> None:
        self._account_id = account_id

    def find(self, access_key_id: str) -> Principal:
        """Return who has the key, with the policies of this moment.

        Raises:
            AwsError: Its rights cannot be told.
        """
        session = self._sts.get_assumed_role_from_access_key(access_key_id)
        if session is not None:
            return self._session(session)
        for name, user in list(self._iam.users.items()):
            if any(key.access_key_id == access_key_id for key in user.access_keys):
                return self._user(str(name), user)
        code, message = "AccessDenied", "The access key belongs to nobody"
        raise AwsError(code, message, 403)

    def _session(self, session: Any) -> Principal:
        name = session.role_arn.rpartition("/")[2]
        try:
            role = self._iam.get_role_by_arn(session.role_arn)
        except NotFoundException:
            role = None
        documents = _documents([role]) if role else ()  # a role that is gone allows nothing
        tags = {tag["Key"]: tag["Value"] for tag in (role.tags if role else None) or ()}
        context = self._context(session.role_arn, "AssumedRole", session.user_id, tags)
        return Principal(session.arn, f"role/{name}", context, documents)

    def _user(self, name: str, user: Any) -> Principal:
        groups = self._iam.get_groups_for_user(name)
        tags = self._iam.tagger.get_tag_dict_for_resource(user.arn)
        context = {**self._context(user.arn, "User", user.id, tags), "aws:username": (name,)}
        return Principal(user.arn, f"user/{name}", context, _documents([user, *groups]), name == ADMINISTRATOR)

    def _context(self, arn: str, kind: str, user_id: str, tags: Mapping[str, str]) -> Context:
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
        return {
            "aws:principalarn": (arn,),
            "aws:principalaccount": (self._account_id,),
            "aws:principaltype": (kind,),
            "aws:userid": (user_id,),
            "aws:username": (),
            "aws:principaltag/": (),
            **{f"aws:principaltag/{key.lower()}": (value,) for key, value in tags.items()},
        }

    @property
    def _iam(self) -> IAMBackend:
        return iam_backends[self._account_id]["aws"]

    @property
    def _sts(self) -> STSBackend:
        return sts_backends[self._account_id]["aws"]


def _documents(owners: Iterable[Any]) -> tuple[str, ...]:
    documents: list[str] = []
    for owner in owners:
        if getattr(owner, "permissions_boundary_arn", None):
            code, message = "NotImplemented", f"The local AWS does not evaluate permissions boundaries: {owner.name}"
            raise AwsError(code, message, 501)
        documents += list(owner.policies.values())
        documents += [_default_version(policy) for policy in list(owner.managed_policies.values())]
    return tuple(documents)


def _default_version(policy: Any) -> str:
    (document,) = (version.document for version in policy.versions if version.is_default)
    return str(document)
