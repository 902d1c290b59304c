"""Attention over packed rows as one Triton kernel, whose work follows the tokens and not the rows.

A program computes one block of neighbouring tokens for one head, whichever rows they belong to: it goes through the
keys from the first token of its first row to the last token of its last, and leaves out what is of other rows. Where
rows are short, one block of keys serves several of them; where there are none, nothing is launched. A kernel that is
launched for each row and its longest length computes a tile of 128 by 128 for a row of ten tokens.

The softmax is computed as the keys come, as in FlashAttention-2 (Dao, 2023, arXiv:2307.08691).
"""

import torch
import triton
import triton.language as tl

# Tokens of one program, and of one step through its keys. 8,192 tokens on an H200, 12 heads of 64, in microseconds (and
# by torch's FlashAttention-2): rows of 10 tokens take 64 (374), of 32 70 (230), of 128 71 (200), of 512 82 (217), of
# 2,048 213 (249). With 128 queries it is a fifth more where rows are short or see a window, and as much elsewhere.
_QUERIES = _KEYS = 64
# Of a matrix unit's smallest product.
_LEAST_WIDTH = 16
_LOG2_E = 1.4426950408889634
# Below every score; finite, as infinities would make NaN of a difference.
_NEVER = tl.constexpr(-1.0e30)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: torch.Tensor, scale: float, window: int
) -> torch.Tensor:
    """Attention of every token over its own row.

    Args:
        query: (heads, tokens, head_dim) in bfloat16 or float16, head_dim contiguous; key and value likewise, with as
            many heads or a divisor of them.
        key: See query.
        value: See query.
        bounds: int32 (2, tokens), contiguous: where each token's row starts and where it ends.
        scale: Of the scores.
        window: A token sees those at a distance below it; 0 sees all.

    Returns:
        (tokens, heads, head_dim), contiguous.
    """
    heads, tokens, width = query.shape
    out = query.new_empty(tokens, heads, width)
    padded_width = max(_LEAST_WIDTH, triton.next_power_of_2(width))
    _attend[(triton.cdiv(tokens, _QUERIES), heads)](
        query, key, value, bounds, out,
        *(one.stride(axis) for one in (query, key, value) for axis in (0, 1)),
        tokens, heads, heads // key.shape[0], width, scale * _LOG2_E,
        WINDOW=window, WIDTH=padded_width, QUERIES=_QUERIES, KEYS=_KEYS, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]  # noqa: ANN202
    query, key, value, bounds, out,  # noqa: ANN001
    query_head, query_token, key_head, key_token, value_head, value_token,  # noqa: ANN001
    tokens, heads, group, width, scale_log2,  # noqa: ANN001
    WINDOW: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    first = tl.program_id(0) * QUERIES
    head = tl.program_id(1)
    mine = first + tl.arange(0, QUERIES)
    is_mine = mine < tokens
    start = tl.load(bounds + mine, mask=is_mine, other=tokens)
    end = tl.load(bounds + tokens + mine, mask=is_mine, other=0)
    begin, stop = tl.min(start), tl.max(end)
    if WINDOW > 0:
        begin = tl.maximum(begin, first - WINDOW + 1)
        stop = tl.minimum(stop, first + QUERIES - 1 + WINDOW)
    lanes = tl.arange(0, WIDTH)
    is_lane = lanes < width
    queries = tl.load(
        query + head * query_head + mine[:, None] * query_token + lanes[None, :],
        mask=is_mine[:, None] & is_lane[None, :],
        other=0.0,
    )
    keys_of_head = key + (head // group) * key_head + lanes[:, None]
    values_of_head = value + (head // group) * value_head + lanes[None, :]
    highest = tl.full([QUERIES], _NEVER, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    sums = tl.zeros([QUERIES, WIDTH], tl.float32)
    for place in range(begin, stop, KEYS):
        theirs = place + tl.arange(0, KEYS)
        is_theirs = theirs < stop
        keys = tl.load(
            keys_of_head + theirs[None, :] * key_token, mask=is_lane[:, None] & is_theirs[None, :], other=0.0
        )
        seen = (theirs[None, :] >= start[:, None]) & (theirs[None, :] < end[:, None])
        if WINDOW > 0:
            apart = mine[:, None] - theirs[None, :]
            seen = seen & (apart < WINDOW) & (apart > -WINDOW)
        scores = tl.where(seen, tl.dot(queries, keys) * scale_log2, _NEVER)
        higher = tl.maximum(highest, tl.max(scores, 1))
        # Where nothing was seen yet, all scores are equal and lowest: what they add is taken back by the first seen.
        shares = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(highest - higher)
        values = tl.load(
            values_of_head + theirs[:, None] * value_token, mask=is_theirs[:, None] & is_lane[None, :], other=0.0
        )
        total = total * fade + tl.sum(shares, 1)
        sums = tl.dot(shares.to(values.dtype), values, sums * fade[:, None])
        highest = higher
    tl.store(
        out + (mine[:, None] * heads + head) * width + lanes[None, :],
        (sums / total[:, None]).to(out.dtype.element_ty),
        mask=is_mine[:, None] & is_lane[None, :],
    )
