"""A JPEG writer for files that no library writes: any sampling of each component, any order and
grouping of scans, sequential or progressive, restart markers, and segments in unusual places.

Coefficients are drawn at random instead of being computed from a picture, because only decoders are
compared. Needs only numpy. The format is that of ITU-T T.81.
"""

from dataclasses import dataclass, field

import numpy as np

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8)))


@dataclass
class Component:
    """Sampling factors, and coefficients [rows, columns, 64] in the order of the file, in whole MCUs."""

    across: int
    down: int
    name: int
    table: int = 0
    blocks: np.ndarray = field(default=None, repr=False)


@dataclass
class Scan:
    """A scan with the numbers of its components and, if progressive, the first and last
    coefficient, and the high and low bit. `before` is written in front of it; `interval` is its
    restart interval."""

    components: list
    first: int = 0
    last: int = 63
    high: int = 0
    low: int = 0
    interval: int = 0
    before: bytes = b""


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def draw_blocks(rng, width, height, component, most, factor=1.0):
    """Draws coefficients of a component: a drifting mean and a few others."""
    across = -(-width // (8 * most[0])) * component.across
    down = -(-height // (8 * most[1])) * component.down
    blocks = np.zeros((down, across, 64), np.int64)
    mean = rng.integers(-60, 60)
    for row in range(down):
        for column in range(across):
            mean = int(np.clip(mean + rng.integers(-40, 41), -120, 120))
            blocks[row, column, 0] = mean
            for _ in range(rng.integers(0, 9)):
                place = min(63, 1 + int(rng.exponential(9)))
                blocks[row, column, place] = int(np.round(rng.normal() * 14 * factor / (1 + place / 6)))
    return blocks


class Bits:
    def __init__(self):
        self.value, self.count = 0, 0

    def put(self, value: int, count: int) -> None:
        self.value = self.value << count | value
        self.count += count

    def bytes(self) -> bytes:
        fill = -self.count % 8
        value = (self.value << fill) | ((1 << fill) - 1)
        return value.to_bytes((self.count + fill) // 8, "big").replace(b"\xff", b"\xff\0")


# All codes have the same length, so no symbols need to be counted: 4 bits for means, 8 for the
# others.
DC_SYMBOLS = list(range(12))
AC_SYMBOLS = [0xF0] + [run << 4 for run in range(15)] + [r << 4 | s for r in range(16) for s in range(1, 11)]


def huffman_tables() -> bytes:
    counts = bytes([0, 0, 0, 12] + [0] * 12)
    more = bytes([0] * 7 + [len(AC_SYMBOLS)] + [0] * 8)
    return segment(0xC4, b"\0" + counts + bytes(DC_SYMBOLS)) + segment(0xC4, b"\x10" + more + bytes(AC_SYMBOLS))


def number(bits: Bits, value: int, size: int) -> None:
    bits.put(value if value >= 0 else value + (1 << size) - 1, size)


def put_mean(bits: Bits, difference: int) -> None:
    size = abs(difference).bit_length()
    bits.put(DC_SYMBOLS.index(size), 4)
    number(bits, difference, size)


def put_symbol(bits: Bits, symbol: int) -> None:
    bits.put(AC_SYMBOLS.index(symbol), 8)


class Coder:
    """Encodes the blocks of one restart interval of a scan."""

    def __init__(self, scan: Scan, progressive: bool):
        self.scan, self.progressive = scan, progressive
        self.bits, self.means = Bits(), {}
        self.run, self.late = 0, []

    def block(self, component: int, block) -> None:
        scan = self.scan
        if not self.progressive:
            self.mean(component, int(block[0]))
            self.first(block, 1, 63, 0, runs=False)
        elif scan.first == 0 and scan.high == 0:
            self.mean(component, int(block[0]) >> scan.low)
        elif scan.first == 0:
            self.bits.put(int(block[0]) >> scan.low & 1, 1)
        elif scan.high == 0:
            self.first(block, scan.first, scan.last, scan.low, runs=True)
        else:
            self.refine(block)

    def mean(self, component: int, mean: int) -> None:
        put_mean(self.bits, mean - self.means.get(component, 0))
        self.means[component] = mean

    def first(self, block, first: int, last: int, low: int, runs: bool) -> None:
        zeros = 0
        for place in range(first, last + 1):
            value = int(block[place])
            value = (abs(value) >> low) * (1 if value > 0 else -1)
            if value == 0:
                zeros += 1
                continue
            self.end_run()
            while zeros > 15:
                put_symbol(self.bits, 0xF0)
                zeros -= 16
            size = abs(value).bit_length()
            put_symbol(self.bits, zeros << 4 | size)
            number(self.bits, value, size)
            zeros = 0
        if zeros and runs:
            self.add_run([])
        elif zeros:
            put_symbol(self.bits, 0)

    def refine(self, block) -> None:
        scan = self.scan
        values = {k: abs(int(block[k])) >> scan.low for k in range(scan.first, scan.last + 1)}
        newest = max((k for k, value in values.items() if value == 1), default=0)
        zeros, late = 0, []
        for place, value in values.items():
            if value == 0:
                zeros += 1
                continue
            while zeros > 15 and place <= newest:
                self.end_run()
                put_symbol(self.bits, 0xF0)
                late = self.put_all(late)
                zeros -= 16
            if value > 1:
                late.append(value & 1)
                continue
            self.end_run()
            put_symbol(self.bits, zeros << 4 | 1)
            self.bits.put(int(block[place] > 0), 1)
            late, zeros = self.put_all(late), 0
        if zeros or late:
            self.add_run(late)

    def put_all(self, late: list) -> list:
        for bit in late:
            self.bits.put(bit, 1)
        return []

    def add_run(self, late: list) -> None:
        self.run += 1
        self.late += late
        if self.run == 0x7FFF:
            self.end_run()

    def end_run(self) -> None:
        if self.run:
            size = self.run.bit_length() - 1
            put_symbol(self.bits, size << 4)
            self.bits.put(self.run - (1 << size), size)
            self.put_all(self.late)
            self.run, self.late = 0, []

    def bytes(self) -> bytes:
        self.end_run()
        return self.bits.bytes()


def mcus(scan: Scan, components, width: int, height: int):
    """Yields the blocks of each MCU: numbers of components, rows, and columns."""
    most = max(c.across for c in components), max(c.down for c in components)
    if len(scan.components) == 1:
        (one,) = scan.components
        c = components[one]
        factors = (1, 1) if len(components) == 1 else (c.across, c.down)
        most = (1, 1) if len(components) == 1 else most
        across = -(-(-(-width * factors[0] // most[0])) // 8)
        down = -(-(-(-height * factors[1] // most[1])) // 8)
        for row in range(down):
            for column in range(across):
                yield [(one, row, column)]
        return
    for row in range(-(-height // (8 * most[1]))):
        for column in range(-(-width // (8 * most[0]))):
            yield [
                (i, row * components[i].down + y, column * components[i].across + x)
                for i in scan.components
                for y in range(components[i].down)
                for x in range(components[i].across)
            ]


def scan_bytes(scan: Scan, components, width, height, progressive) -> bytes:
    out = scan.before + segment(0xDD, scan.interval.to_bytes(2, "big"))
    selected = b"".join(bytes([components[i].name, 0]) for i in scan.components)
    parameters = bytes([scan.first, scan.last, scan.high << 4 | scan.low])
    out += segment(0xDA, bytes([len(scan.components)]) + selected + parameters)
    coder, restarts = Coder(scan, progressive), 0
    for count, mcu in enumerate(mcus(scan, components, width, height)):
        if scan.interval and count and count % scan.interval == 0:
            out += coder.bytes() + bytes([0xFF, 0xD0 + restarts % 8])
            coder, restarts = Coder(scan, progressive), restarts + 1
        for component, row, column in mcu:
            coder.block(component, components[component].blocks[row, column])
    return out + coder.bytes()


def quantization(number: int, values) -> bytes:
    return segment(0xDB, bytes([number]) + bytes(values))


def jpeg(width, height, components, scans, progressive=False, head=b"", tail=b"", tables=None) -> bytes:
    """Returns a file, with `head` after its start marker and `tail` before its end marker."""
    tables = tables or {0: [3] * 64}
    out = b"\xff\xd8" + head + b"".join(quantization(n, t) for n, t in tables.items())
    frame = bytes([8]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([len(components)])
    for c in components:
        frame += bytes([c.name, c.across << 4 | c.down, c.table])
    out += segment(0xC2 if progressive else 0xC0, frame) + huffman_tables()
    for scan in scans:
        out += scan_bytes(scan, components, width, height, progressive)
    return out + tail + b"\xff\xd9"


JFIF = segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
