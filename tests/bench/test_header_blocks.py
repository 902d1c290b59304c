"""Header blocks as RFC 7541 writes them."""

from bench.header_blocks import RequestHeaders, value_of


def test_the_second_block_refers_to_what_the_first_one_put_into_the_table() -> None:
    headers = RequestHeaders("127.0.0.1:1", "/a.B/C")
    first, second = headers.block(1.5), headers.block(1.5)
    assert b"/a.B/C" in first
    assert second == b"\x83\x86" + bytes([0x80 | place for place in (66, 65, 64, 63, 62)]) + first[-20:]
    assert second.endswith(b"\x0cgrpc-timeout\x051500m")


def test_a_time_out_is_never_nothing() -> None:
    assert RequestHeaders("h:1", "/a.B/C").block(0.0001).endswith(b"\x021m")


def test_a_value_is_found_whether_or_not_it_should_be_indexed() -> None:
    block = b"\x88" + b"\x40\x0bgrpc-status\x018" + b"\x00\x01a\x012" + b"\x10\x01b\x013"
    assert [value_of(block, name) for name in (b"grpc-status", b"a", b"b")] == ["8", "2", "3"]


def test_a_header_that_is_not_there_has_no_value() -> None:
    assert value_of(b"\x00\x06status\x018", b"grpc-status") is None


def test_a_long_value_has_a_length_of_several_bytes() -> None:
    value = b"x" * 500
    block = b"\x00\x01a" + bytes([0x7F, (500 - 127) & 0x7F | 0x80, (500 - 127) >> 7]) + value
    assert value_of(block, b"a") == "x" * 500


def test_a_huffman_coded_value_counts_as_empty() -> None:
    assert value_of(b"\x00\x05a-bin\x82\x1c\x64" + b"\x00\x01b\x013", b"a-bin") == ""
