"""GGUF files byte by byte, and encoders by the formats' formulas: a weight and its index."""

import struct

import numpy as np

NAMES = "F32 F16 Q4_0 Q4_1 Q8_0 Q6_K BF16 TQ1_0 TQ2_0 I2_S TL1 TL2 Q1_0 Q2_0 IQ1_BN IQ2_BN"
IDS = (0, 1, 2, 3, 8, 14, 30, 34, 35, 36, 38, 39, 41, 42, 134, 135)
TYPE_NUMBERS = dict(zip(NAMES.split(), IDS, strict=True))
NUMBERS = dict(zip((*range(8), 10, 11, 12), "BbHhIifBQqd", strict=True))
STRING, ARRAY = 8, 9


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return u64(len(data)) + data


def value(kind, content):
    """A value with its type; an array's content is (type of elements, elements)."""
    return u32(kind) + bare(kind, content)


def bare(kind, content):
    if kind == STRING:
        return string(content)
    if kind == ARRAY:
        element, items = content
        return u32(element) + u64(len(items)) + b"".join(bare(element, item) for item in items)
    return struct.pack("<" + NUMBERS[kind], content)


def key(name, kind, content):
    return string(name) + value(kind, content)


def entry(name, shape, number, offset):
    dims = b"".join(u64(length) for length in reversed(shape))
    return string(name) + u32(len(shape)) + dims + u32(number) + u64(offset)


def head(keys=(), entries=(), version=3):
    """A header of encoded keys and tensor entries."""
    counts = u64(len(entries)) + u64(len(keys))
    return b"GGUF" + u32(version) + counts + b"".join(keys) + b"".join(entries)


def padded(data, alignment=32):
    return data + bytes(-len(data) % alignment)


def gguf_bytes(tensors, keys=(), version=3, alignment=32):
    """A whole file; ``tensors``: name -> (type number, shape, bytes)."""
    entries, data = [], b""
    for name, (number, shape, content) in tensors.items():
        entries.append(entry(name, shape, number, len(data)))
        data += padded(bytes(content), alignment)
    return padded(head(keys, entries, version), alignment) + data


def write_tensor(path, kind, shape, content):
    """A file of one tensor ``x``."""
    path.write_bytes(gguf_bytes({"x": (TYPE_NUMBERS[kind], shape, content)}))
    return path


def put(size, index, value, dtype=np.uint8):
    """Bytes of which each is the sum of the values that are given for its index."""
    sums = np.bincount(np.ravel(index), np.ravel(value), size)
    assert sums.max(initial=0) <= np.iinfo(dtype).max
    return sums.astype(dtype)


def i2_s(trits, scale, layout, tail=bytes(28)):
    n, k = trits.shape
    flat = np.arange(n * k)
    if layout == "4-row":
        row, column = divmod(flat, k)
        byte, group = row // 4 * k + column, row % 4
    else:
        block = int(layout.removesuffix("-block"))
        byte = flat // block * (block // 4) + flat % (block // 4)
        group = flat % block // (block // 4)
    codes = put(n * k // 4, byte, (trits.ravel() + 1) << (6 - 2 * group))
    return codes.tobytes() + struct.pack("<f", scale) + tail


def grid(rows, columns):
    return np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")


def tl1(trits, scale, BM, BK, bm):
    n, k = trits.shape
    by = 256 // bm
    r, t = grid(n, k // 2)
    code = 3 * trits[:, 0::2] + trits[:, 1::2] + 4
    mt, rr = r // BM, r % BM
    s, lane = rr // bm, rr % bm
    lg, ll = lane // 16, lane % 16
    kt, tt = t // (BK // 2), t % (BK // 2)
    g, x = tt // (by // 2), tt % (by // 2)
    h, j = x // 2, x % 2
    index = ((mt * (k // BK) + kt) * (BM // bm) + s) * (BK // by) + g
    index = ((index * (bm // 16) + lg) * (by // 4) + h) * 16 + ll
    codes = put(n * k // 4, index, code << np.where(j == 0, 4, 0))
    return codes.tobytes() + struct.pack("<f", scale) + bytes(28)


def tl2(trits, scale, BM, BK):
    n, k = trits.shape
    k2 = k % BK
    k3 = k - k2
    places = np.arange(32)
    places[8:16], places[16:24] = np.arange(16, 24), np.arange(8, 16)  # P(l)

    w = trits.astype(np.int64)
    r, t = grid(n, k3 // 3)
    v = 9 * w[:, 0:k3:3] + 3 * w[:, 1:k3:3] + w[:, 2:k3:3]
    mt, rr = r // BM, r % BM
    s, lane = rr // 32, rr % 32
    kt, tt = t // (BK // 3), t % (BK // 3)
    tile = (mt * (k3 // BK) + kt) * (BM // 32) + s
    index = (tile * (BK // 6) + tt // 2) * 32 + places[lane]
    magnitudes = put(n * k3 // 6, index, np.abs(v) << np.where(tt % 2 == 0, 4, 0))
    word = (tile * (BK // 24) + tt // 8) * 16 + lane % 16
    signs = put(n * k3 // 48, word, (v < 0) << (15 - (2 * (tt % 8) + lane // 16)), np.dtype("<u2"))

    r, t = grid(n, k2 // 2)
    code = 3 * w[:, k3::2] + w[:, k3 + 1 :: 2] + 4
    mt, rr = r // BM, r % BM
    s, lane = rr // 32, rr % 32
    index = (mt * (k2 // 32) + t // 16) * (BM // 32) + s
    index = (index * 8 + t % 16 // 2) * 32 + places[lane]
    pairs = put(n * k2 // 4, index, code << np.where(t % 2 == 0, 4, 0))

    size = (k - 256) * n // 3 * 5 // 8 + 256 * n // 2 * 4 // 8
    planes = magnitudes.tobytes() + signs.tobytes() + pairs.tobytes()
    codes = padded(planes.ljust(size, b"\0"))
    return codes + struct.pack("<f", scale) + bytes(28)


def tq1_0(trits, scale):
    """One block of 256."""
    u = [int(t) + 1 for t in trits]
    groups = [[u[n * 32 + m] for n in range(5)] for m in range(32)]
    groups += [[u[160 + n * 16 + m] for n in range(5)] for m in range(16)]
    groups += [[*(u[240 + n * 4 + j] for n in range(4)), 0] for j in range(4)]
    values = [sum(c * 3 ** (4 - n) for n, c in enumerate(group)) for group in groups]
    return bytes(-(-v * 256 // 243) for v in values) + struct.pack("<e", scale)


def tq2_0(trits, scale):
    """One block of 256."""
    qs = [0] * 64
    for i, t in enumerate(trits):
        qs[32 * (i // 128) + i % 32] |= (int(t) + 1) << 2 * (i % 128 // 32)
    return bytes(qs) + struct.pack("<e", scale)


def q2_0(trits, scale):
    """One block of 64 or 128."""
    qs = [0] * (len(trits) // 4)
    for j, t in enumerate(trits):
        qs[j // 4] |= (int(t) + 1) << 2 * (j % 4)
    return struct.pack("<e", scale) + bytes(qs)


def q1_0(signs, scale):
    """One block of 128."""
    qs = [0] * 16
    for j, t in enumerate(signs):
        qs[j // 8] |= (t > 0) << j % 8
    return struct.pack("<e", scale) + bytes(qs)


def iq1_bn(trits, scale):
    """One row: its scale, then 13 bytes for 64 weights."""
    data = struct.pack("<e", scale)
    for block in (np.reshape(trits, (-1, 4, 16)) + 1).tolist():
        groups = [group[5 * i : 5 * i + 5] for group in block for i in range(3)]
        groups.append([group[15] for group in block])
        values = [sum(c * 3**j for j, c in enumerate(group)) for group in groups]
        data += bytes((256 * v + 242) // 243 for v in values)
    return data


def iq2_bn(trits, scale):
    """One row: its scale, then 16 bytes for 64 weights."""
    qs = [0] * (len(trits) // 4)
    for i, t in enumerate(trits):
        qs[i // 64 * 16 + i % 16] |= (int(t) + 1) << 2 * (i % 64 // 16)
    return struct.pack("<f", scale) + bytes(qs)


# Type -> encoder of a row.
ROWS = {"IQ1_BN": iq1_bn, "IQ2_BN": iq2_bn}


def encode_rows(kind, trits, scales):
    """Rows of ``trits`` (N, K), with a scale each."""
    scales = np.broadcast_to(scales, len(trits))
    return b"".join(ROWS[kind](row, scale) for row, scale in zip(trits, scales, strict=True))


# Type -> (weights of a block, its encoder).
BLOCKS = {
    "TQ1_0": (256, tq1_0),
    "TQ2_0": (256, tq2_0),
    "Q1_0": (128, q1_0),
    "Q2_0_64": (64, q2_0),
    "Q2_0_128": (128, q2_0),
}


def encode_blocks(kind, trits, scales):
    """Blocks along K of ``trits`` (N, K), with a scale each."""
    group, encode = BLOCKS[kind]
    blocks = np.reshape(trits, (-1, group))
    scales = np.broadcast_to(scales, (len(trits), trits.shape[1] // group)).ravel()
    return b"".join(encode(block, scale) for block, scale in zip(blocks, scales, strict=True))
