"""Images that announce more than they hold, made by hand."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

SIDE = 60_000  # 3.6 billion pixels, more than ten gigabytes of RGB


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int = SIDE, height: int = SIDE, extra: bytes = b"") -> bytes:
    """A PNG of any stated size whose pixels are zeros, deflated a thousand times smaller."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    squeeze = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    pixels = b"".join(squeeze.compress(row) for _ in range(min(height, 400))) + squeeze.flush()
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def text_png() -> bytes:
    """A small PNG with a text chunk that becomes a gigabyte."""
    squeeze = zlib.compressobj(9)
    block = bytes(2**20)
    text = b"".join(squeeze.compress(block) for _ in range(1024)) + squeeze.flush()
    return png(8, 8, _chunk(b"zTXt", b"k\0\0" + text))


def jpeg(width: int = SIDE, height: int = SIDE) -> bytes:
    """A real JPEG with another size in its frame header."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(stream, "JPEG")
    data = bytearray(stream.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def gif() -> bytes:
    """A GIF whose screen and frame have 65,535 pixels a side."""
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + screen + frame + b";"


def webp() -> bytes:
    """A lossless WebP header of the format's largest size, 16,383 a side."""
    bits = 16382 | (16382 << 14)
    body = b"\x2f" + struct.pack("<I", bits) + bytes(16)
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def bmp() -> bytes:
    """A BMP header without pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def tiff() -> bytes:
    """A TIFF directory of one strip that is not there."""
    entries = [(256, 4, 1, SIDE), (257, 4, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
               (277, 3, 1, 1), (278, 4, 1, SIDE), (279, 4, 1, 16)]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 24) + bytes(16) + directory + bytes(4)


def ppm() -> bytes:
    """A PPM header without pixels."""
    return f"P6 {SIDE} {SIDE} 255\n".encode()


BOMBS: dict[str, Callable[[], bytes]] = {
    "png": png, "text": text_png, "jpg": jpeg, "gif": gif, "webp": webp, "bmp": bmp, "tif": tiff, "ppm": ppm
}  # fmt: skip


@pytest.fixture(scope="session")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file of each kind, all small."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in BOMBS.items():
        suffix = "png" if name == "text" else name
        (folder / f"{name}.{suffix}").write_bytes(make())
    assert all(file.stat().st_size < 2_000_000 for file in folder.iterdir())
    return folder
