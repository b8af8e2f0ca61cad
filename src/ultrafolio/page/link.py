"""Links: a scenario and a policy in the fragment of an address, #NAME/POLICY/TEXT.

TEXT is the scenario as TOML, without comments, expectations and fields that have their default, deflated and in the
letters of base64url. A policy that the page does not know by name stands in it as a [policy.NAME] table.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from urllib.parse import quote, unquote

from ultrafolio import shipped
from ultrafolio.errors import InputError, one_of
from ultrafolio.fields import toml_tables, unversioned
from ultrafolio.model import kernels, policies, toml
from ultrafolio.model.designs import S390
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.scenario import Scenario, document, parse
from ultrafolio.model.scenario import read as read_file

MOST_TEXT = 65_536
"""Bytes up to which a link's scenario is read."""


def link(story: Scenario, name: str, policy: AnyPolicy, policy_name: str) -> str:
    """The fragment, with its "#", that says the scenario and the policy. InputError for one of more than MOST_TEXT."""
    text = scenario_text(story, policy, policy_name)
    if len(text.encode()) > MOST_TEXT:
        raise InputError(
            f"{name}: too large for a link",
            value=f"{len(text.encode())} bytes",
            allowed=f"a scenario of at most {MOST_TEXT} bytes",
        )
    return f"#{quote(name, safe='')}/{quote(policy_name, safe='')}/{packed(text)}"


def packed(text: str) -> str:
    """A text deflated, in the letters of base64url."""
    packer = zlib.compressobj(9, wbits=-15)
    return base64.urlsafe_b64encode(packer.compress(text.encode()) + packer.flush()).decode().rstrip("=")


def read(address: str) -> tuple[str, str, str]:
    """(name of the scenario, name of the policy, text) of a link or its fragment. InputError for what is none."""
    parts = address.rpartition("#")[2].split("/")
    if len(parts) != 3:
        raise _damaged(address, "an address ends with #NAME/POLICY/TEXT")
    name, policy, letters = unquote(parts[0]), unquote(parts[1]), parts[2]
    try:
        deflated = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
        unpacker = zlib.decompressobj(wbits=-15)
        text = unpacker.decompress(deflated, MOST_TEXT)
        if not unpacker.eof:
            raise _damaged(address, f"its text is cut, or of more than {MOST_TEXT} bytes")
        return name, policy, text.decode()
    except (binascii.Error, zlib.error, ValueError):
        raise _damaged(address, "its last part is no packed text") from None


@dataclass(frozen=True, slots=True)
class Linked:
    """What a link says: a scenario, its name, and the policy's name. known: both
    names say it all, as that of a shipped scenario does."""

    story: Scenario
    name: str
    policy: str
    known: bool


def opened(address: str) -> Linked:
    """The scenario of a link or its fragment. InputError for what is no link, and for a text that is no scenario."""
    name, policy, text = read(address)
    try:
        tables = unversioned(toml_tables(text), name)
    except ValueError as error:
        raise _damaged(address, f"its text is not TOML: {error}") from None
    story = parse(tables, name)
    if not _is_named(policy, story):
        known = [*story.tables, *policies.presets_of(story.design)]
        raise one_of(f"{name}: unknown policy", policy, known, then="ultrafolio policies")
    return Linked(story, name, policy, _is_shipped(story, name, policy))


def is_link(word: str) -> bool:
    """Whether a word that stands for a scenario is meant to be a link."""
    return word.rpartition("#")[2].count("/") == 2 and "#" in word


def _is_named(policy: str, story: Scenario) -> bool:
    """Whether a policy's name means one without a look at any other file."""
    named = policy in story.tables or policy in policies.presets_of(story.design)
    return named or (story.design == S390.name and kernels.is_kernel(policy))


def _is_shipped(story: Scenario, name: str, policy: str) -> bool:
    """Whether the shipped scenario of this name is this one, and has the same policy of this name."""
    for file in shipped.shipped("scenarios", below=True):
        if file.stem == name:
            theirs = read_file(file)
            same = document(theirs) == document(story) and _is_named(policy, theirs)
            return same and policies.find_any(policy, theirs.tables) == policies.find_any(policy, story.tables)
    return False


def file_text(address: str) -> str:
    """The scenario of a link as a TOML file, with a line that says under which policy it was sent."""
    found = opened(address)
    return f"# from a link, under the policy {json.dumps(found.policy)}\n{read(address)[2]}"


def _damaged(address: str, cause: str) -> InputError:
    return InputError(
        "not a link to a scenario",
        value=address,
        cause=cause,
        allowed="what `ultrafolio check --link` prints",
        then="copy the whole address, in quotes: the shell reads # as a comment",
    )


def scenario_text(story: Scenario, policy: AnyPolicy, policy_name: str) -> str:
    """The scenario as TOML that scenario.parse reads as the same, with the policy where its name alone says nothing."""
    known = (*policies.names(), *policies.presets_of(story.design))
    own = [] if policy_name in known else _policy(policy, policy_name)
    return "\n".join([*toml.lines(story), *own]) + "\n"


def _policy(policy: AnyPolicy, name: str) -> list[str]:
    """A [policy.NAME] table with every choice that differs from the preset of its design of most equal choices."""
    presets = policies.presets_of(policies.design_of(policy))
    told_by = {preset: policies.differences(policies.find_any(preset), policy) for preset in presets}
    base = min(presets, key=lambda preset: len(told_by[preset]))
    return [
        f"[policy.{toml.value(name)}]",
        f"base = {toml.value(base)}",
        *(f"{choice} = {toml.value(value)}" for choice, value in told_by[base].items()),
    ]
