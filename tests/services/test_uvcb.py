"""The control blocks: the table is consistent; unpack inverts pack."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrafolio.errors import InputError
from ultrafolio.uvcall.calls import BY_COMMAND, CALLS, CPU, GUEST, HOST
from ultrafolio.uvcall.uvcb import answer, pack, unpack

LENGTHS = {
    0x0001: 0x120, 0x0002: 0x200, 0x000F: 0x48, 0x0100: 0x80, 0x0101: 0x40, 0x0102: 0x48, 0x0120: 0x60, 0x0121: 0x40,
    0x0200: 0x28, 0x0201: 0x20, 0x0202: 0x20, 0x0300: 0x50, 0x0301: 0x50, 0x0302: 0x40, 0x0310: 0x40, 0x0311: 0x40,
    0x0320: 0x40, 0x0321: 0x40, 0x0330: 0x50, 0x0340: 0x40, 0x0341: 0x20, 0x0342: 0x28, 0x0400: 0x40, 0x0401: 0x50,
    0x0402: 0x50, 0x0403: 0x50, 0x1000: 0x30, 0x1001: 0x30, 0x1020: 0x188, 0x1031: 0x48, 0x1033: 0x48, 0x1034: 0x48,
    0x1035: 0x48,
}  # fmt: skip
"""Command: length, as kernel §1.4 lists them."""


def filled(draw_value, call):
    return {name: draw_value(field.width) for name, field in call.inputs.items()}


@st.composite
def named_blocks(draw):
    call = draw(st.sampled_from(list(CALLS.values())))
    return call.name, filled(lambda width: draw(st.integers(0, (1 << 8 * width) - 1)), call)


def test_the_table_is_that_of_the_facts():
    assert {code: call.length for code, call in BY_COMMAND.items()} == LENGTHS
    bits = [call.bit for call in CALLS.values() if call.bit is not None]
    assert len(bits) == len(set(bits)) and len(BY_COMMAND) == len(CALLS)


@pytest.mark.parametrize("call", CALLS.values(), ids=lambda call: call.name)
def test_fields_stand_apart_and_within(call):
    fields = [*call.inputs.values(), *call.outputs.values()]
    taken = sorted((field.offset, field.offset + field.width) for field in fields)
    assert all(8 <= start < end <= call.length for start, end in taken)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(taken))
    assert call.chosen >= {rc for rc in call.codes if rc >= 0x111}
    assert not call.handle or call.handle in call.inputs
    assert call.who == HOST if call.handle == CPU else True


def test_a_block_byte_by_byte():
    """Import, as Linux's struct uv_cb_cts lays it out."""
    made = pack("import", guest_handle=0x1122334455667788, gaddr=0x99000)
    assert made.hex() == "0028020000000000" + "00" * 16 + "1122334455667788" + "0000000000099000"
    assert pack("create_cpu", number=0x0102)[0x34:0x38].hex() == "00000102"
    assert pack("cpu_set_state", state=5)[0x20:0x28].hex() == "0000000000000005"
    assert answer(made, 0x010A, 7)[:8].hex() == "00280200010a0007"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(named_blocks(), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=9))
def test_round_trip(named, rc, rrc, beyond):
    name, fields = named
    block = pack(name, **fields)
    read = unpack(block)
    assert (read.name, read.command, read.length) == (name, CALLS[name].command, len(block))
    assert {key: read.fields[key] for key in fields} == fields
    outputs = {key: (1 << 8 * field.width) - 1 for key, field in CALLS[name].outputs.items()}
    answered = answer(block + beyond, rc, rrc, **outputs)
    again = unpack(answered)
    assert (again.rc, again.rrc, answered[len(block) :]) == (rc, rrc, beyond)
    assert again.fields == {**fields, **outputs} and pack(name, **fields) == block


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(min_size=8, max_size=64))
def test_any_bytes_are_read(data):
    read = unpack(data)
    assert (read.name == "") == (read.command not in BY_COMMAND)
    assert answer(data, read.rc, read.rrc) == data


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: pack("imprt"), "did you mean 'import'"),
        (lambda: pack("import", guest_handel=1), "did you mean 'guest_handle'"),
        (lambda: pack("import", gaddr=1 << 64), "0 to 0xffffffffffffffff"),
        (lambda: pack("import", gaddr=-1), "0 to 0xffffffffffffffff"),
        (lambda: pack("import", length=0x20, gaddr=1), "at least 40 bytes"),
        (lambda: pack("import", length=7), "8 to 65535 bytes"),
        (lambda: unpack(b"\0" * 7), "7 bytes"),
        (lambda: answer(pack("create_cpu"), 1, handle=1), "cpu_handle"),
    ],
)
def test_bad_input_says_what_is_right(wrong, words):
    with pytest.raises(InputError) as error:
        wrong()
    assert words in str(error.value) and "next" in str(error.value)


def test_an_output_that_has_no_room_is_left_out():
    short = answer(pack("query", length=0xA8), 0x100, features=1, header_versions=1)
    assert unpack(short).fields["features"] == 1 and len(short) == 0xA8


def test_every_guest_call_takes_no_handle():
    """The caller identifies the guest; a handle in the block could name another."""
    assert not [call.name for call in CALLS.values() if call.who == GUEST and call.handle]
